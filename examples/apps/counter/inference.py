"""Counter: state that lives in the instance, for trying out sessions.

Without a session, tasks go to whichever instance is free, so the counts are nobody's in particular. In a session
(`"session": "new"`, then the id that the answer gives), every call reaches the same instance.
"""

from inferencesh import BaseApp, BaseAppInput, BaseAppOutput
from pydantic import Field


class AppInput(BaseAppInput):
    step: int = Field(default=1, ge=-1000, le=1000, description="How much to add")
    note: str = Field(default="", max_length=200, description="Kept until the instance ends")


class AppOutput(BaseAppOutput):
    count: int = Field(description="Sum of all steps since this instance was set up")
    calls: int
    notes: list[str] = Field(description="The last notes, oldest first")


class App(BaseApp):
    async def setup(self) -> None:
        self.count = 0
        self.calls = 0
        self.notes: list[str] = []

    async def run(self, input_data: AppInput) -> AppOutput:
        """Add to the count and say what it is now."""
        self.count += input_data.step
        self.calls += 1
        if input_data.note:
            self.notes = [*self.notes[-9:], input_data.note]
        return AppOutput(count=self.count, calls=self.calls, notes=self.notes)
