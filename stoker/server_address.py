"""Where the embedded server of a data directory is found, and the password of those who own that directory."""

import hashlib
import os
import re
from pathlib import Path
from typing import Final
from urllib.parse import quote

SOCKET_PATH_MAX: Final = 100
"""Linux takes 108 bytes of socket path (unix(7), sun_path); the rest is room for a temporary suffix."""
PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9._/+-]+")


def redis_socket(data_dir: Path) -> Path:
    """The embedded server's socket: in the data directory, or in a plain one of the user.

    A path may be too long for a socket, or hold what tools that read CLIENT INFO cannot take (a space, `=`).
    """
    path = data_dir / "redis.sock"
    if len(os.fsencode(path)) <= SOCKET_PATH_MAX and PLAIN_PATH.fullmatch(str(path)):
        return path
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:16]
    return Path(f"/tmp/stoker-{os.getuid()}/{digest}.sock")  # noqa: S108 - its owner and mode are checked before use


def password_file(data_dir: Path) -> Path:
    """Holds the password of the default user while the server also listens on TCP, where others could come."""
    return data_dir / "redis-password"


def socket_url(path: Path, password: str = "") -> str:
    """A Redis URL for a unix socket; spaces and the like are escaped."""
    return "unix://" + quote(str(path)) + (f"?password={quote(password, safe='')}" if password else "")


def embedded_url(data_dir: Path) -> str:
    """The Redis URL of a data directory's server."""
    try:
        password = password_file(data_dir).read_text(encoding="utf-8").strip()
    except OSError:
        password = ""
    return socket_url(redis_socket(data_dir), password)


def listen_address(text: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port``, taken apart.

    Raises:
        ValueError: it is neither.
    """
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"'{text}' is not host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)
