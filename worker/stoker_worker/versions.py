"""The app versions on this machine: unpacked once, under their content hash, shared by all workers."""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from stoker_worker import bundles


class Versions:
    """Unpacked app versions. A version's folder is complete or absent: it is renamed into place."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._locks: dict[str, asyncio.Lock] = {}

    def find(self, version_id: str) -> Path | None:
        """The folder of a version that is here, or None."""
        folder = self._path / version_id
        return folder if folder.is_dir() else None

    async def ensure(self, version_id: str, fetch: Callable[[Path], Awaitable[None]]) -> Path:
        """The folder of a version; `fetch` downloads its bundle to a path when it is not here.

        Tasks that want the same version at the same time wait for one download.

        Raises:
            Exception: what `fetch` raises, or what is wrong with the bundle.
        """
        async with self._locks.setdefault(version_id, asyncio.Lock()):
            found = self.find(version_id)
            if found is not None:
                return found
            self._path.mkdir(parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(prefix=".incoming-", dir=self._path))
            try:
                bundle = scratch / "bundle.tar.gz"
                await fetch(bundle)
                folder = scratch / "app"
                await asyncio.to_thread(bundles.unpack, bundle, folder)
                target = self._path / version_id
                folder.rename(target)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
            return target

    def clean(self) -> None:
        """Remove what interrupted downloads left."""
        for scratch in self._path.glob(".incoming-*"):
            shutil.rmtree(scratch, ignore_errors=True)
