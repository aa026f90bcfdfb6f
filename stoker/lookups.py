"""Looks up names in threads of its own, because a name may be silent for as long as its owner likes.

A lookup cannot be ended: who gives up leaves its thread behind. No other threads of a process are to be spent so. libuv
has four, of which lookups get two, those of Redis too; an executor's do what else blocks, and the interpreter joins
them before it ends. These are daemon threads, which nobody waits for.
"""

import asyncio
import contextlib
import ipaddress
import os
import socket
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

THREADS: Final = 32
"""As many silent names hold up no other one."""
TURN_S: Final = 5.0
"""To wait for a thread. Less than `stoker.outbound.RESOLVE_TIMEOUT_S`, so that callers hear why there is no answer."""


@dataclass(slots=True)
class _Lookup:
    found: Future[tuple[str, ...]] = field(default_factory=Future)
    waiting: int = 0
    begun: bool = False


class Lookups:
    """Those of a process, for all its event loops.

    1. who asks joins the lookup of that name, or asks for one  2. it waits for a thread  3. all who wait hear of its end
    """

    def __init__(self, threads: int = THREADS) -> None:
        self._most = threads
        self.forget()

    def forget(self) -> None:
        """In a forked process: the threads, and the lookups in them, are the parent's."""
        self._lock = threading.Lock()
        self._queue: dict[str, _Lookup] = {}
        self._begun: dict[str, _Lookup] = {}
        self._threads = 0

    async def addresses(self, host: str) -> tuple[str, ...]:
        """The addresses of a host. An address is its own, and needs no thread.

        Raises:
            OSError: the name is unknown, the resolver does not answer, or all threads wait for other names.
            UnicodeError: no name can be so.
        """
        with contextlib.suppress(ValueError):
            return (str(ipaddress.ip_address(host)),)
        lookup = self._join(host)
        answer = asyncio.wrap_future(lookup.found)
        try:
            await asyncio.wait((answer,), timeout=TURN_S)
            if not lookup.begun:
                raise OSError(f"{self._most} other names are looked up and do not answer")
            return await answer
        finally:
            answer.cancel()
            self._leave(host, lookup)

    def _join(self, host: str) -> _Lookup:
        with self._lock:
            lookup = self._begun.get(host) or self._queue.get(host)
            if lookup is None:
                if self._threads < self._most:
                    threading.Thread(target=self._work, name="lookup", daemon=True).start()
                    self._threads += 1
                lookup = self._queue[host] = _Lookup()
                lookup.found.set_running_or_notify_cancel()  # else the first who gives up ends it for all
            lookup.waiting += 1
            return lookup

    def _leave(self, host: str, lookup: _Lookup) -> None:
        """What nobody waits for any more is not begun: the queue is no longer than those who wait are many."""
        with self._lock:
            lookup.waiting -= 1
            if not lookup.waiting and not lookup.begun:
                del self._queue[host]

    def _work(self) -> None:
        """Look up what is in the queue. A thread ends with it: it is made in less time than a lookup takes."""
        while True:
            with self._lock:
                if not self._queue:
                    self._threads -= 1
                    return
                host = next(iter(self._queue))
                lookup = self._begun[host] = self._queue.pop(host)
                lookup.begun = True
            try:
                lookup.found.set_result(_look_up(host))
            except Exception as error:  # noqa: BLE001 - who waits raises it
                lookup.found.set_exception(error)
            with self._lock:
                del self._begun[host]


def _look_up(host: str) -> tuple[str, ...]:
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return tuple(dict.fromkeys(str(sockaddr[0]) for *_, sockaddr in found))


shared: Final = Lookups()
"""The one of this process."""
os.register_at_fork(after_in_child=shared.forget)
