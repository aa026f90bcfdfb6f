"""Counts its calls in memory: whoever reads the count knows which process answered, and what came before."""

import asyncio
import os
from dataclasses import dataclass


@dataclass
class Call:
    seconds: float = 0.0  # how long the call takes
    fail: bool = False
    die: bool = False  # end the process, as a crash would


@dataclass
class Count:
    count: int
    pid: int


class App:
    async def setup(self) -> None:
        self.count = 0

    async def run(self, call: Call) -> Count:
        """One more call."""
        self.count += 1
        print(f"call {self.count}", flush=True)
        await asyncio.sleep(call.seconds)
        if call.die:
            os._exit(3)
        if call.fail:
            raise RuntimeError(f"call {self.count} was told to fail")
        return Count(count=self.count, pid=os.getpid())

    async def reset(self, call: Call) -> Count:
        """Forget the calls."""
        self.count = 0
        return Count(count=0, pid=os.getpid())

    reset.__inferencesh_function__ = True  # as the SDK's decorator marks it
