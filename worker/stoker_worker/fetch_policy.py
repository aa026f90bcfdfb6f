"""What a worker may fetch for a caller: which URLs, and which addresses their hosts may have. Pure.

A caller names any URL, and the worker stands inside the operator's network. So only the open internet is
reachable, and what the operator allowed. The files of the own store are reachable wherever it stands, by their
exact addresses.
"""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import unquote

import httpx

from stoker.core.addresses import AllowList
from stoker.outbound import PORTS, may_reach, port_of

_SHOWN_CHARACTERS: Final = 300
_STORE_FILE: Final = re.compile(r"/files/([A-Za-z0-9_-][A-Za-z0-9._-]*)/([A-Za-z0-9_-]+)/([^/]+)")
"""The address of a file in the own store: id, secret, name."""


class FetchFailed(Exception):
    """A file cannot be had; the text says which address and why. A repeat was tried where it could help."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A URL that may be fetched. `url` is how this machine reaches it, `key` what its content is kept under."""

    url: httpx.URL
    key: str
    any_address: bool
    """Its host is trusted by name; else each of its addresses is checked."""


class FetchPolicy:
    """Judges URLs and addresses.

    Args:
        allow: what the operator allows beside the open internet.
        stores: base URLs of the own store, the one that this machine uses first; asked anew each time.
    """

    def __init__(self, allow: AllowList, stores: Callable[[], Sequence[str]]) -> None:
        self._allow = allow
        self._stores = stores

    def judge(self, url: httpx.URL, known_as: str = "") -> Target:
        """How to fetch a URL.

        Args:
            url: any.
            known_as: a further base URL of the own store, under which the callers of this task know it.

        Raises:
            FetchFailed: not http or https, or no host.
        """
        if url.scheme not in PORTS or not url.host:
            raise FetchFailed(f"{shown(url)} is no http or https address")
        stored = self._in_store(url, known_as)
        if stored is not None:
            return stored
        key = hashlib.sha256(
            b"\0".join((url.scheme.encode(), url.userinfo, url.raw_host, b"%d" % port_of(url), url.raw_path))
        ).hexdigest()
        return Target(url=url, key=key, any_address=self._allow.has_host(url.host, port_of(url)))

    def permits(self, target: Target, address: str) -> bool:
        """Whether a connection to `address` (an IP) may be made for a target."""
        return target.any_address or may_reach(self._allow, target.url)(address)

    def _in_store(self, url: httpx.URL, known_as: str) -> Target | None:
        """The target of a file of the own store, by the address that this machine knows it under."""
        bases = [httpx.URL(base) for base in (*self._stores(), known_as) if base]
        path = url.raw_path.partition(b"?")[0].decode("ascii")
        for base in bases:
            prefix = base.path.rstrip("/")
            if _origin(base) != _origin(url) or not path.startswith(prefix):
                continue
            found = _STORE_FILE.fullmatch(path, len(prefix))
            if found is None or _climbs(unquote(found[3])):
                continue
            own = bases[0]
            raw_path = own.path.rstrip("/").encode() + url.raw_path[len(prefix) :]
            digest = hashlib.sha256(f"{found[1]} {found[2]}".encode()).hexdigest()
            return Target(
                url=own.copy_with(raw_path=raw_path), key=f"{found[1]}-{digest[:32]}", any_address=True
            )
        return None


def shown(url: httpx.URL) -> str:
    """A URL as messages may have it: without user, password and query, which may be secrets."""
    text = str(url.copy_with(userinfo=b"", query=None, fragment=None))
    return text if len(text) <= _SHOWN_CHARACTERS else f"{text[:_SHOWN_CHARACTERS]}..."


def _origin(url: httpx.URL) -> tuple[str, str, int]:
    return url.scheme, url.host, port_of(url)


def _climbs(name: str) -> bool:
    return name in {".", ".."} or "/" in name or "\\" in name
