"""Where Redis is found: the embedded server of a data directory, or what an address names."""

import hashlib
import os
import re
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

SOCKET_PATH_MAX: Final = 100
"""Linux takes 108 bytes of socket path (unix(7), sun_path); the rest is room for a temporary suffix."""
PLAIN_PATH: Final = re.compile(r"[A-Za-z0-9._/+-]+")
DEFAULT_PORTS: Final = {"": 6379, "sentinel": 26379, "cluster": 6379}
REDIS_FORMS: Final = (
    "redis://host:port, unix:///path, redis+sentinel://host:port,host:port/name of the primary, "
    "redis+cluster://host:port,host:port; rediss instead of redis encrypts"
)


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


class RedisAddress(NamedTuple):
    """A Redis URL, taken apart as far as redis-py cannot do it."""

    kind: str
    """'' for one server, ``sentinel``, ``cluster``."""
    hosts: tuple[tuple[str, int], ...]
    """The Sentinels, or some nodes of the cluster; empty for one server."""
    primary: str
    """Under which name the Sentinels know the server."""
    login: str
    """A URL for redis-py with everything else: user, password, database, encryption. Of one server the whole."""
    sentinel_options: dict[str, str]
    """User and password for the Sentinels themselves, under redis-py's names."""


def parse_redis(url: str) -> RedisAddress:
    """Take a Redis URL apart.

    Raises:
        ValueError: it is in none of the known forms (`REDIS_FORMS`); says which part is not.
    """
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    if scheme not in {"redis", "rediss", "unix"} or kind not in DEFAULT_PORTS or (scheme == "unix" and kind):
        raise ValueError(f"'{parts.scheme}://' is no known form; they are: {REDIS_FORMS}")
    if not kind:
        return RedisAddress("", (), "", url, {})
    user, at, names = parts.netloc.rpartition("@")
    hosts = tuple(_host(name, DEFAULT_PORTS[kind]) for name in names.split(","))
    path = parts.path.strip("/").split("/")
    primary = path.pop(0) if kind == "sentinel" else ""
    if kind == "sentinel" and not primary:
        raise ValueError("the name of the primary is missing: redis+sentinel://host:port/name")
    if len(path) > 1 or (kind == "cluster" and path != [""]):
        raise ValueError(f"'{parts.path}' is too long a path; a cluster has no databases")
    query = dict(parse_qsl(parts.query))
    sentinel_options = {
        name.removeprefix("sentinel_"): query.pop(name)
        for name in ("sentinel_username", "sentinel_password")
        if name in query
    }
    login = urlunsplit((scheme, f"{user}{at}host", "/".join(path), urlencode(query), ""))
    return RedisAddress(kind, hosts, primary, login, sentinel_options)


def _host(text: str, port: int) -> tuple[str, int]:
    if not text or text.endswith("]") or ":" not in text:
        text = f"{text}:{port}"
    return listen_address(text)
