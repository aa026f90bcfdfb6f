"""Has no run of its own: the one of the SDK's base class is no function."""

from inferencesh import BaseApp, BaseAppInput, BaseAppOutput


class Base(BaseAppInput):
    last: str = "z"


class AppInput(Base):
    first: str
    second: int = 2


class AppOutput(BaseAppOutput):
    text: str


class App(BaseApp):
    async def look(self, input_data: AppInput) -> AppOutput:
        """Look at it."""
        return AppOutput(text=input_data.first)
