"""What the worker's unit tests record: the store as one attempt sees it, and orders to give."""

import asyncio
import contextlib
import gzip

import msgspec
from helpers import eventually

from stoker.core.errors import ProtocolRefusal, StaleAttempt, StoreUnavailable
from stoker.core.messages import Assignment, Outcome, TaskRequest
from stoker.core.states import TaskState
from stoker_worker.attempt_log import LogSpool
from stoker_worker.private_tmp import PrivateTmp

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
        self.illegal = set()  # states that the task is beyond
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
        if state in self.illegal:
            raise ProtocolRefusal("ILLEGAL_MOVE")
        await self._write("transition", state)

    async def append(self, task_id, attempt, token, *, lines=(), partial=b"", dropped=0):
        await self._write("append", tuple(lines), partial, dropped)

    async def deltas(self, task_id, attempt, token, *, first, last, deltas, partial=b""):
        await self._write("deltas", first, last, tuple(deltas), partial)

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


def log_spool(folder, attempt_bytes=2**20, total_bytes=2**24):
    return LogSpool(folder / "logs", attempt_bytes=attempt_bytes, total_bytes=total_bytes)


class LogTaker:
    """The gateway as the uploader sees it. `fails`: what to raise instead of taking a chunk."""

    def __init__(self):
        self.chunks = []
        self.refused = 0
        self.fails = None

    async def put_log(self, task_id, attempt, token, first, body):
        await asyncio.sleep(0)
        if self.fails is not None:
            self.refused += 1
            raise self.fails
        self.chunks.append((task_id, attempt, token, first, gzip.decompress(body)))


TURNS = 2000
"""Of the loop: more than anything takes that waits for other tasks alone."""


async def until(condition):
    """Let other tasks run until `condition()` holds; what waits for a thread too is given real time."""
    for _ in range(TURNS):
        if condition():
            return
        await asyncio.sleep(0)
    await eventually(condition, f"{condition}")


class Process:
    """An app's process; what it does is set in the recorder that started it."""

    def __init__(self, recorder):
        self.recorder = recorder
        self.pid = self.pgid = 2**22 + 1  # above pid_max: no real process
        self.exited = asyncio.Event()
        self.lost = None
        self.parks = recorder.parks

    async def setup(self, timeout_s):
        await self.recorder.step("setup")

    async def run(self, task, on_partial, timeout_s, on_delta=None):
        self.recorder.on_partial, self.recorder.on_delta = on_partial, on_delta
        await self.recorder.step("run")
        return self.recorder.result

    async def park(self):
        await self.recorder.step("park")

    async def unpark(self):
        await self.recorder.step("unpark")

    def remove_results(self):
        self.recorder.removals.append(self.recorder.in_turn)

    def tidy(self):
        self.recorder.tidied += 1

    async def cancel(self, grace_s):
        self.recorder.steps.append(f"cancel {grace_s:g}")
        self.recorder.go.set()
        return self.recorder.obeys

    async def stop(self, reason):
        self.recorder.steps.append(f"stop: {reason}")
        self.exited.set()


class MachineRecorder:
    """Records what executions do to the machine.

    `ready`: code and environment are there. `fails`: step -> exception. `holds`: step that lasts until `go`.
    """

    def __init__(self, result):
        self.steps = []
        self.ready = False
        self.parks = False
        self.fails = {}
        self.holds = ""
        self.go = asyncio.Event()
        self.result = result
        self.obeys = True
        self.on_partial = self.on_delta = None
        self.tidied = 0
        self.in_turn = False
        self.removals = []  # whether each removal of results was within a turn
        self.tmp = PrivateTmp()
        self.shares_tmp = False
        self.processes = []
        self.given = None
        self.lines = {}  # step -> line that it prints

    async def step(self, name, on_line=None):
        self.steps.append(name)
        if on_line is not None and name in self.lines:
            on_line(*self.lines[name])
        if self.holds == name:
            await self.go.wait()
        if name in self.fails:
            raise self.fails[name]

    def prepared(self, request):
        return Version() if self.ready else None

    async def prepare(self, order, on_line):
        await self.step("prepare", on_line)
        return Version()

    async def start(self, order, prepared, worker, on_line):
        await self.step("start", on_line)
        self.processes.append(Process(self))
        return self.processes[-1]

    @contextlib.asynccontextmanager
    async def turn(self, instance, on_wait):
        async with self.tmp.turn(shares=self.shares_tmp, on_wait=on_wait):
            self.in_turn = True
            try:
                yield
            finally:
                self.in_turn = False

    async def fetch(self, order, on_line):
        await self.step("fetch", on_line)
        return order.task.input | {"fetched": True}

    async def discard(self, order):
        self.steps.append("discard")

    def run_spec(self, order, given):
        self.given = given
        return order.task.function

    async def upload(self, order, result, on_line):
        await self.step("upload")
        return result.output


class Version:
    """A prepared app version without needs."""

    vram_bytes = 0
    released = 0

    def release(self):
        Version.released += 1


class NoDevices:
    """The sensors of a machine without GPUs."""

    async def sample(self):
        return None

    def memory_of_tree(self, pgid):
        return 0

    def listed_bytes(self, uuids):
        return 0

    def used_bytes(self, uuids):
        return 0

    def lost(self, uuids):
        return ()

    async def settle(self, settled):
        return True
