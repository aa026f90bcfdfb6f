"""Text tools: an app with several functions. Each public method with a model as its input is one.

Call them as `examples/text:split`, or with `"function": "split"` in the request; `run` is the default.
"""

import re
import tempfile
from pathlib import Path
from typing import Literal

from inferencesh import BaseApp, BaseAppInput, BaseAppOutput, File
from pydantic import Field

PATTERNS = {"words": r"\S+", "lines": r"[^\n]+", "sentences": r"[^.!?\n]+[.!?]*"}


class CountInput(BaseAppInput):
    text: str


class CountOutput(BaseAppOutput):
    characters: int
    words: int
    lines: int


class SplitInput(BaseAppInput):
    text: str
    by: Literal["words", "lines", "sentences"] = Field(default="lines", description="What the parts are")


class SplitOutput(BaseAppOutput):
    parts: list[str]


class FileInput(BaseAppInput):
    text: str
    filename: str = Field(default="text.txt", pattern=r"^[\w. -]{1,100}$", description="Name of the file")


class FileOutput(BaseAppOutput):
    file: File


class App(BaseApp):
    async def run(self, input_data: CountInput) -> CountOutput:
        """Count characters, words and lines."""
        text = input_data.text
        return CountOutput(characters=len(text), words=len(text.split()), lines=len(text.splitlines()))

    async def split(self, input_data: SplitInput) -> SplitOutput:
        """Cut a text into words, lines or sentences."""
        parts = (part.strip() for part in re.findall(PATTERNS[input_data.by], input_data.text))
        return SplitOutput(parts=[part for part in parts if part])

    async def to_file(self, input_data: FileInput) -> FileOutput:
        """Write a text to a file that can be downloaded."""
        path = Path(tempfile.mkdtemp()) / input_data.filename.strip()
        path.write_text(input_data.text, encoding="utf-8")
        return FileOutput(file=File(path=str(path)))
