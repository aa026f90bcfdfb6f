"""Loads the Lua scripts: one verb, one file, with a header that is read here.

A script is its file, with the pieces of `lua/lib/` that its ``-- include`` line names put before it, and the
table of task states before those. `Script.check` holds callers to the header.
"""

import hashlib
import re
from functools import cache
from importlib import resources

from msgspec import Struct

from stoker.core.states import lua_table

_NUMBERED = re.compile(r"(\d+)  ?([^\d].*?)(?=  \d+ |$)")


class Script(Struct, frozen=True, kw_only=True):
    """A script with what its header promises."""

    name: str
    purpose: str
    keys: tuple[str, ...]
    args: tuple[str, ...]
    ok: str
    errors: frozenset[str]
    source: str
    sha: str


def _header(text: str, label: str) -> str:
    """The text behind ``-- LABEL``, up to the next label."""
    match = re.search(rf"(?:^-- |  ){label} +(.*?)(?= {{4,}}[A-Z]+  |$)", text, re.MULTILINE)
    return match.group(1).strip() if match else ""


def _names(header: str) -> tuple[str, ...]:
    return tuple(name.strip() for _, name in _NUMBERED.findall(header))


def _load(name: str) -> Script:
    folder = resources.files(__package__) / "lua"
    body = (folder / f"{name}.lua").read_text()
    include = re.search(r"^-- include (.*)$", body, re.MULTILINE)
    parts = [f"local ALLOWED = {lua_table()}"] if include else []
    parts += [
        (folder / "lib" / f"{piece.strip()}.lua").read_text()
        for piece in (include.group(1).split(",") if include else ())
    ]
    source = "\n".join([*parts, body])
    return Script(
        name=name,
        purpose=body.splitlines()[0].removeprefix(f"-- {name}: "),
        keys=_names(_header(body, "KEYS")),
        args=_names(_header(body, "ARGV")),
        ok=_header(body, "OK"),
        errors=frozenset(code for code in _header(body, "ERR").split() if code != "none"),
        source=source,
        sha=hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest(),
    )


@cache
def scripts() -> dict[str, Script]:
    """All scripts by verb."""
    folder = resources.files(__package__) / "lua"
    names = sorted(
        entry.name.removesuffix(".lua") for entry in folder.iterdir() if entry.name.endswith(".lua")
    )
    return {name: _load(name) for name in names}
