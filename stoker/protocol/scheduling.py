"""What the scheduler asks: leadership, what is new, assignments, taking back what was lost."""

import asyncio
import re
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Final

import msgspec
from msgspec import Struct

from stoker.core.errors import Conflict, NotFound, ProtocolRefusal, ScriptFailed, StaleAttempt, WorkerLost
from stoker.core.explanations import Explanation
from stoker.core.messages import (
    DrainOrder,
    EngineId,
    EngineView,
    EvictOrder,
    SetupKey,
    TaskId,
    TaskSpec,
    WorkerId,
)
from stoker.core.protocol_version import OURS, Speaks
from stoker.core.states import TaskState
from stoker.protocol.connection import Connection
from stoker.protocol.engines import read_engines
from stoker.protocol.keys import Keys
from stoker.protocol.streams import id_of, mapping, pairs
from stoker.protocol.tokens import new_token
from stoker.protocol.wake import FACTS, WakeEvent, WakeKind, read_spec, returned_at, wake_event

SCRIPT_FAILED: Final = "SCRIPT_FAILED"
"""Why a task could not be assigned of which an engine has made nonsense."""

RELEASE_PAUSE_MS: Final = 1000
"""Until the next look, when nothing of what is due can be released."""
_PENDING_PART = 5_000
"""Specs asked for at a time: a long queue must not fill the connection's own."""

_encode = msgspec.json.Encoder().encode


class AssignOrder(Struct, frozen=True, kw_only=True):
    """Give `task_id` to a worker; `evict` names residents that go first. `why` is kept with the task."""

    task_id: TaskId
    engine_id: EngineId
    worker_id: WorkerId
    evict: tuple[SetupKey, ...] = ()
    why: Explanation = Explanation(text="", candidates=())


class AssignResult(Struct, frozen=True, kw_only=True):
    """What became of an order: an attempt number, or why not."""

    task_id: TaskId
    attempt: int = 0
    refusal: str = ""


