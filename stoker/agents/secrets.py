"""Secrets in tools: `${{secrets.NAME}}` in what a call is shown by. Pure.

A reference stays one wherever a tool is stored or shown; its value is put in at the moment of the call alone.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from stoker.core.errors import InvalidRequest

REFERENCE: Final = re.compile(r"\$\{\{\s*secrets\.([A-Za-z_][A-Za-z0-9_]{0,127})\s*\}\}")
_LOOSE: Final = re.compile(r"\$\{\{\s*secrets\b[^}]*\}\}")
_EITHER: Final = re.compile(REFERENCE.pattern + r"|\{\{\s*context\.([A-Za-z0-9_.-]+)\s*\}\}")
_NO_HEADER: Final = re.compile(r"[^\x20-\x7e\t]")
"""What a header cannot hold; a line end would begin another one."""
_encode = msgspec.json.Encoder().encode


def names_in(texts: Iterable[str]) -> frozenset[str]:
    """The secrets that texts refer to."""
    return frozenset(name for text in texts for name in REFERENCE.findall(text))


def is_reference(text: object) -> bool:
    """Whether a text is nothing but a reference, and so no secret itself."""
    return isinstance(text, str) and REFERENCE.fullmatch(text) is not None


def filled(text: str, context: Mapping[str, str], secrets: Mapping[str, str]) -> str:
    """A text with the chat's values and with secrets. Once: what a value holds is looked at for no more."""

    def value(found: re.Match[str]) -> str:
        return secrets.get(found[1], "") if found[1] else context.get(found[2], "")

    return _EITHER.sub(value, text)


def wrong_header(headers: Mapping[str, str]) -> str:
    """The name of a header whose value cannot be sent; empty when all can."""
    return next((name for name, value in headers.items() if _NO_HEADER.search(value)), "")


def check_references(own: Mapping[str, Any], takes: Iterable[str], where: str) -> None:
    """Whether the fields of a tool refer to secrets only where the values can be put in.

    Args:
        takes: the fields that may.
        where: the tool's place in the config.

    Raises:
        InvalidRequest: another field does, or what follows `secrets.` is no name.
    """
    allowed = frozenset(takes)
    for field, value in own.items():
        for found in _LOOSE.findall(_encode(value).decode()):
            if REFERENCE.fullmatch(found) is None:
                why = "names no secret; write ${{secrets.NAME}}, with letters, digits and _"
            elif field not in allowed:
                why = (
                    "stands where no secret is put in: that is done in `headers`, `auth.secret` and `secret` of tools "
                    "that call an address (http, call, hook)"
                )
            else:
                continue
            raise InvalidRequest(f"Input validation failed: agent_config.{where}.{field}: {found} {why}")
