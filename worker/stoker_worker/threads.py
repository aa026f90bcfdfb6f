"""Calls beside the event loop that use what a cancellation would take from them."""

import asyncio
import contextlib
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def unbroken(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """A call in a thread which every cancellation waits for: it uses what is closed or removed next.

    No thread can be stopped from outside. `call` itself bounds the wait.
    """
    work = asyncio.get_running_loop().run_in_executor(None, functools.partial(call, *args, **kwargs))
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        while not work.done():
            with contextlib.suppress(asyncio.CancelledError):  # a second one; the first goes on below
                await asyncio.wait({work})
        raise