class Scheduling:
    """The scheduler's view of one pool. Writes carry the epoch and are refused from a former leader."""

    def __init__(self, connection: Connection, keys: Keys, speaks: Speaks = OURS) -> None:
        self._connection = connection
        self._keys = keys
        self._speaks = speaks

    async def lead(self, holder: str, ttl_s: float, epoch: int | None = None) -> int | None:
        """Take or keep the leadership; the epoch held, or None while another leads. Script: lua/lead.lua."""
        held = "" if epoch is None else epoch
        try:
            result = await self._connection.script(
                "lead",
                [self._keys.leader, self._keys.epoch, self._keys.protocol],
                [
                    holder,
                    int(ttl_s * 1000),
                    held,
                    self._speaks.version,
                    self._speaks.oldest,
                    self._speaks.release,
                    new_token(),
                ],
            )
        except ProtocolRefusal:
            return None
        return int(result[0])

    async def resign(self, holder: str, epoch: int) -> None:
        """Give the leadership up; nothing happens when it is gone already."""
        try:
            await self._connection.script("resign", [self._keys.leader], [holder, epoch])
        except ProtocolRefusal:
            return

    async def history(self) -> str:
        """Which sequence of writes the server holds: its replication id, or '' when it does not tell.

        It changes when a replica takes over, which may lack the last writes, and when a server starts again.
        """
        reply = await self._connection.command("INFO", "replication")
        found = re.search(rb"^master_replid:(\w+)", reply, re.MULTILINE)
        return found.group(1).decode() if found else ""

    async def recall(self, epoch: int, history: str, engine_ids: Sequence[EngineId]) -> bool:
        """Have engines register again with what they hold, if nobody has since the server's history is this one.

        Returns:
            Whether it was necessary.

        Raises:
            ProtocolRefusal: NOT_LEADER.

        Cost: one round trip; three when it was. Script: lua/recall.lua.
        """
        keys = self._keys
        known = (await self._connection.command("GET", keys.history) or b"").decode()
        if known == history:
            return False
        calls = [
            self._connection.start_script(
                "recall", [keys.leader, keys.engine(each), keys.inbox(each)], [epoch]
            )
            for each in (engine_ids if known else ())  # before the first leader there was no other server
        ]
        await asyncio.gather(*calls)
        await self._connection.command("SET", keys.history, history)
        return bool(known)

    async def leader(self) -> str:
        """Who leads, as ``epoch:holder``, or ''."""
        return (await self._connection.command("GET", self._keys.leader) or b"").decode()

    async def pending(self) -> list[TaskSpec]:
        """All queued tasks, in order. Cost: O(n); for the start of a leadership alone."""
        return await self._specs(self._keys.pending)

    async def delayed(self) -> list[TaskSpec]:
        """All queued tasks that wait for a time. Cost: O(n); never for a decision."""
        return await self._specs(self._keys.delayed)

    async def _specs(self, index: str) -> list[TaskSpec]:
        members = await self._connection.command("ZRANGE", index, 0, -1)
        ids = [TaskId(i) for member in members if (i := id_of(member))]
        parts = [ids[start : start + _PENDING_PART] for start in range(0, len(ids), _PENDING_PART)]
        return [spec for part in parts for spec in await self._specs_of(part) if spec is not None]

    async def _specs_of(self, task_ids: Sequence[TaskId]) -> list[TaskSpec | None]:
        """The specs of tasks that wait, None where one is gone."""
        time = self._connection.start("TIME")
        calls = [
            (
                self._connection.start("HMGET", self._keys.control(i), *FACTS),
                self._connection.start("HGET", self._keys.task(i), "returned"),
            )
            for i in task_ids
        ]
        now_ms = int((await time)[0]) * 1000
        return [read_spec(await facts, returned_at(await told, now_ms)) for facts, told in calls]

    async def pending_count(self) -> int:
        """How many tasks wait."""
        return int(await self._connection.command("ZCARD", self._keys.pending))

    async def delayed_count(self) -> int:
        """How many tasks wait for a time."""
        return int(await self._connection.command("ZCARD", self._keys.delayed))

    async def release(self, epoch: int, now_ms: int, limit: int = 500) -> tuple[list[TaskSpec], int]:
        """Queue the tasks whose time has come, the earliest first.

        Args:
            now_ms: the server's time; the script looks at its own clock again.
            limit: how many at most.

        Returns:
            Them, and when to look again (ms; 0 = none waits).

        Raises:
            ProtocolRefusal: NOT_LEADER.

        Cost: one round trip, and two more when there are some. Script: lua/release.lua.
        """
        keys = self._keys
        first = pairs(await self._connection.command("ZRANGE", keys.delayed, 0, 0, "WITHSCORES"))
        if not first or first[0][1] > now_ms:
            return [], int(first[0][1]) if first and isfinite(first[0][1]) else 0
        found = await self._connection.command(
            "ZRANGEBYSCORE", keys.delayed, "-inf", now_ms, "LIMIT", 0, limit
        )
        due = [TaskId(i) for member in found if (i := id_of(member))]
        if len(due) < len(found):  # else what is no id would hold the head of the index for ever
            await self._connection.command("ZREM", keys.delayed, *(m for m in found if not id_of(m)))
        calls = [
            self._connection.start_script(
                "release",
                [keys.task(i), keys.control(i), keys.pending, keys.delayed, keys.leader],
                [i, epoch],
            )
            for i in due
        ]
        specs: list[TaskSpec] = []
        for found_one in await asyncio.gather(*calls, return_exceptions=True):
            refused = isinstance(found_one, ProtocolRefusal) and found_one.refusal != "NOT_LEADER"
            if refused or isinstance(found_one, ScriptFailed):
                continue
            if isinstance(found_one, BaseException):
                raise found_one
            if (spec := read_spec(found_one)) is not None:
                specs.append(spec)
        return specs, now_ms if specs else now_ms + RELEASE_PAUSE_MS

    async def wake(self, last_id: str, block_ms: int, count: int = 1000) -> tuple[str, list[WakeEvent]]:
        """What came after `last_id` ("0" = all that no leader has seen); waits up to `block_ms` for it."""
        key = self._keys.wake
        entries = await self._connection.read_stream(key, last_id, block_ms=block_ms, count=count)
        events = [event for _, fields in entries if (event := wake_event(fields)) is not None]
        events = await self._with_specs(events)
        return (entries[-1][0].decode() if entries else last_id), events

    async def _with_specs(self, events: list[WakeEvent]) -> list[WakeEvent]:
        """Add the specs of tasks that were put back: an engine that hands one back cannot read it."""
        indexes = [index for index, event in enumerate(events) if event.kind is WakeKind.REQUEUED]
        specs = await self._specs_of([events[index].task_id for index in indexes]) if indexes else []
        for index, spec in zip(indexes, specs, strict=True):
            if spec is not None:  # else it was deleted meanwhile
                events[index] = msgspec.structs.replace(events[index], spec=spec)
        return events

    async def forget_wake(self, last_id: str) -> None:
        """Drop the wake entries up to `last_id`: they were acted upon."""
        sequence = last_id.split("-")
        following = f"{sequence[0]}-{int(sequence[1]) + 1}" if len(sequence) == 2 else last_id
        await self._connection.command("XTRIM", self._keys.wake, "MINID", following)

    async def assign_many(self, epoch: int, orders: Sequence[AssignOrder]) -> list[AssignResult]:
        """Assign tasks, in one batch; one result an order, in their order. Script: lua/assign.lua."""
        keys = self._keys
        calls = []
        for order in orders:
            arguments: list[str | bytes | int] = [
                order.task_id,
                epoch,
                order.engine_id,
                order.worker_id,
                new_token(),
                _encode(order.evict),
                _encode(order.why),
            ]
            names = [
                keys.task(order.task_id),
                keys.task_events(order.task_id),
                keys.pending,
                keys.leader,
                keys.engine(order.engine_id),
                keys.inbox(order.engine_id),
                keys.engine_tasks(order.engine_id),
                keys.leases,
                keys.control(order.task_id),
                keys.queued,
            ]
            calls.append(self._connection.start_script("assign", names, arguments))
        results = []
        for order, call in zip(orders, calls, strict=True):
            try:
                attempt = int((await call)[0])
                results.append(AssignResult(task_id=order.task_id, attempt=attempt))
            except ProtocolRefusal as refusal:
                results.append(AssignResult(task_id=order.task_id, refusal=refusal.refusal))
            except ScriptFailed:  # an engine has spoiled this task; the others are none the worse
                results.append(AssignResult(task_id=order.task_id, refusal=SCRIPT_FAILED))
        return results

    async def send(self, engine_id: EngineId, order: EvictOrder) -> None:
        """Put an order into an engine's inbox."""
        await self._connection.command(
            "XADD", self._keys.inbox(engine_id), "*", "k", "evict", "body", _encode(order)
        )

    async def drain(self, engine_id: EngineId, order: DrainOrder) -> None:
        """Give an engine nothing more, and tell it to finish and leave. Nothing happens when it has left for it.

        Raises:
            NotFound: none has this id.
            Conflict: it is away, so nobody can be told.

        Cost: one round trip. Script: lua/drain.lua.
        """
        keys = self._keys
        names = [keys.leases, keys.engine(engine_id), keys.inbox(engine_id), keys.wake]
        try:
            await self._connection.script("drain", names, [engine_id, _encode(order)])
        except ProtocolRefusal as refusal:
            if refusal.refusal == "ENGINE_UNKNOWN":
                raise NotFound("Engine not found") from refusal
            raise Conflict(
                f"'{engine_id}' is not connected, so it runs nothing and cannot be told to drain. "
                "Its workers take tasks again when its daemon is started (stoker workers list)."
            ) from refusal

    async def expired(self) -> list[EngineId]:
        """Engines whose lease is over by the server's clock."""
        seconds, micros = await self._connection.command("TIME")
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        raw = await self._connection.command("ZRANGEBYSCORE", self._keys.leases, "-inf", f"({now_ms}")
        return [EngineId(i) for member in raw if (i := id_of(member))]

    async def reap(self, epoch: int, engine_id: EngineId) -> bool:
        """Declare an engine lost; its tasks follow as ORPHANED wake events. False when its lease is valid.

        Raises:
            ProtocolRefusal: NOT_LEADER.
        """
        keys = self._keys
        try:
            await self._connection.script(
                "reap",
                [
                    keys.leader,
                    keys.leases,
                    keys.engine(engine_id),
                    keys.engine_tasks(engine_id),
                    keys.wake,
                    keys.inbox(engine_id),
                ],
                [epoch, engine_id],
            )
        except ProtocolRefusal as refusal:
            if refusal.refusal == "LEASE_VALID":
                return False
            raise
        return True

    async def old_engines(self, old_s: float, skip: int, limit: int) -> list[EngineId]:
        """Some of the engines that registered last longer than `old_s` ago, whether they are there or not.

        Args:
            skip: how many to leave out, of those that registered first.
        """
        seconds, _ = await self._connection.command("TIME")
        before_ms = int((int(seconds) - old_s) * 1000)
        raw = await self._connection.command(
            "ZRANGEBYSCORE", self._keys.engines, "-inf", before_ms, "LIMIT", skip, limit
        )
        return [EngineId(i) for member in raw if (i := id_of(member))]

    async def forget(self, epoch: int, engine_id: EngineId, unseen_s: float) -> bool:
        """Know an engine no more that is away, has no task and was not seen for so long; its enrolment stays.

        Returns:
            False when it is kept.

        Raises:
            ProtocolRefusal: NOT_LEADER.

        Cost: one round trip. Script: lua/forget.lua.
        """
        keys = self._keys
        names = [
            keys.leader,
            keys.leases,
            keys.engine(engine_id),
            keys.engine_tasks(engine_id),
            keys.inbox(engine_id),
            keys.engines,
            keys.wake,
        ]
        try:
            await self._connection.script("forget", names, [epoch, engine_id, int(unseen_s * 1000)])
        except ProtocolRefusal as refusal:
            if refusal.refusal == "ENGINE_KEPT":
                return False
            raise
        return True

    async def requeue(
        self,
        epoch: int,
        task_id: TaskId,
        engine_id: EngineId,
        attempt: int,
        reason: str,
        *,
        code: str = WorkerLost.code,
    ) -> TaskState | None:
        """Take a task back from an engine that no longer runs it. What the engine had not taken spends no attempt.

        Args:
            code: of the error, should this have been the last attempt; '' = no attempt is spent.

        Returns:
            The new state: QUEUED, FAILED when the attempts are used up, CANCELLED when that was asked;
            None when the attempt did not own the task any more.

        Raises:
            ProtocolRefusal: NOT_LEADER.
        """
        keys = self._keys
        try:
            result = await self._connection.script(
                "requeue",
                [
                    keys.task(task_id),
                    keys.task_events(task_id),
                    keys.control(task_id),
                    keys.pending,
                    keys.wake,
                    keys.outbox,
                    keys.engine_tasks(engine_id),
                    keys.leader,
                    keys.delayed,
                    keys.queued,
                ],
                [task_id, epoch, attempt, reason, code],
            )
        except (StaleAttempt, ScriptFailed):
            return None
        except ProtocolRefusal as refusal:
            if refusal.refusal == "NOT_LEADER":
                raise
            return None
        return TaskState(int(result[0]))

    async def expire(
        self, epoch: int, task_id: TaskId, engine_id: EngineId, attempt: int, code: str, error: str
    ) -> TaskState | None:
        """End an attempt whose time is over; None when it did not own the task any more.

        Raises:
            ProtocolRefusal: NOT_LEADER.
        """
        keys = self._keys
        names = [
            keys.task(task_id),
            keys.task_events(task_id),
            keys.control(task_id),
            keys.wake,
            keys.outbox,
            keys.engine_tasks(engine_id),
            keys.leader,
        ]
        try:
            result = await self._connection.script("expire", names, [task_id, epoch, attempt, code, error])
        except (StaleAttempt, ScriptFailed):
            return None
        except ProtocolRefusal as refusal:
            if refusal.refusal == "NOT_LEADER":
                raise
            return None
        return TaskState(int(result[0]))

    async def fail_queued(self, epoch: int, task_id: TaskId, code: str, error: str) -> bool:
        """End a task that waits and will not run; False when it does not wait any more.

        Raises:
            ProtocolRefusal: NOT_LEADER.
        """
        keys = self._keys
        try:
            await self._connection.script(
                "fail_queued",
                [
                    keys.task(task_id),
                    keys.task_events(task_id),
                    keys.control(task_id),
                    keys.pending,
                    keys.outbox,
                    keys.leader,
                    keys.queued,
                    keys.delayed,
                ],
                [task_id, epoch, code, error],
            )
        except ScriptFailed:
            return False
        except ProtocolRefusal as refusal:
            if refusal.refusal == "NOT_LEADER":
                raise
            return False
        return True

    async def engines(self) -> list[EngineView]:
        """Every engine that ever registered and was not forgotten."""
        return await read_engines(self._connection, self._keys)

    async def reasons(self) -> dict[str, str]:
        """Why groups wait, as it was written last. Cost: O(n); for the start of a leadership alone."""
        found = mapping(await self._connection.command("HGETALL", self._keys.reasons))
        return {group_id.decode(): text.decode() for group_id, text in found.items()}

    async def set_reasons(self, reasons: Mapping[str, str], gone: Sequence[str] = ()) -> None:
        """Why groups of tasks wait (`stoker.core.groups.spec_group` -> a sentence); `gone` wait no more."""
        if reasons:
            flat = [part for pair in reasons.items() for part in pair]
            await self._connection.command("HSET", self._keys.reasons, *flat)
        if gone:
            await self._connection.command("HDEL", self._keys.reasons, *gone)
