"""Functions and setup with pydantic models, and files like those of the SDK."""

import os
from enum import Enum
from typing import Any, AsyncGenerator, Optional

from pydantic import BaseModel, ConfigDict, Field


class File:
    """As the SDK's: any object with a uri and a path."""

    def __init__(self, path=None, uri=None, content_type=None):
        self.path, self.uri, self.content_type = path, uri, content_type
        self.size = self.filename = None


class Size(str, Enum):
    SMALL = "small"
    LARGE = "large"


class AppSetup(BaseModel):
    size: Size = Size.SMALL
    steps: int = Field(default=2, ge=1)


class AppInput(BaseModel):
    name: str = Field(description="Whom to greet")
    times: int = 1


class AppOutput(BaseModel):
    model_config = ConfigDict(arbitrary_types_allowed=True)
    text: str
    size: Size
    file: Optional[Any] = None
    files: list[Any] = []
    hidden: str = Field(default="secret", exclude=True)


class App:
    async def setup(self, config: AppSetup, metadata) -> None:
        self.config = config

    async def run(self, input_data: "AppInput", metadata) -> "AppOutput":
        """Greet.

        With files.
        """
        path = os.path.join(os.environ["TMPDIR"], "greeting.txt")
        with open(path, "w") as file:
            file.write(input_data.name)
        return AppOutput(
            text=f"{os.environ['GREETING']} {input_data.name} {metadata.task_id}",
            size=self.config.size,
            file=File(path=path),
            files=[File(uri="https://example.org/a.png"), File(path="missing.bin")],
        )

    async def stream(self, input_data: AppInput) -> AsyncGenerator[AppOutput, None]:
        for number in range(input_data.times):
            yield AppOutput(text=input_data.name * (number + 1), size=self.config.size)

    def helper(self, path: str) -> str:
        return path

    def _private(self, input_data: AppInput) -> AppOutput:
        raise NotImplementedError
