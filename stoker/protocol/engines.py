"""What a worker daemon asks: register, renew, its inbox, and the writes of its attempts."""

from collections.abc import Mapping, Sequence

import msgspec
from msgspec import Struct

from stoker.core.errors import NotFound, ProtocolRefusal
from stoker.core.events import Event
from stoker.core.ids import check_name, new_id
from stoker.core.messages import (
    Assignment,
    CancelOrder,
    DrainOrder,
    EngineId,
    EngineInfo,
    EngineReport,
    EngineView,
    InboxMessage,
    LogLine,
    Outcome,
    TaskId,
)
from stoker.core.states import TaskState
from stoker.core.telemetry import Telemetry
from stoker.log import get_logger
from stoker.protocol.connection import Connection
from stoker.protocol.inbox import grace_of, readable
from stoker.protocol.keys import Keys
from stoker.protocol.streams import id_of, mapping
from stoker.protocol.task_logs import LOG_TAIL_BYTES
from stoker.protocol.versions import refused

DELTA_BYTES = 4 * 1024 * 1024
"""What the increments of one task's output may take in Redis: as much as the whole output may."""
DELTA_KEPT_S = 3600
"""After the last one; a stream that is opened later gets whole outputs."""

_log = get_logger("engines")
_encode = msgspec.json.Encoder().encode
_info = msgspec.json.Decoder(EngineInfo)
_report = msgspec.json.Decoder(EngineReport)
_telemetry = msgspec.json.Decoder(Telemetry)
_drain = msgspec.json.Decoder(DrainOrder)
_ids = msgspec.json.Decoder(list[str])


class Renewal(Struct, frozen=True, kw_only=True):
    """The answer to a renewal: what to stop, and which cancels may not have arrived."""

    lost: frozenset[TaskId] = frozenset()
    cancelled: tuple[CancelOrder, ...] = ()


