"""Drives an instance in tests: runs it, and keeps what it printed and yielded."""

import asyncio
from pathlib import Path

from helpers import alive

from stoker.core.messages import LogType
from stoker_worker.instance import RunSpec

APPS = Path(__file__).parent / "apps"
LIMIT_S = 30.0


class Driver:
    """An instance with what it printed and yielded."""

    def __init__(self, instance, lines, spec):
        self.instance, self.lines, self.spec = instance, lines, spec
        self.partials = []

    async def run(self, given, function="run", timeout_s=LIMIT_S):
        order = RunSpec(
            task_id="task",
            function=function,
            input=given,
            metadata={"app_variant": "default", "task_id": "task"},
        )
        return await self.instance.run(order, self.partials.append, timeout_s)

    async def do(self, what, **given):
        return (await self.run({"do": what, **given})).output

    def took(self, kind, text):
        self.lines += [(kind, line) for line in text.split("\n")]

    def printed(self, kind=LogType.RUN):
        return [text for phase, text in self.lines if phase is kind]

    async def until_printed(self, text):
        async with asyncio.timeout(LIMIT_S):
            while text not in self.printed():  # noqa: ASYNC110 - lines come from a process
                await asyncio.sleep(0.005)


async def is_gone(pid):
    async with asyncio.timeout(LIMIT_S):
        while alive(pid):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return True
