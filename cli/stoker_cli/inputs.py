"""What a person types as a task's input, made into JSON.

`--input` takes, any number of times: a JSON object, `@file.json`, `-` (standard input), `name=value` (the
value as JSON if it is, else as text) and `name=@path` (the file is uploaded and its address passed).
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from stoker_cli.output import CommandFailed, ExitCode


@dataclass(slots=True)
class TypedInput:
    """Values, and files to upload, by field."""

    values: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)


def parse_input(texts: Sequence[str]) -> TypedInput:
    """Read what was typed.

    Raises:
        CommandFailed: a piece is none of the four forms, or no UTF-8; names the piece.
    """
    typed = TypedInput()
    for text in texts:
        name, mark, value = text.partition("=")
        if not text.startswith("@"):
            _check_text(text, f"--input {text!r}")
        if text == "-":
            typed.values |= _object(_standard_input(), "standard input")
        elif text.startswith("@"):
            typed.values |= _object(_read(Path(text[1:])), text)
        elif text.lstrip().startswith("{"):
            typed.values |= _object(text, text)
        elif mark and name.isidentifier():
            if value.startswith("@"):
                typed.files[name] = _existing(Path(value[1:]))
            else:
                typed.values[name] = _value(value)
        else:
            raise CommandFailed(
                f"--input {text!r} is not understood",
                ExitCode.USAGE,
                "possible: '{\"name\": 1}', @file.json, - (standard input), name=value, name=@file-to-upload",
            )
    return typed


def _check_text(text: str, source: str) -> None:
    """Python keeps bytes that are no UTF-8 as halves of characters, which nothing can send."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise CommandFailed(f"{source} is no UTF-8 text", ExitCode.USAGE) from error


def _standard_input() -> str:
    try:
        text = sys.stdin.read()
    except UnicodeDecodeError as error:
        raise CommandFailed(f"standard input is no UTF-8 text: {error}", ExitCode.USAGE) from error
    _check_text(text, "standard input")
    return text


def _object(text: str, source: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise CommandFailed(f"{source} is no JSON: {error}", ExitCode.USAGE) from error
    if not isinstance(value, dict):
        raise CommandFailed(f"{source} must be a JSON object, found {type(value).__name__}", ExitCode.USAGE)
    return value


def _value(text: str) -> Any:
    try:
        return msgspec.json.decode(text)
    except msgspec.DecodeError:
        return text


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"cannot read '{path}': {error}", ExitCode.USAGE) from error


def _existing(path: Path) -> Path:
    if not path.is_file():
        raise CommandFailed(f"'{path}' is not a file", ExitCode.USAGE)
    return path
