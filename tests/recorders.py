"""What the worker's unit tests record: the store as one attempt sees it, and orders to give."""

import asyncio

import msgspec

from stoker.core.errors import StaleAttempt, StoreUnavailable
from stoker.core.messages import Assignment, Outcome, TaskRequest
from stoker.core.states import TaskState

DONE = Outcome(state=TaskState.COMPLETED, output=msgspec.Raw(b'{"ok":1}'))


def order(task_id="t1", attempt=1, worker_id="box-cpu-0", **request):
    base = {
        "id": task_id, "app_id": "a", "app": "infsh/echo", "version_id": "v", "function": "run",
        "input": {}, "setup": {}, "setup_key": "s", "env_key": "e",
    }  # fmt: skip
    return Assignment(
        task=TaskRequest(**(base | request)), attempt=attempt, token=f"secret{attempt}", worker_id=worker_id
    )


class StoreRecorder:
    """Records what an attempt writes. `away`: nothing gets through. `stale`: every write is refused."""

    def __init__(self):
        self.calls = []
        self.failed = []
        self.away = False
        self.stale = False
        self.pause = None  # an asyncio.Event that writes wait for

    def texts(self):
        return [line.text for name, *rest in self.calls if name == "append" for line in rest[0]]

    def names(self):
        return [name for name, *_ in self.calls]

    async def accept(self, order, engine_id, entry, state):
        await self._write("accept", state)

    async def hand_back(self, order, engine_id, entry, reason):
        await self._write("hand_back", reason)

    async def transition(self, task_id, attempt, token, state, detail=""):
        await self._write("transition", state)

    async def append(self, task_id, attempt, token, *, lines=(), partial=b"", dropped=0):
        await self._write("append", tuple(lines), partial, dropped)

    async def finish(self, order, engine_id, outcome):
        await self._write("finish", outcome)

    async def _write(self, *call):
        if self.pause is not None:
            await self.pause.wait()
        await asyncio.sleep(0)
        if self.away:
            self.failed.append(call)
            raise StoreUnavailable
        if self.stale:
            self.failed.append(call)
            raise StaleAttempt
        self.calls.append(call)


async def until(condition, tries=2000):
    """Let other tasks run until `condition()` holds; a bound, not a time."""
    for _ in range(tries):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError(f"never came true: {condition}")
