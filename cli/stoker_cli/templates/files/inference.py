"""A file comes in, a file goes out: inputs are fetched before `run`, outputs are stored after it."""

import tempfile
from pathlib import Path

from inferencesh import BaseApp, BaseAppInput, BaseAppOutput, File
from pydantic import Field


class AppInput(BaseAppInput):
    document: File = Field(description="A text file", examples=["data:text/plain,hello"])


class AppOutput(BaseAppOutput):
    upper: File = Field(description="The same text in upper case")
    characters: int = Field(description="How many characters it has")


class App(BaseApp):
    async def run(self, input_data: AppInput) -> AppOutput:
        """Turn a text into upper case."""
        text = Path(input_data.document.path).read_text(encoding="utf-8")
        target = Path(tempfile.mkdtemp()) / "upper.txt"
        target.write_text(text.upper(), encoding="utf-8")
        return AppOutput(upper=File(path=str(target)), characters=len(text))
