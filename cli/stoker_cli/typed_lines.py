"""What a person types, line by line; no thread holds on to the terminal, so that Ctrl-C ends a wait for it at once."""

import asyncio
import os
import sys
from typing import Final, TextIO

from stoker_cli.output import err

_CHUNK: Final = 65536


class TypedLines:
    """Lines of standard input, one reader at a time."""

    def __init__(self, source: TextIO | None = None) -> None:
        self._source = source or sys.stdin
        self._kept = b""

    @property
    def by_hand(self) -> bool:
        """Whether somebody types them."""
        return self._source.isatty()

    async def ask(self, question: str) -> str:
        """The next line, without its end. The question goes to stderr, as text.

        Raises:
            EOFError: there is none.
        """
        err.print(question, end="", markup=False, emoji=False)
        while b"\n" not in self._kept:
            chunk = await self._chunk()
            if not chunk and not self._kept:
                raise EOFError
            self._kept += chunk or b"\n"
        line, _, self._kept = self._kept.partition(b"\n")
        return line.decode(errors="replace")

    async def _chunk(self) -> bytes:
        number, loop = self._source.fileno(), asyncio.get_running_loop()
        there = asyncio.Event()
        try:
            loop.add_reader(number, there.set)
        except PermissionError:  # a file, which is always ready and which epoll refuses
            return os.read(number, _CHUNK)
        try:
            await there.wait()
        finally:
            loop.remove_reader(number)
        return os.read(number, _CHUNK)
