"""What the scheduler asks: leadership, what is new, assignments, taking back what was lost."""

import secrets
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec
from msgspec import Struct

from stoker.core.errors import Conflict, NotFound, ProtocolRefusal, ScriptFailed, StaleAttempt
from stoker.core.events import Event
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
from stoker.log import get_logger
from stoker.protocol.connection import Connection
from stoker.protocol.engines import read_engines
from stoker.protocol.keys import Keys
from stoker.protocol.streams import stream

_log = get_logger("scheduling")

SCRIPT_FAILED: Final = "SCRIPT_FAILED"
"""Why a task could not be assigned of which an engine has made nonsense."""

_CLIENT_MARGIN_S = 3.0
"""How much longer than the server's own bound this side waits for a blocking read."""
_TOKEN_BYTES = 24
_PENDING_PART = 5_000
"""Specs asked for at a time: a long queue must not fill the connection's own."""

_encode = msgspec.json.Encoder().encode
_spec = msgspec.json.Decoder(TaskSpec)


class WakeKind(StrEnum):
    """What happened that the scheduler must look at."""

    SUBMITTED = "submitted"
    REQUEUED = "requeued"
    CANCELLED = "cancelled"
    MOVED = "moved"
    FINISHED = "finished"
    ORPHANED = "orphaned"
    ENGINE = "engine"
    LOST = "lost"
    SESSION = "session"
    """A session is over."""


class Measures(Struct, frozen=True, kw_only=True):
    """What an attempt measured; all zero when nobody did."""

    engine: str = ""
    worker: str = ""
    setup_key: str = ""
    load_s: float = 0
    run_s: float = 0
    vram_bytes: int = 0
    instance_ended: bool = False


_measures = msgspec.json.Decoder(Measures)


class WakeEvent(Struct, frozen=True, kw_only=True):
    """One entry of the wake stream. Which fields are set follows from `kind`."""

    kind: WakeKind
    task_id: TaskId = TaskId("")
    engine_id: EngineId = EngineId("")
    attempt: int = 0
    reason: str = ""
    session_id: str = ""
    spec: TaskSpec | None = None
    state: TaskState | None = None
    measures: Measures | None = None


class AssignOrder(Struct, frozen=True, kw_only=True):
    """Give `task_id` to a worker; `evict` names residents that go first."""

    task_id: TaskId
    engine_id: EngineId
    worker_id: WorkerId
    evict: tuple[SetupKey, ...] = ()


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
        self._seen = "0"
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

    async def leader(self) -> str:
        """Who leads, as ``epoch:holder``, or ''."""
        return (await self._connection.command("GET", self._keys.leader) or b"").decode()

    async def pending(self) -> list[TaskSpec]:
        """All queued tasks, in order. Cost: O(n); for the start of a leadership alone."""
        ids = await self._connection.command("ZRANGE", self._keys.pending, 0, -1)
        specs: list[TaskSpec] = []
        for start in range(0, len(ids), _PENDING_PART):
            part = (TaskId(i.decode()) for i in ids[start : start + _PENDING_PART])
            calls = [self._connection.start("HMGET", self._keys.control(i), "spec", "created") for i in part]
            for call in calls:
                spec, created = await call
                if spec is not None:
                    specs.append(_created_at(_spec.decode(spec), created or b"0"))
        return specs

    async def pending_count(self) -> int:
        """How many tasks wait."""
        return int(await self._connection.command("ZCARD", self._keys.pending))

    async def wake(self, last_id: str, block_ms: int, count: int = 1000) -> tuple[str, list[WakeEvent]]:
        """What came after `last_id` ("0" = all that no leader has seen); waits up to `block_ms` for it."""
        reply = await self._connection.block(
            "XREAD",
            "COUNT",
            count,
            "BLOCK",
            block_ms,
            "STREAMS",
            self._keys.wake,
            last_id,
            timeout_s=block_ms / 1000 + _CLIENT_MARGIN_S,
        )
        entries = stream(reply)
        events = [event for _, fields in entries if (event := _wake_event(fields)) is not None]
        events = await self._with_specs(events)
        return (entries[-1][0].decode() if entries else last_id), events

    async def _with_specs(self, events: list[WakeEvent]) -> list[WakeEvent]:
        """Add the specs of tasks that were put back: an engine that hands one back cannot read it."""
        calls = {
            index: self._connection.start("HMGET", self._keys.control(event.task_id), "spec", "created")
            for index, event in enumerate(events)
            if event.kind is WakeKind.REQUEUED
        }
        for index, call in calls.items():
            spec, created = await call
            if spec is not None:  # else it was deleted meanwhile
                found = _created_at(_spec.decode(spec), created or b"0")
                events[index] = msgspec.structs.replace(events[index], spec=found)
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
                secrets.token_urlsafe(_TOKEN_BYTES),
                _encode(order.evict),
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
        return [EngineId(i.decode()) for i in raw]

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

    async def requeue(
        self,
        epoch: int,
        task_id: TaskId,
        engine_id: EngineId,
        attempt: int,
        reason: str,
        *,
        spend: bool = True,
    ) -> TaskState | None:
        """Take a task back from an engine that no longer runs it.

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
                    keys.queued,
                ],
                [task_id, epoch, attempt, reason, int(spend)],
            )
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
        """Every engine that ever registered and was not removed."""
        return await read_engines(self._connection, self._keys)

    async def set_reasons(self, reasons: Mapping[str, str], gone: Sequence[str] = ()) -> None:
        """Why groups of tasks wait (`stoker.core.groups.spec_group` -> a sentence); `gone` wait no more."""
        if reasons:
            flat = [part for pair in reasons.items() for part in pair]
            await self._connection.command("HSET", self._keys.reasons, *flat)
        if gone:
            await self._connection.command("HDEL", self._keys.reasons, *gone)


def _created_at(spec: TaskSpec, created: bytes) -> TaskSpec:
    """The server's time of submission counts, not the caller's."""
    return msgspec.structs.replace(spec, created_ms=int(created))


def _wake_event(fields: dict[bytes, bytes]) -> WakeEvent | None:
    """One entry; None for one that nobody of ours wrote: engines may add to the stream."""
    try:
        return _read_wake_event(fields)
    except (ValueError, KeyError, msgspec.DecodeError) as error:
        _log.warning(Event.WAKE_UNREADABLE, reason=str(error))
        return None


def _read_wake_event(fields: dict[bytes, bytes]) -> WakeEvent:
    def text(name: bytes) -> str:
        return fields.get(name, b"").decode()

    spec = fields.get(b"spec")
    measures = fields.get(b"o")
    decoded = _spec.decode(spec) if spec else None
    if decoded is not None and b"at" in fields:
        decoded = _created_at(decoded, fields[b"at"])
    return WakeEvent(
        kind=WakeKind(text(b"k")),
        task_id=TaskId(text(b"task")),
        engine_id=EngineId(text(b"engine")),
        attempt=int(text(b"attempt") or 0),
        reason=text(b"reason"),
        session_id=text(b"session"),
        spec=decoded,
        state=TaskState(int(fields[b"s"])) if b"s" in fields else None,
        measures=_measures.decode(measures) if measures else None,
    )
