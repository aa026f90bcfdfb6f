"""The app versions on this machine: unpacked once, under their content hash, shared by all workers."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from stoker.core.messages import LogType
from stoker_worker import bundles
from stoker_worker.shelf import OnLine, Shelf, Site, Use


class Versions:
    """Unpacked app versions below one path; several processes may share it."""

    def __init__(self, path: Path) -> None:
        self.shelf = Shelf(path)

    def find(self, version_id: str) -> Use | None:
        """A version that is here, held until it is closed, or None."""
        return self.shelf.use(version_id)

    async def ensure(
        self, version_id: str, fetch: Callable[[Path], Awaitable[None]], on_line: OnLine | None = None
    ) -> Use:
        """A version, held; `fetch` downloads its bundle to a path when it is not here.

        Tasks that want the same version at the same time wait for one download.

        Raises:
            Exception: what `fetch` raises, or what is wrong with the bundle.
        """

        async def build(site: Site) -> None:
            await fetch(site.part)
            await asyncio.to_thread(bundles.unpack, site.part, site.folder)

        return await self.shelf.make(version_id, "the app's code", build, on_line or _quiet)


def _quiet(_kind: LogType, _text: str) -> None:
    """For those who have no log."""
