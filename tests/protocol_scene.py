"""One engine, one leader and one queued task, for tests of the protocol."""

import msgspec

from stoker.core.messages import (
    Assignment,
    EngineInfo,
    EngineReport,
    Needs,
    Outcome,
    Owner,
    TaskRequest,
    TaskSpec,
    WorkerInfo,
)
from stoker.core.states import TaskState as S
from stoker.core.telemetry import Telemetry
from stoker.protocol import AssignOrder, Repeat, Store

TELEMETRY = Telemetry(cpu_percent=1, ram_used_bytes=1, ram_total_bytes=2)
OWNER = Owner(user_id="u1", key_id="k1")
DONE = Outcome(state=S.COMPLETED, output=msgspec.Raw(b'{"ok":1}'), load_s=2.0, run_s=0.5)


def request(task_id="t1", **changes):
    base = {
        "id": task_id, "app_id": "a", "app": "infsh/echo", "version_id": "v", "function": "run",
        "input": {"message": "hé"}, "setup": {}, "setup_key": "s", "env_key": "e",
    }  # fmt: skip
    return TaskRequest(**(base | changes))


def spec(task_id="t1", **changes):
    base = {
        "id": task_id,
        "setup_key": "s",
        "version_id": "v",
        "env_key": "e",
        "app": "infsh/echo",
        "needs": Needs(),
    }
    return TaskSpec(**(base | changes))


def once(body):
    """What makes two requests one."""
    return Repeat(key="once", body=body, kept_s=60)


def info(engine="box"):
    return EngineInfo(
        id=engine,
        name=engine,
        version="0",
        hostname="h",
        workers=(WorkerInfo(id=f"{engine}-cpu-0", index=0),),
    )


class Scene:
    """One engine, one leader, one queued task."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.session = ""
        self.epoch = 0

    async def set_up(self, lease_s=30.0):
        self.session, _ = await self.store.engines.register(info(), EngineReport(), {}, lease_s)
        self.epoch = await self.store.scheduling.lead("me", 30)
        await self.submit()

    async def submit(self, task_id="t1", **changes):
        return await self.store.tasks.submit(request(task_id), spec(task_id, **changes), OWNER)

    async def assign(self, task_id="t1"):
        order = AssignOrder(task_id=task_id, engine_id="box", worker_id="box-cpu-0")
        return (await self.store.scheduling.assign_many(self.epoch, [order]))[0]

    async def take(self) -> tuple[str, Assignment]:
        _, found = await self.store.engines.inbox("box", "0", 1)
        return next((entry, m) for entry, m in found if isinstance(m, Assignment))

    async def running(self, task_id="t1") -> Assignment:
        await self.assign(task_id)
        entry, order = await self.take()
        await self.store.engines.accept(order, "box", entry, S.RUNNING)
        return order

    async def come(self, task_id, *, release=True):
        """The time comes that a delayed task waits for."""
        key = self.store._keys.delayed
        await self.store._connection.command("ZADD", key, "XX", 1, task_id)
        if release:
            await self.store.scheduling.release(self.epoch, 2**41)

    async def wake(self):
        return (await self.store.scheduling.wake("0", 1))[1]
