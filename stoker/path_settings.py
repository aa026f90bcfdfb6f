"""The type of every setting that is a path."""

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator


def _whole(path: Path) -> Path:
    try:
        return path.expanduser().absolute()
    except RuntimeError as error:  # ~somebody, whom this machine does not know
        raise ValueError(str(error)) from error


WholePath = Annotated[Path, AfterValidator(_whole)]
"""Absolute, and without `~`: nothing that is given the path needs to think of that, as libraries and parts do not."""
