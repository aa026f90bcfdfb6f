"""The TCP address that a gateway listens on: its socket, and its form in URLs."""

import socket
from typing import Final

BACKLOG: Final = 2048


def listen_on(host: str, port: int) -> socket.socket:
    """A listening socket. `::` takes connections over IPv4 too, where the machine can.

    Raises:
        OSError: the port is taken, or the address is not this machine's; names both.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {url_host(host)}:{port}: {error.strerror}") from error


def url_host(host: str) -> str:
    """An address as the host of a URL."""
    return f"[{host}]" if ":" in host else host


def reached_at(host: str) -> str:
    """The host of the URL under which this machine reaches what listens on `host`; "every address" by loopback."""
    if host in {"", "0.0.0.0"} or (host == "::" and socket.has_dualstack_ipv6()):  # noqa: S104 - compared, not bound
        return "127.0.0.1"  # also of ::, as a machine may have IPv6 and no ::1
    return url_host("::1" if host == "::" else host)