class Engines:
    """The engines of one pool."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys

    async def register(
        self,
        info: EngineInfo,
        report: EngineReport,
        held: Mapping[TaskId, int],
        lease_s: float,
        *,
        returning: bool = False,
    ) -> tuple[str, frozenset[TaskId]]:
        """Join, or return.

        Args:
            returning: this process was registered before; a drain that it was told of still holds.
            held: tasks that still run here -> attempt. What the engine owned and does not hold is given back.

        Returns:
            The session that later calls carry, and the held tasks that are its own no longer.

        Raises:
            InvalidRequest: the engine's id cannot stand in a key.
            IncompatibleVersion: the control plane is of a release that this one cannot work with.

        Script: lua/register.lua.
        """
        engine_id = EngineId(check_name("engine id", info.id))
        keys = self._keys
        session = new_id()
        names = [
            keys.leases,
            keys.engine(engine_id),
            keys.engine_tasks(engine_id),
            keys.inbox(engine_id),
            keys.wake,
            keys.engines,
            keys.protocol,
        ]
        lease_ms, back = int(lease_s * 1000), int(returning)
        given: list[str | bytes | int] = [
            engine_id,
            session,
            _encode(info),
            _encode(report),
            lease_ms,
            _encode(dict(held)),
            back,
        ]
        try:
            result = await self._connection.script("register", names, given)
        except ProtocolRefusal as refusal:
            raise refused(info, refusal) from refusal
        return session, frozenset(TaskId(i) for i in _ids.decode(result[0]))

    async def renew(
        self,
        engine_id: EngineId,
        session: str,
        telemetry: Telemetry,
        held: Mapping[TaskId, int],
        lease_s: float,
    ) -> Renewal:
        """Extend the lease; tell which attempts are no longer its own.

        Raises:
            ProtocolRefusal: ENGINE_UNKNOWN: declared lost; ENGINE_RECALLED: asked to compare. Register again.
            StoreUnavailable: no answer; safe to repeat.

        Cost: one round trip, O(len(held)). Script: lua/renew.lua.
        """
        keys = self._keys
        result = await self._connection.script(
            "renew",
            [keys.leases, keys.engine(engine_id), keys.engine_tasks(engine_id)],
            [engine_id, session, int(lease_s * 1000), _encode(telemetry), _encode(dict(held))],
        )
        orders = []
        for task, owned in zip(result[1::2], result[2::2], strict=True):
            attempt, force, grace = owned.decode().split(" ")
            orders.append(
                CancelOrder(
                    task_id=TaskId(task.decode()),
                    attempt=int(attempt),
                    force=force == "1",
                    grace_ms=grace_of(grace),
                )
            )
        return Renewal(lost=frozenset(TaskId(i) for i in _ids.decode(result[0])), cancelled=tuple(orders))

    async def report(self, engine_id: EngineId, session: str, report: EngineReport) -> None:
        """Say what lives on the engine now; wakes the scheduler.

        Raises:
            ProtocolRefusal: ENGINE_UNKNOWN: register again.
        """
        status = "draining" if report.draining else "running"
        await self._connection.script(
            "report",
            [self._keys.engine(engine_id), self._keys.wake],
            [engine_id, session, _encode(report), status],
        )

    async def deregister(self, engine_id: EngineId, session: str) -> None:
        """Leave. Nothing happens when the engine was declared lost before."""
        keys = self._keys
        try:
            await self._connection.script(
                "deregister",
                [
                    keys.leases,
                    keys.engine(engine_id),
                    keys.engine_tasks(engine_id),
                    keys.inbox(engine_id),
                    keys.wake,
                ],
                [engine_id, session],
            )
        except ProtocolRefusal:
            return

    async def inbox(
        self, engine_id: EngineId, last_id: str, block_ms: int, count: int = 100
    ) -> tuple[str, list[tuple[str, InboxMessage]]]:
        """Messages after `last_id` with their entry ids; waits up to `block_ms` for the first.

        Assignments leave the inbox by `accept` or `hand_back`. The rest is removed now, and nobody waits for that: what
        was read must be acted upon also when the server goes away meanwhile. An entry that stays is forgotten with
        the next registration.
        """
        key = self._keys.inbox(engine_id)
        entries = await self._connection.read_stream(key, last_id, block_ms=block_ms, count=count)
        found = [
            (entry.decode(), message)
            for entry, fields in entries
            if (message := readable(engine_id, fields)) is not None
        ]
        stay = {entry for entry, message in found if isinstance(message, Assignment)}
        read = [entry.decode() for entry, _ in entries if entry.decode() not in stay]
        if read:
            forget = self._connection.start("XDEL", key, *read)
            forget.add_done_callback(lambda done: done.cancelled() or done.exception())
        return (entries[-1][0].decode() if entries else last_id), found

    async def accept(self, order: Assignment, engine_id: EngineId, entry: str, state: TaskState) -> None:
        """Confirm an assignment and enter the first state that is not skipped. Idempotent.

        Raises:
            StaleAttempt: the task was taken back; do not start it.
            ProtocolRefusal: TASK_UNKNOWN, ILLEGAL_MOVE.
        """
        keys = self._keys
        await self._connection.script(
            "accept",
            [keys.task(order.task.id), keys.task_events(order.task.id), keys.inbox(engine_id)],
            [order.attempt, order.token, int(state), entry],
        )

    async def hand_back(self, order: Assignment, engine_id: EngineId, entry: str, reason: str) -> None:
        """Return a task that was not started, or that must stop: queued again, no attempt spent.

        One with a single attempt whose function may have begun fails instead.

        Raises:
            StaleAttempt: it was taken back already.
        """
        keys = self._keys
        task_id = order.task.id
        await self._connection.script(
            "hand_back",
            [
                keys.task(task_id),
                keys.task_events(task_id),
                keys.control(task_id),
                keys.pending,
                keys.wake,
                keys.outbox,
                keys.engine_tasks(engine_id),
                keys.inbox(engine_id),
                keys.queued,
            ],
            [task_id, order.attempt, order.token, reason, entry],
        )

    async def transition(
        self, task_id: TaskId, attempt: int, token: str, state: TaskState, detail: str = ""
    ) -> None:
        """Enter the next state. Idempotent by (attempt, state).

        Raises:
            StaleAttempt: stop this attempt.
            ProtocolRefusal: TASK_UNKNOWN, ILLEGAL_MOVE.
        """
        keys = self._keys
        await self._connection.script(
            "transition",
            [keys.task(task_id), keys.task_events(task_id), keys.wake],
            [task_id, attempt, token, int(state), detail],
        )

    async def append(
        self,
        task_id: TaskId,
        attempt: int,
        token: str,
        *,
        lines: Sequence[LogLine] = (),
        partial: bytes = b"",
        dropped: int = 0,
    ) -> None:
        """Add log lines and replace the partial output. Lines that are there already are skipped.

        Args:
            lines: in the order of their numbers.
            partial: the whole output so far, as JSON.
            dropped: lines lost since the last call.

        Raises:
            StaleAttempt: stop this attempt.
        """
        keys = self._keys
        await self._connection.script(
            "append",
            [keys.task(task_id), keys.task_events(task_id)],
            [
                attempt,
                token,
                _encode(list(lines)) if lines else b"",
                lines[-1].number if lines else 0,
                partial,
                dropped,
                LOG_TAIL_BYTES,
            ],
        )

    async def deltas(
        self,
        task_id: TaskId,
        attempt: int,
        token: str,
        *,
        first: int,
        last: int,
        deltas: Sequence[bytes],
        partial: bytes = b"",
    ) -> None:
        """Add increments of the output, and replace the partial output. A repeat is skipped.

        Args:
            first: the number of the first one; they count from 1 in each attempt.
            last: of the last one, or of a later one when those after it were lost.
            deltas: JSON values.
            partial: what they and those before add up to, as JSON.

        Raises:
            StaleAttempt: stop this attempt.

        Cost: one round trip. Script: lua/deltas.lua.
        """
        keys = self._keys
        await self._connection.script(
            "deltas",
            [keys.task(task_id), keys.task_deltas(task_id)],
            [
                attempt,
                token,
                first,
                last,
                b"[" + b",".join(deltas) + b"]",
                partial,
                DELTA_BYTES,
                DELTA_KEPT_S * 1000,
            ],
        )

    async def finish(self, order: Assignment, engine_id: EngineId, outcome: Outcome) -> None:
        """End an attempt with its outcome. Idempotent by (task, attempt).

        What another attempt may put right is queued again, if the task has one left. Scripts: lua/finish.lua,
        lua/retry.lua.

        Raises:
            StaleAttempt: another attempt owns the task; drop the outcome.
            ProtocolRefusal: TASK_UNKNOWN, ILLEGAL_MOVE.
        """
        keys = self._keys
        task_id = order.task.id
        measures = {
            "engine": engine_id,
            "worker": order.worker_id,
            "setup_key": order.task.setup_key,
            "load_s": outcome.load_s,
            "run_s": outcome.run_s,
            "vram_bytes": outcome.vram_bytes,
            "vram_short": outcome.vram_short,
            "instance_ended": outcome.instance_ended,
            "at_fault": outcome.error if outcome.at_fault else "",
        }
        if outcome.retryable:
            await self._retry(order, engine_id, outcome, _encode(measures))
            return
        await self._connection.script(
            "finish",
            [
                keys.task(task_id),
                keys.task_events(task_id),
                keys.control(task_id),
                keys.wake,
                keys.outbox,
                keys.engine_tasks(engine_id),
            ],
            [
                task_id,
                order.attempt,
                order.token,
                int(outcome.state),
                bytes(outcome.output),
                bytes(outcome.output_meta),
                _encode([outcome.error, outcome.error_code]),
                _encode(measures),
            ],
        )

    async def _retry(self, order: Assignment, engine_id: EngineId, outcome: Outcome, measures: bytes) -> None:
        keys = self._keys
        task_id = order.task.id
        await self._connection.script(
            "retry",
            [
                keys.task(task_id),
                keys.task_events(task_id),
                keys.control(task_id),
                keys.delayed,
                keys.wake,
                keys.outbox,
                keys.engine_tasks(engine_id),
                keys.queued,
            ],
            [
                task_id,
                order.attempt,
                order.token,
                outcome.error,
                outcome.error_code,
                int(outcome.kills),
                measures,
            ],
        )

    async def get(self, engine_id: EngineId) -> EngineView:
        """One engine.

        Raises:
            NotFound: none has this id, or it wrote what none of ours writes.
        """
        found = await _readable_engine(self._connection, self._keys, engine_id)
        if found is None:
            raise NotFound("Engine not found")
        return found

    async def list(self) -> list[EngineView]:
        """Every engine that registered and was not forgotten."""
        return await read_engines(self._connection, self._keys)


async def read_engines(connection: Connection, keys: Keys) -> list[EngineView]:
    """Every known engine, by id."""
    ids = sorted(map(id_of, await connection.command("ZRANGE", keys.engines, 0, -1)))
    views = [await _readable_engine(connection, keys, EngineId(i)) for i in ids if i]
    return [view for view in views if view is not None]


async def _readable_engine(connection: Connection, keys: Keys, engine_id: EngineId) -> EngineView | None:
    """One engine; None when it is not known, or when it has put nonsense into its hash."""
    try:
        return await _read_engine(connection, keys, engine_id)
    except (ValueError, msgspec.DecodeError) as error:
        _log.warning(Event.ENGINE_UNREADABLE, engine=engine_id, reason=str(error))
        return None


async def _read_engine(connection: Connection, keys: Keys, engine_id: EngineId) -> EngineView | None:
    calls = (
        connection.start("HGETALL", keys.engine(engine_id)),
        connection.start("HGETALL", keys.engine_tasks(engine_id)),
    )
    fields, tasks = mapping(await calls[0]), mapping(await calls[1])
    if b"info" not in fields:
        return None
    telemetry, drain = fields.get(b"telemetry"), fields.get(b"drain")
    info = _info.decode(fields[b"info"])
    if info.id != engine_id:
        raise ValueError(f"it says that it is '{info.id}'")
    return EngineView(
        info=info,
        status=fields.get(b"status", b"lost").decode(),
        registered_ms=int(fields.get(b"registered", b"0")),
        seen_ms=int(fields.get(b"seen", b"0")),
        report=_report.decode(fields.get(b"report", b"{}")),
        telemetry=_telemetry.decode(telemetry) if telemetry else None,
        tasks={task.decode(): int(owned.split(b" ")[0]) for task, owned in tasks.items()},
        drain=_drain.decode(drain) if drain else None,
    )
