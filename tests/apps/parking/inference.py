"""An app with hooks for being parked. `PARKING_FOLDER` gets a line for each setup, park and unpark of a model."""

import os
from pathlib import Path

from pydantic import BaseModel

GIB = 1024**3


class AppSetup(BaseModel):
    model: str = "a"
    gib: float = 1
    refuses: str = ""  # park or unpark, which then raises


class AppInput(BaseModel):
    text: str = ""


class AppOutput(BaseModel):
    pid: int
    setups: int
    on_device: bool


class App:
    async def setup(self, config: AppSetup) -> None:
        self.config = config
        self.setups = getattr(self, "setups", 0) + 1
        self.took = Path(os.environ["NVML_APPS"]) / str(os.getpid())
        self.take()
        self.note("setup")

    async def run(self, input_data: AppInput) -> AppOutput:
        return AppOutput(pid=os.getpid(), setups=self.setups, on_device=self.took.exists())

    async def park(self) -> None:
        if self.config.refuses == "park":
            raise RuntimeError("this model cannot leave")
        self.took.unlink()
        self.note("park")

    async def unpark(self) -> None:
        if self.config.refuses == "unpark":
            raise RuntimeError("this model cannot return")
        self.take()
        self.note("unpark")

    def take(self) -> None:
        self.took.write_text(f"0 {int(self.config.gib * GIB)}\n")

    def note(self, what: str) -> None:
        with (Path(os.environ["PARKING_FOLDER"]) / self.config.model).open("a") as file:
            file.write(f"{what}\n")
