"""What a generator of an app yields: whole outputs so far, of which the latest counts, or deltas, which all count.

A delta is an object whose class derives from the SDK's StreamDelta. Each one goes out at once with its number, and
the output that they add up to goes out beside them as the partial output. How a field is merged says its class:
`_field_tags = {field: {"merge": concat | indexed | nested | replace}}`; a field without a tag replaces.
"""

import asyncio
import time
import typing

import values

PARTIAL_EVERY_S = 0.05
"""Partial outputs go out at most this often; each is the whole output so far, so the latest is enough."""


class Sink:
    """Where yields go. `partial` takes a dumped output, `delta` a number from 1 and a dumped increment."""

    def __init__(
        self, partial: "typing.Callable[[object], None]", delta: "typing.Callable[[int, dict], None]"
    ) -> None:
        self.partial = partial
        self.delta = delta


async def drain_async(outputs: "typing.AsyncIterator", sink: Sink) -> object:
    """Take all that a generator yields; the last output, or what the deltas add up to, is the result."""
    yields = _Yields(sink)
    try:
        async for output in outputs:
            yields.put(output)
    finally:
        yields.drop()
        close = getattr(outputs, "aclose", None)
        if close is not None:
            await close()
    return yields.result()


async def drain(outputs: "typing.Generator", sink: Sink) -> object:
    """As `drain_async`, for a plain generator."""
    yields = _Yields(sink)
    try:
        for output in outputs:
            yields.put(output)
            await asyncio.sleep(0)  # lets a cancel in
    finally:
        yields.drop()
        outputs.close()
    return yields.result()


class _Yields:
    """Sends at most one partial output per `PARTIAL_EVERY_S`; one that was held back follows by a timer."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._last: object = None
        self._sum: dict | None = None
        self._seq = 0
        self._sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def put(self, output: object) -> None:
        """The generator yielded something."""
        if is_delta(output):
            self._put_delta(output)
        else:
            self._last, self._sum = output, None
        wait_s = self._sent_at + PARTIAL_EVERY_S - time.monotonic()
        if wait_s <= 0:
            self._flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._late)

    def result(self) -> object:
        """What the function returned."""
        return self._last if self._sum is None else self._sum

    def drop(self) -> None:
        """Forget what was held back: the result follows, and holds it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _put_delta(self, delta: object) -> None:
        increment = plain(delta)
        if not increment:
            return
        self._seq += 1
        self._sink.delta(self._seq, increment)
        if self._sum is None:  # what was yielded whole before is what the deltas go on from
            whole, _ = values.dump(self._last)
            self._sum = dict(whole) if isinstance(whole, dict) else {}
        merge(self._sum, delta)

    def _flush(self) -> None:
        self.drop()
        self._sent_at = time.monotonic()
        dumped, _ = values.dump(self.result())
        values.take_meta(dumped)
        self._sink.partial(dumped)

    def _late(self) -> None:
        self._timer = None
        try:
            self._flush()
        except values.BadOutput:
            return  # the result will say it, if it is still so


def is_delta(value: object) -> bool:
    """Whether a yield is an increment: its class derives from the SDK's marker."""
    return any(
        kind.__name__ == "StreamDelta" and kind.__module__.split(".")[0] == "inferencesh"
        for kind in type(value).__mro__
    )


def plain(value: object) -> dict:
    """What a delta sets, as JSON values: defaults and None are not part of it."""
    if isinstance(value, dict):
        return {key: item for key, item in value.items() if item is not None}
    try:
        return value.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    except Exception as error:
        raise values.BadOutput(f"The app yielded a delta that cannot be written as JSON: {error}") from error


def merge(state: dict, delta: object) -> dict:
    """Add a delta to what the ones before it made, by the tags of its class. Changes `state`."""
    tags = _tags_of(delta)
    for name, item in plain(delta).items():
        raw = delta[name] if isinstance(delta, dict) else getattr(delta, name)
        how = tags.get(name, {}).get("merge", "replace")
        state[name] = _merged(state.get(name), item, raw, how)
    return state


def _merged(before: object, item: object, raw: object, how: str) -> object:
    if how == "concat" and isinstance(before, (str, list)) and type(before) is type(item):
        return before + item
    if how == "nested" and isinstance(item, dict):
        return merge(before if isinstance(before, dict) else {}, raw)
    if how == "indexed" and isinstance(item, list):
        return _merge_indexed(before if isinstance(before, list) else [], raw)
    return item


def _merge_indexed(before: list, items: list) -> list:
    """Items with the same `index` are merged; the others are added, in the order of their index."""
    found = {_index_of(item): item for item in before}
    for item in items:
        merge(found.setdefault(_index_of(item), {}), item)
    return [found[index] for index in sorted(found)]


def _index_of(item: object) -> int:
    index = item.get("index") if isinstance(item, dict) else getattr(item, "index", None)
    return index if isinstance(index, int) else 0


def _tags_of(delta: object) -> dict:
    """`_field_tags` of the class or of one that it derives from; pydantic wraps it where it is no ClassVar."""
    for kind in type(delta).__mro__:
        tags = vars(kind).get("_field_tags")
        if tags is None:
            tags = (vars(kind).get("__private_attributes__") or {}).get("_field_tags")
        tags = getattr(tags, "default", tags)
        if isinstance(tags, dict):
            return tags
    return {}
