"""Calls an app: its setup, one function at a time, its cancel and its unload. Sends partial outputs."""

import asyncio
import inspect
import sys
import time
import typing

import files_in
import loader
import values

PARTIAL_EVERY_S = 0.05
"""Partial outputs go out at most this often; each is the whole output so far, so the latest is enough."""

SendPartial = typing.Callable[[object], None]


class Metadata:
    """What apps of an SDK without a Metadata class get: attributes, and `get` as of a dict."""

    def __init__(self, **fields: object) -> None:
        self.__dict__.update(fields)

    def get(self, key: str, default: object = None) -> object:
        return self.__dict__.get(key, default)


def make_metadata(fields: dict) -> object:
    """The SDK's Metadata with `.get`, if the app has loaded an SDK that has one; else our own."""
    base = getattr(sys.modules.get("inferencesh"), "Metadata", None)
    if not values.is_model(base):
        return Metadata(**fields)
    try:
        return _with_get(base)(**fields)
    except Exception as error:  # a Metadata of an age that we do not know
        print(f"metadata: {type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        return Metadata(**fields)


_kinds: dict = {}


def _with_get(base: type) -> type:
    """A subclass, made once, that also has `get`."""
    if base not in _kinds:

        def get(self: object, key: str, default: object = None) -> object:
            return getattr(self, key, default)

        _kinds[base] = type("Metadata", (base,), {"get": get, "__module__": base.__module__})
    return _kinds[base]


async def set_up(app: object, setup: dict, metadata: dict) -> None:
    """Run the app's setup with what its parameters ask for.

    Raises:
        values.BadInput: the values do not fit the setup's model.
        Exception: the app's own.
    """
    method = getattr(app, "setup", None)
    if not callable(method):
        return
    args = []
    for name, kind in loader.parameters_of(method):
        if loader.is_metadata(name, kind):
            args.append(make_metadata(metadata))
        else:
            args.append(values.build(kind, dict(setup), "setup"))
    await _maybe_await(method(*args))


async def run(app: object, order: dict, send_partial: SendPartial) -> "tuple[object, list[dict]]":
    """Run one function to its end; the dumped output and its files.

    Raises:
        values.BadInput: the input does not fit.
        values.BadOutput: what came back is no JSON.
        Exception: the app's own.
    """
    method = loader.find_function(app, order["function"])
    files_in.keep_given_paths()
    result = method(*_arguments(method, order))
    if inspect.isawaitable(result):
        result = await result
    if hasattr(result, "__aiter__"):
        result = await _drain_async(result, send_partial)
    elif inspect.isgenerator(result):
        result = await _drain(result, send_partial)
    return values.dump(result)


def _arguments(method: "typing.Callable", order: dict) -> list:
    """The input first (whatever its name), metadata where it is asked for; defaults stay."""
    args: list = []
    given = False
    for name, kind in loader.parameters_of(method):
        if loader.is_metadata(name, kind):
            args.append(make_metadata(order["metadata"]))
        elif not given:
            args.append(values.build(kind, order["input"], "input"))
            given = True
        else:
            break  # what follows must have defaults
    return args


async def _drain_async(outputs: "typing.AsyncIterator", send_partial: SendPartial) -> object:
    """Take all outputs of a generator; each is the whole output so far, the last one is the result."""
    throttle = _Throttle(send_partial)
    try:
        async for output in outputs:
            throttle.put(output)
    finally:
        throttle.drop()
        close = getattr(outputs, "aclose", None)
        if close is not None:
            await close()
    return throttle.last


async def _drain(outputs: "typing.Iterator", send_partial: SendPartial) -> object:
    throttle = _Throttle(send_partial)
    try:
        for output in outputs:
            throttle.put(output)
            await asyncio.sleep(0)  # lets a cancel in
    finally:
        throttle.drop()
        outputs.close()
    return throttle.last


class _Throttle:
    """Sends at most one partial output per `PARTIAL_EVERY_S`; one that was held back follows by a timer."""

    def __init__(self, send: SendPartial) -> None:
        self.last: object = None
        self._send = send
        self._sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def put(self, output: object) -> None:
        self.last = output
        wait_s = self._sent_at + PARTIAL_EVERY_S - time.monotonic()
        if wait_s <= 0:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(wait_s, self._late)

    def flush(self) -> None:
        """Send the latest now."""
        self.drop()
        self._sent_at = time.monotonic()
        self._send(self.last)

    def drop(self) -> None:
        """Forget what was held back: the result follows, and holds it."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        try:
            self.flush()
        except values.BadOutput:
            return  # the result will say it, if it is still so


async def ask_to_cancel(app: object) -> bool:
    """Tell the app that its run is not wanted any more; whether it says that it stops by itself."""
    method = getattr(app, "on_cancel", None)
    return bool(await _maybe_await(method())) if callable(method) else False


async def unload(app: object) -> None:
    """Let the app free what it holds."""
    method = getattr(app, "unload", None)
    if callable(method):
        await _maybe_await(method())


async def _maybe_await(result: object) -> object:
    return await result if inspect.isawaitable(result) else result
