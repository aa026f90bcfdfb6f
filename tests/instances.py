"""Drives an instance in tests: runs it, and keeps what it printed and yielded."""

import asyncio
import subprocess
from pathlib import Path

import pytest
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


OWN_MOUNT = "--mount mount --bind /var/tmp /tmp"
OWN_TMP = subprocess.run(
    ["sh", "-c", f"unshare {OWN_MOUNT} || unshare --user --map-root-user {OWN_MOUNT}"],
    capture_output=True,
    text=True,
    check=False,
)
"""Whether this machine lets a process have a /tmp of its own: by another program than the one under test."""
needs_own_tmp = pytest.mark.skipif(
    OWN_TMP.returncode != 0, reason=f"this machine has no private /tmp: {OWN_TMP.stderr.strip()}"
)


async def is_gone(pid):
    async with asyncio.timeout(LIMIT_S):
        while alive(pid):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    return True
