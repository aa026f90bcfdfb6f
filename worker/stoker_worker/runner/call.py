"""Calls an app: its setup, one function at a time, its cancel and its unload."""

import inspect
import typing

import files_in
import loader
import metadata as meta
import values
import yields


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
            args.append(meta.make_metadata(metadata))
        else:
            args.append(values.build(kind, dict(setup), "setup"))
    await _maybe_await(method(*args))


async def run(app: object, order: dict, sink: yields.Sink) -> "tuple[object, list[dict], object]":
    """Run one function to its end; the dumped output, its files, and its `output_meta`.

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
        result = await yields.drain_async(result, sink)
    elif inspect.isgenerator(result):
        result = await yields.drain(result, sink)
    dumped, files = values.dump(result)
    return dumped, files, values.take_meta(dumped)


def _arguments(method: "typing.Callable", order: dict) -> list:
    """The input first (whatever its name), metadata where it is asked for; defaults stay."""
    args: list = []
    given = False
    for name, kind in loader.parameters_of(method):
        if loader.is_metadata(name, kind):
            args.append(meta.make_metadata(order["metadata"]))
        elif not given:
            args.append(values.build(kind, order["input"], "input"))
            given = True
        else:
            break  # what follows must have defaults
    return args


async def ask_to_cancel(app: object) -> bool:
    """Tell the app that its run is not wanted any more; whether it says that it stops by itself."""
    method = getattr(app, "on_cancel", None)
    return bool(await _maybe_await(method())) if callable(method) else False


async def unload(app: object) -> None:
    """Let the app free what it holds."""
    await hook(app, "unload")


def can_park(app: object) -> bool:
    """Whether the app can leave the devices and come back: it has both methods."""
    return callable(getattr(app, "park", None)) and callable(getattr(app, "unpark", None))


async def hook(app: object, name: str) -> None:
    """Call a method without arguments, if there is one."""
    method = getattr(app, name, None)
    if callable(method):
        await _maybe_await(method())


async def _maybe_await(result: object) -> object:
    return await result if inspect.isawaitable(result) else result
