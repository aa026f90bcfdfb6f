"""What the headers of an answer say about a file: its length, where it goes on, its hash, how long it holds. Pure."""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Final

import httpx

FRESH_S: Final = 60.0
"""However long an answer says that it holds: after this its server is asked, so that a deleted file is gone."""
RETRY_AFTER_MAX_S: Final = 30.0
_HASHES: Final = {"sha-512": "sha512", "sha-256": "sha256"}
"""Algorithms of RFC 9530 that hold, the better one first."""
_RANGE: Final = re.compile(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)")
_MAX_AGE: Final = re.compile(r"(?:^|[\s,])max-age=(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """Which bytes a server has under an address: by tag, else by time. Empty = it does not say."""

    etag: str = ""
    modified: str = ""

    @property
    def known(self) -> bool:
        """Whether a server can be asked if these bytes still hold."""
        return bool(self.etag or self.modified)

    @property
    def exact(self) -> str:
        """What proves that a rest belongs to these bytes (If-Range); a weak tag does not."""
        return self.modified if not self.etag or self.etag.startswith("W/") else self.etag

    def conditions(self) -> dict[str, str]:
        """Headers of a request that wants the bytes only if they are others."""
        if self.etag:
            return {"if-none-match": self.etag}
        return {"if-modified-since": self.modified} if self.modified else {}


def version_of(headers: httpx.Headers) -> Version:
    """Which version came."""
    etag, modified = (headers.get(name, "") for name in ("etag", "last-modified"))
    # What is sent back must be a header; a server that says more is not asked by it.
    return Version(etag=_sendable(etag), modified=_sendable(modified))


def _sendable(text: str) -> str:
    return text if text.isascii() and text.isprintable() else ""


def fresh_s(headers: httpx.Headers) -> float | None:
    """For how many seconds a copy may serve without a question; None = no copy may be kept."""
    text = headers.get("cache-control", "").lower()
    if "no-store" in text:
        return None
    age = _MAX_AGE.search(text)
    return min(float(age[1]), FRESH_S) if age and "no-cache" not in text else 0.0


def content_type(headers: httpx.Headers) -> str:
    """The media type without parameters; empty when the server has nothing better than "bytes"."""
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    return "" if kind in {"application/octet-stream", "binary/octet-stream"} else kind


def whole_length(answer: httpx.Response) -> int | None:
    """Bytes of the whole file, also when a part of it comes; None = not stated."""
    if answer.status_code == httpx.codes.PARTIAL_CONTENT:
        found = _RANGE.fullmatch(answer.headers.get("content-range", ""))
        return int(found[2]) if found and found[2] != "*" else None
    text = answer.headers.get("content-length", "")
    return int(text) if text.isdecimal() and len(text) < 19 else None


def starts_at(answer: httpx.Response) -> int | None:
    """Where in the file an answer begins; None when it does not say so in a way that can be trusted."""
    if answer.status_code != httpx.codes.PARTIAL_CONTENT:
        return 0
    found = _RANGE.fullmatch(answer.headers.get("content-range", ""))
    return int(found[1]) if found else None


def stated_hash(headers: httpx.Headers) -> tuple[str, bytes] | None:
    """The (hashlib name, digest) that the server states of the whole file, or None."""
    for item in f"{headers.get('repr-digest', '')},{headers.get('digest', '')}".split(","):
        name, _, text = item.strip().partition("=")
        if name.lower() in _HASHES and (digest := _decoded(text.strip(":"))):
            return _HASHES[name.lower()], digest
    amazon = headers.get("x-amz-checksum-sha256", "")
    if amazon and "-" not in amazon and (digest := _decoded(amazon)):  # with a dash: of parts
        return "sha256", digest
    return None


def retry_after_s(headers: httpx.Headers) -> float:
    """Seconds that a busy server asks to wait, bounded; 0 = it does not say."""
    text = headers.get("retry-after", "")
    return min(float(text), RETRY_AFTER_MAX_S) if text.isdecimal() else 0.0


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""
