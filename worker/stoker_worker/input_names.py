"""Names of input files on disk, and files that come within their own address (`data:`). Pure."""

import base64
import binascii
import mimetypes
import re
from typing import Final
from urllib.parse import unquote, unquote_to_bytes

NAME_BYTES: Final = 120
"""Half of what a file system takes (255), so that apps can derive longer names."""
SUFFIX_BYTES: Final = 20
SHOWN_NAME_CHARACTERS: Final = 255
NO_NAME: Final = "file"
_DATA: Final = re.compile(r"data:([^,]*?)(;base64)?,", re.IGNORECASE)
_BLANKS: Final = re.compile(r"\s+")
_USUAL: Final = {".jpe": ".jpg", ".jfif": ".jpg"}


class BadDataUri(ValueError):
    """The text is no data address that can be read."""


def safe_name(name: str, content_type: str = "") -> str:
    """A file name that is one word in any shell: letters, digits, `.`, `_`, `-`; bounded; with its extension.

    A name without an extension gets that of its media type.
    """
    last = re.split(r"[/\\]", name)[-1]
    plain = "".join(c if c.isalnum() or c in "._-" else "_" for c in last).lstrip(".-").rstrip(".")
    stem, dot, suffix = plain.rpartition(".")
    if not dot:
        stem, suffix = plain, extension(content_type).lstrip(".")
    suffix = f".{_cut(suffix, SUFFIX_BYTES)}" if suffix else ""
    return (_cut(stem, NAME_BYTES - len(suffix.encode())) or NO_NAME) + suffix


def plain_name(name: str) -> str:
    """A file name for people: the last part of a path, without control characters."""
    last = re.split(r"[/\\]", name)[-1]
    text = "".join(c for c in last if c.isprintable()).strip()[:SHOWN_NAME_CHARACTERS]
    return "" if text in {".", ".."} else text


def name_in_path(path: str) -> str:
    """The last part of a URL's path, decoded; empty without one."""
    return unquote(path.rpartition("/")[2])


def extension(content_type: str) -> str:
    """The usual extension of a media type, with its dot; empty when there is none."""
    found = mimetypes.guess_extension(content_type) or ""
    return "" if found == ".bin" else _USUAL.get(found, found)


def read_data_uri(uri: str, max_bytes: int) -> tuple[str, bytes]:
    """The media type and the bytes of a data address (RFC 2397).

    Base64 may be that for URLs, lack its padding, be percent-encoded or have blanks in it.

    Raises:
        BadDataUri: says what is wrong.
    """
    head = _DATA.match(uri)
    if head is None:
        raise BadDataUri("it is no data address: a comma is missing (data:image/png;base64,...)")
    content_type = head[1].partition(";")[0].strip().lower() or "text/plain"
    body = uri[head.end() :]
    if len(body) > 3 * max_bytes + 4:  # percent-encoding triples, base64 adds a third
        raise BadDataUri(f"it is larger than {max_bytes} bytes (STOKER_FETCH_MAX_BYTES)")
    data = _base64(body) if head[2] else unquote_to_bytes(body)
    if len(data) > max_bytes:
        raise BadDataUri(f"it has {len(data)} bytes; at most {max_bytes} are taken (STOKER_FETCH_MAX_BYTES)")
    return content_type, data


def _base64(text: str) -> bytes:
    plain = _BLANKS.sub("", unquote(text)).replace("-", "+").replace("_", "/").rstrip("=")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadDataUri(f"its base64 cannot be decoded: {error}") from error


def _cut(text: str, size: int) -> str:
    """At most `size` bytes of a text, whole characters."""
    return text.encode()[:size].decode(errors="ignore")
