"""The platform makes one App, calls its setup once and its functions for every task."""

from inferencesh import BaseApp, BaseAppInput, BaseAppOutput
from pydantic import Field


class AppInput(BaseAppInput):
    name: str = Field(description="Whom to greet", examples=["world"])


class AppOutput(BaseAppOutput):
    greeting: str = Field(description="The greeting")


class App(BaseApp):
    async def run(self, input_data: AppInput) -> AppOutput:
        """Greet somebody."""
        print(f"greeting {input_data.name}")
        return AppOutput(greeting=f"Hello, {input_data.name}!")
