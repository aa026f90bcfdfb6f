"""What an app does with a GPU, on the stand-in library: it takes memory, runs out of it, and works with the device."""

import asyncio
import ctypes
import os
from pathlib import Path

from pydantic import BaseModel

GIB = 1024**3


class OutOfMemoryError(RuntimeError):
    """As torch's."""


class Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_uint64) for name in ("total", "free", "used")]


class AppSetup(BaseModel):
    gib: float = 2


class AppInput(BaseModel):
    more: float = 0  # GiB beyond those of the setup
    wait: str = ""  # a file of the folder that ends the run


class AppOutput(BaseModel):
    device: int


class App:
    async def setup(self, config: AppSetup) -> None:
        self.folder = Path(os.environ["NVML_APPS"])
        self.nvml = ctypes.CDLL(os.environ["NVML_LIBRARY"])
        self.device = ctypes.c_void_p()
        uuid = os.environ["CUDA_VISIBLE_DEVICES"].encode()
        assert self.nvml.nvmlDeviceGetHandleByUUID(uuid, ctypes.byref(self.device)) == 0
        self.gib = 0.0
        self.take(config.gib)

    async def run(self, input_data: AppInput) -> AppOutput:
        self.take(input_data.more)
        while input_data.wait and not (self.folder / input_data.wait).exists():
            await asyncio.sleep(0.02)
        return AppOutput(device=self.device.value - 1)

    def take(self, gib: float) -> None:
        memory = Memory()
        self.nvml.nvmlDeviceGetMemoryInfo(self.device, ctypes.byref(memory))
        if memory.total - memory.used < gib * GIB:
            raise OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {gib:.2f} GiB, {memory.used / GIB:.1f} GiB are in use."
            )
        self.gib += gib
        (self.folder / str(os.getpid())).write_text(f"{self.device.value - 1} {int(self.gib * GIB)}\n")
