"""The app versions on this machine: unpacked once, under their content hash, shared by all workers."""

from collections.abc import Awaitable, Callable
from pathlib import Path

from stoker import bundles
from stoker.bundles import DEFAULT_LIMITS, BadBundle, Limits
from stoker.core.messages import LogType
from stoker_worker.logs import OnLine
from stoker_worker.shelf import Shelf, Site, Use
from stoker_worker.threads import unbroken


class Versions:
    """Unpacked app versions below one path; several processes may share it."""

    def __init__(self, path: Path, limits: Limits = DEFAULT_LIMITS) -> None:
        self.shelf = Shelf(path)
        self._limits = limits

    def find(self, version_id: str) -> Use | None:
        """A version that is here, held until it is closed, or None."""
        return self.shelf.use(version_id)

    async def ensure(
        self, version_id: str, fetch: Callable[[Path], Awaitable[None]], on_line: OnLine | None = None
    ) -> Use:
        """A version, held; `fetch` downloads its bundle to a path when it is not here.

        Tasks that want the same version at the same time wait for one download.

        Raises:
            BadBundle: it may not be unpacked, or holds another version.
            Exception: what `fetch` raises.
        """

        async def build(site: Site) -> None:
            await fetch(site.part)
            found_id = await unbroken(bundles.unpack, site.part, site.folder, self._limits)
            if found_id != version_id:
                raise BadBundle(
                    f"The app's bundle holds version {found_id[:8]}, not {version_id[:8]}. Deploy the app again."
                )

        return await self.shelf.make(version_id, "the app's code", build, on_line or _quiet)


def _quiet(_kind: LogType, _text: str) -> None:
    """For those who have no log."""
