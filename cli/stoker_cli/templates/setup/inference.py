"""What is slow happens once, in `setup`: tasks with the same setup values share what it loaded."""

from typing import Literal

from inferencesh import BaseApp, BaseAppInput, BaseAppOutput, BaseAppSetup
from pydantic import Field


class AppSetup(BaseAppSetup):
    model: Literal["small", "large"] = Field(default="small", description="Which model to load")


class AppInput(BaseAppInput):
    text: str = Field(description="What to work on", examples=["hello"])


class AppOutput(BaseAppOutput):
    answer: str = Field(description="The result")
    model: str = Field(description="The model that made it")


class App(BaseApp):
    async def setup(self, config: AppSetup):
        print(f"loading the {config.model} model")
        self.model = config.model  # here: load it

    async def run(self, input_data: AppInput) -> AppOutput:
        """Answer with the text in reverse."""
        return AppOutput(answer=input_data.text[::-1], model=self.model)
