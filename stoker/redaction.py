"""Hides secrets in what an app prints and in its errors. Sans-IO; no clock, no store.

A `Redactor` knows the values, in the forms in which they usually get into logs: as they are, escaped as in
JSON or Python's repr, URL-encoded, and in base64 with anything before it (the header of HTTP basic
authentication). Each is replaced by ``[redacted:NAME]``. A value of several lines is hidden line by line.

What cannot be hidden: values and lines of fewer than `MIN_BYTES` bytes, and a value that the app changes in
another way or prints in pieces on several lines.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from typing import Final
from urllib.parse import quote, quote_plus

MIN_BYTES: Final = 6
"""Shorter values are words and numbers that stand in logs for other reasons."""
_LINE_BREAKS: Final = re.compile(r"[\r\n]+")
_SECRET_NAME: Final = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL)S?(_|$)", re.IGNORECASE)
_ESCAPES: Final = re.compile(r"%[0-9A-F]{2}")
_LEAD_BYTES: Final = 8
_LEADS: Final = ((0, 0), (1, 2), (2, 3))
"""In base64: bytes before the value, modulo 3, and the characters that these have a part in."""


class Redactor:
    """The patterns of some secrets, compiled once; good for any number of streams."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        """Know the values of `secrets`, by name."""
        self._labels: dict[bytes, bytes] = {}
        for name, value in secrets.items():
            for form in forms(value):
                self._labels.setdefault(form, f"[redacted:{name}]".encode())
        # The longest first: of two that begin at one place, it covers the other.
        patterns = sorted(self._labels, key=lambda form: (-len(form), form))
        self._search = re.compile(b"|".join(map(re.escape, patterns))).search if patterns else None
        self._beginnings: dict[bytes, list[bytes]] = {}
        for pattern in patterns:
            self._beginnings.setdefault(pattern[:1], []).append(pattern)
        self._first = (
            re.compile(b"[" + b"".join(map(re.escape, self._beginnings)) + b"]") if patterns else None
        )
        self._longest = max(map(len, patterns), default=0)

    def __bool__(self) -> bool:
        return bool(self._labels)

    def stream(self) -> "RedactedStream":
        """A stream of output."""
        return RedactedStream(self)

    def text(self, text: str) -> str:
        """A whole text, for instance the message of an error."""
        if not self._labels:
            return text
        stream = self.stream()
        shown = stream.feed(text.encode(errors="surrogatepass")) + stream.finish()
        return shown.decode(errors="replace")

    def spans(self, data: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Where secrets stand: start, end and label of each, by start; they may overlap."""
        if self._search is None:
            return
        found = self._search(data)
        while found is not None:
            yield found.start(), found.end(), self._labels[found.group()]
            found = self._search(data, found.start() + 1)

    def unfinished(self, data: bytes) -> int:
        """The first place from which `data` could go on to be a secret; its length for none."""
        return next((start for start, _ in self._begun(data)), len(data))

    def cut(self, data: bytes) -> tuple[int, bytes]:
        """Where a secret begins of which more than half is there when `data` ends, and its label."""
        for start, pattern in self._begun(data):
            if 2 * (len(data) - start) > len(pattern):
                return start, self._labels[pattern]
        return len(data), b""

    def _begun(self, data: bytes) -> Iterator[tuple[int, bytes]]:
        """Places from which all the rest of `data` is the beginning of a pattern."""
        if self._first is None:
            return
        for found in self._first.finditer(data, max(0, len(data) - self._longest + 1)):
            start = found.start()
            size = len(data) - start
            for pattern in self._beginnings[found.group()]:
                lead = pattern[: min(size, _LEAD_BYTES)]  # nearly always says no, without a copy of the rest
                if (
                    len(pattern) > size
                    and data.startswith(lead, start)
                    and data.startswith(pattern[:size], start)
                ):
                    yield start, pattern


class RedactedStream:
    """One stream through a redactor, in chunks cut anywhere.

    What could be the beginning of a secret waits for the next chunk. No pattern holds a line break, so that a
    whole line never waits.
    """

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor
        self._held = b""
        self._hidden = 0  # bytes at the start of what is held that belong to a secret already replaced

    def feed(self, data: bytes) -> bytes:
        """What can be shown after `data` has come."""
        data = self._held + data
        safe = self._redactor.unfinished(data)
        shown = self._replaced(data, safe)
        self._hidden = max(0, self._hidden - safe)
        self._held = data[safe:]
        return shown

    def finish(self) -> bytes:
        """What is left at the end: more than half of a secret counts as the secret."""
        data, self._held = self._held, b""
        start, label = self._redactor.cut(data)
        shown = self._replaced(data, start)
        return shown + label if self._hidden <= start else shown

    def _replaced(self, data: bytes, safe: int) -> bytes:
        """`data` up to `safe`, with every secret that begins there replaced; the last may end behind it."""
        shown: list[bytes] = []
        at = self._hidden
        for start, end, label in self._redactor.spans(data):
            if start >= safe:
                break
            if start >= at:
                shown += (data[at:start], label)
            at = max(at, end)
        shown.append(data[at:safe])
        self._hidden = max(self._hidden, at)
        return b"".join(shown)


def forms(value: str) -> Iterator[bytes]:
    """The byte strings under which a value gets into logs, each of `MIN_BYTES` at least; the value first."""
    lines = [line for line in _LINE_BREAKS.split(value) if line]
    escaped = (json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1])
    encoded = (quote(value, safe=""), quote(value), quote_plus(value))
    small = (_ESCAPES.sub(lambda escape: escape[0].lower(), text) for text in encoded)
    raw = [text.encode() for text in (*lines, *escaped, *encoded, *small)]
    seen: set[bytes] = set()
    for form in (*raw, *_base64_forms(value.encode())):
        if len(form) >= MIN_BYTES and form not in seen:
            seen.add(form)
            yield form


def secret_looking(variables: Mapping[str, str]) -> dict[str, str]:
    """Those variables whose name says that the value is secret: a word of it ends in TOKEN, KEY, SECRET ..."""
    return {name: value for name, value in variables.items() if _SECRET_NAME.search(name)}


def _base64_forms(value: bytes) -> Iterator[bytes]:
    """The characters that stand for a value in base64, whatever is before and behind it."""
    if len(value) < MIN_BYTES:
        return
    for before, head in _LEADS:
        whole = base64.b64encode(b"\0" * before + value)
        tail = (0, 3, 2)[
            (before + len(value)) % 3
        ]  # "=" and the character that shares bits with what follows
        core = whole[head : len(whole) - tail]
        yield core
        yield core.replace(b"+", b"-").replace(b"/", b"_")
