"""Increments of a task's output for one reader of its stream: in order, none left out, or none at all.

What is read from the store goes through `DeltaReader.take`. When a number is missing (the store keeps a bounded
tail, and another attempt starts anew), the reader turns to whole outputs; one whose client keeps its own sum cannot,
and its stream must close: the client then reads the task itself and opens a new one.
"""

from collections.abc import Iterable
from typing import Final

import msgspec

from stoker.core.messages import DeltaBatch, TaskView
from stoker_gateway.dialect import Deltas, Dialect
from stoker_gateway.dto import LINE_LIMIT_BYTES, ascii_json

BATCHES: Final = 100
"""Read at once: a slow reader holds no more than so many writes of the worker."""
CHAT_FIELDS: Final = frozenset({"response", "reasoning", "tool_calls", "usage"})
"""What the Python SDK knows of an increment; it drops all else."""
CHAT_BREAKS_AT: Final = "tool_calls"
"""Its sum must be a whole output at each step, and half of a call's arguments is none: it raises (seen in 0.36.0).
So calls reach that client with the final output."""

_keys = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


class DeltaReader:
    """Where one reader of a stream stands."""

    def __init__(self, task_id: str, dialect: Dialect) -> None:
        self._task_id = task_id
        self._dialect = dialect
        self._active = dialect.deltas is not Deltas.NONE
        self._attempt = 0
        self._last = 0
        self.broken = False
        """Whether the client's own sum cannot be continued: the stream must close."""
        self.after = "0"

    def wants(self, view: TaskView) -> bool:
        """Whether a task has increments that this reader has not got."""
        if not self._active or view.delta_last == 0:
            return False
        return view.attempt > self._attempt or (
            view.attempt == self._attempt and view.delta_last > self._last
        )

    def replaces_output(self, view: TaskView) -> bool:
        """Whether the reader knows the output of a running task without being sent it whole."""
        mine = self._active and self._last > 0 and self._attempt == view.attempt
        return mine and self._dialect.deltas is not Deltas.BESIDE

    def take(self, batches: Iterable[DeltaBatch]) -> list[bytes]:
        """The events to send for what was read; fewer, and `broken` or no more wishes, when a number is missing."""
        events: list[bytes] = []
        for batch in batches:
            self.after = batch.id
            if batch.attempt != self._attempt and not self._begin(batch.attempt):
                break
            for number, delta in enumerate(batch.deltas, batch.first):
                if number <= self._last:
                    continue
                event = self._event(number, delta) if number == self._last + 1 else None
                if event is None:
                    self.give_up()
                    return events
                self._last = number
                if event:
                    events.append(event)
        return events

    def give_up(self) -> None:
        """Turn to whole outputs: the next increment cannot be had."""
        self._active = False
        self.broken = self._last > 0 and self._dialect.deltas is Deltas.CHAT

    def _begin(self, attempt: int) -> bool:
        """Another attempt starts from nothing; a client that keeps the sum of the last one cannot."""
        if self._last > 0 and self._dialect.deltas is Deltas.CHAT:
            self.give_up()
            return False
        self._attempt, self._last = attempt, 0
        return True

    def _event(self, number: int, delta: msgspec.Raw) -> bytes | None:
        """One increment as it goes over the wire, maybe empty; None if this client can do nothing with it."""
        body: object = delta
        if self._dialect.deltas is Deltas.CHAT:
            fields = _keys(delta)
            if self._last == 0 and not CHAT_FIELDS.issuperset(fields):
                return None
            body = {name: value for name, value in fields.items() if name != CHAT_BREAKS_AT}
            if not body:
                return b""
        data = {"delta": body, "seq": number, "resource_id": self._task_id}
        if not self._dialect.ndjson:
            event = b"event: delta\ndata: %b\n\n" % ascii_json(data)
        else:
            event = ascii_json({"event": "delta", "data": data}) + b"\n"
        return event if len(event) <= LINE_LIMIT_BYTES else None
