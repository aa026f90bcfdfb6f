"""What a request for a file's bytes gets: all, a range, or word that it has them already. Pure (RFC 9110, RFC 9530)."""

from base64 import b64encode
from collections.abc import Mapping
from enum import Enum
from typing import Final
from urllib.parse import quote

from msgspec import Struct

from stoker.core.messages import StoredFile
from stoker_gateway.numbers import whole

_YEAR_S: Final = 365 * 86_400
ATTACHMENT: Final = frozenset({"1", "true", "yes"})


class _Unfit(Enum):
    """A range that lies outside the file."""

    OUTSIDE = "outside"


class Plan(Struct, frozen=True, kw_only=True):
    """An answer: `length` bytes from `start` on, or no body but for the headers."""

    status: int
    start: int = 0
    length: int = 0
    headers: dict[str, str]


def decide_download(file: StoredFile, size: int, sent: Mapping[str, str], *, attachment: bool) -> Plan:
    """The answer to GET or HEAD.

    Args:
        sent: the request's headers, names in lower case.
        attachment: the caller wants to save the file, not to look at it.
    """
    headers = file_headers(file, attachment=attachment)
    etag = headers["etag"]
    if matches(sent.get("if-none-match", ""), etag):
        return Plan(status=304, headers=headers)
    # A range of another state of the file is of no use; a file has one state, and so only one tag is right.
    fresh = sent.get("if-range", etag) == etag
    wanted = parse_range(sent.get("range", ""), size) if fresh else None
    if wanted is _Unfit.OUTSIDE:
        return Plan(status=416, headers=headers | {"content-range": f"bytes */{size}"})
    if wanted is None:
        return Plan(status=200, length=size, headers=headers | {"content-length": str(size)})
    start, length = wanted
    headers |= {
        "content-length": str(length),
        "content-range": f"bytes {start}-{start + length - 1}/{size}",
    }
    return Plan(status=206, start=start, length=length, headers=headers)


def file_headers(file: StoredFile, *, attachment: bool) -> dict[str, str]:
    """What every answer about a file says. The bytes of an address never change."""
    stated = (
        {"repr-digest": f"sha-256=:{b64encode(bytes.fromhex(file.sha256)).decode()}:"} if file.sha256 else {}
    )
    return stated | {
        "etag": f'"{file.id}"',
        "accept-ranges": "bytes",
        "cache-control": f"{'public' if file.public else 'private'}, max-age={_YEAR_S}, immutable",
        "content-disposition": disposition(file.filename, attachment=attachment),
        # A file of an app must not run as a page of this origin.
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    }


def disposition(filename: str, *, attachment: bool) -> str:
    """Content-Disposition (RFC 6266): the name in UTF-8, and in ASCII for old clients."""
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in filename)
    kind = "attachment" if attachment else "inline"
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"


def matches(header: str, etag: str) -> bool:
    """Whether an If-None-Match names this tag, or any."""
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return etag in tags or tags == ["*"]


def parse_range(header: str, size: int) -> "tuple[int, int] | _Unfit | None":
    """The (start, length) of a single-range header; None when there is none, or one that we may ignore."""
    unit, _, spec = header.partition("=")
    first, dash, last = (part.strip() for part in spec.strip().partition("-"))
    start, end = whole(first), whole(last)
    if unit.strip().lower() != "bytes" or not dash or (first and start is None) or (last and end is None):
        return None
    if start is None:
        if end is None:
            return None
        length = min(end, size)
        return (size - length, length) if length else _Unfit.OUTSIDE
    if end is not None and end < start:
        return None  # not a range at all
    end = size - 1 if end is None else min(end, size - 1)
    return (start, end - start + 1) if start < size else _Unfit.OUTSIDE


def download_url(base_url: str, file: StoredFile) -> str:
    """The address of a file: unguessable, open without a key, with the name percent-encoded."""
    return f"{base_url}/files/{file.id}/{file.secret}/{quote(file.filename or 'file', safe='')}"
