"""An engine's inbox, decoded."""

import msgspec

from stoker.core.events import Event
from stoker.core.messages import (
    CANCEL_GRACE_MAX_MS,
    Assignment,
    CancelOrder,
    DrainOrder,
    EngineId,
    EvictOrder,
    InboxMessage,
    LoadOrder,
    PinOrder,
    RecallOrder,
    SetupKey,
    TaskId,
    TaskRequest,
    WorkerId,
)
from stoker.log import get_logger

_log = get_logger("engines")
_request = msgspec.json.Decoder(TaskRequest)
_evict = msgspec.json.Decoder(EvictOrder)
_drain = msgspec.json.Decoder(DrainOrder)
_orders: dict[bytes, msgspec.json.Decoder[LoadOrder] | msgspec.json.Decoder[PinOrder]] = {
    b"load": msgspec.json.Decoder(LoadOrder),
    b"pins": msgspec.json.Decoder(PinOrder),
}
_setup_keys = msgspec.json.Decoder(tuple[SetupKey, ...])


def readable(engine_id: EngineId, fields: dict[bytes, bytes]) -> InboxMessage | None:
    """A message; None for an assignment whose request another engine has spoiled in the task's hash."""
    try:
        return _inbox_message(fields)
    except (ValueError, KeyError, msgspec.MsgspecError) as error:
        _log.warning(Event.INBOX_UNREADABLE, engine=engine_id, reason=type(error).__name__)
        return None


def grace_of(text: str | bytes) -> int:
    """The milliseconds of a cancel; within bounds, for what is beyond them no timer can wait.

    Raises:
        ValueError: it is no whole number.
    """
    return min(max(0, int(text)), CANCEL_GRACE_MAX_MS)


def _inbox_message(fields: dict[bytes, bytes]) -> InboxMessage:
    kind = fields[b"k"]
    if kind == b"assign":
        return Assignment(
            task=_request.decode(fields[b"request"]),
            attempt=int(fields[b"attempt"]),
            token=fields[b"token"].decode(),
            worker_id=WorkerId(fields[b"worker"].decode()),
            evict=_setup_keys.decode(fields[b"evict"]),
        )
    if kind == b"cancel":
        return CancelOrder(
            task_id=TaskId(fields[b"task"].decode()),
            attempt=int(fields[b"attempt"]),
            force=fields[b"force"] == b"1",
            grace_ms=grace_of(fields[b"grace"]),
        )
    if kind == b"evict":
        return _evict.decode(fields[b"body"])
    if kind in _orders:
        return _orders[kind].decode(fields[b"order"])
    if kind == b"recall":
        return RecallOrder()
    return _drain.decode(fields[b"body"])
