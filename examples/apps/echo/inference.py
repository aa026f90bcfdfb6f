"""Echo: answers with its own input.

The models are plain pydantic ones and the class has no base: the platform finds `App` by its name. So
nothing heavy is imported, and a cold start costs little more than the start of Python itself.
"""

from pydantic import BaseModel, Field


class AppInput(BaseModel):
    message: str = Field(description="What to answer")


class AppOutput(BaseModel):
    message: str = Field(description="The message, unchanged")


class App:
    async def run(self, input_data: AppInput) -> AppOutput:
        """Answer with the message."""
        return AppOutput(message=input_data.message)
