"""The SDK's classes, which its requirements do not name."""

from typing import AsyncGenerator, List, Optional

import pydantic
from inferencesh import BaseApp, BaseAppInput, BaseAppOutput, File, OutputMeta, TextMeta
from inferencesh.models.base import Metadata


class RunInput(BaseAppInput):
    text: str = "x"
    count: int = 1


class FileInput(BaseAppInput):
    before: str = ""
    picture: File
    more: Optional[List[File]] = None


class RunOutput(BaseAppOutput):
    text: str


class PlainInput(pydantic.BaseModel):
    text: str


class PlainOutput(pydantic.BaseModel):
    text: str


class App(BaseApp):
    async def run(self, input_data: RunInput, metadata) -> RunOutput:
        """Say what the metadata holds."""
        metadata.log("said by", "metadata")
        self.logger.info("said by the logger")
        words = [
            isinstance(metadata, Metadata),
            metadata.app_variant,
            metadata.get("app_variant", "?"),
            metadata.get("nothing", "default"),
            metadata.task_id,
            metadata.gpu_ids,
        ]
        meta = OutputMeta(outputs=[TextMeta(tokens=3)])
        return RunOutput(text=repr(words), output_meta=meta)

    async def plain(self, input_data: PlainInput) -> PlainOutput:
        return PlainOutput(text=input_data.text)

    async def picture(self, input_data: FileInput) -> RunOutput:
        picture = input_data.picture
        return RunOutput(text="none" if picture is None else str(picture.filename))

    async def grow(self, input_data: RunInput) -> AsyncGenerator[RunOutput, None]:
        text = ""
        for _ in range(input_data.count):
            text += input_data.text
            yield RunOutput(text=text)

    async def talk(self, input_data: RunInput, socket) -> RunOutput:
        return RunOutput(text="never")

    def helper(self, path: str) -> str:
        return path
