"""Removes the code of versions that were deleted, when no task can need it any more.

A deleted version stays readable for the tasks that were accepted before: queued ones name it in their spec, those
on an engine in their request.
"""

import asyncio
from collections.abc import Collection, Iterable
from typing import Final

from stoker.core.apps import RetiredVersion
from stoker.core.errors import NotFound, StokerError
from stoker.core.events import Event
from stoker.core.messages import TaskId
from stoker.files import FileStore, file_key
from stoker.log import get_logger
from stoker.protocol import Store
from stoker_gateway.clock import now_ms

EVERY_S: Final = 60.0
GRACE_MS: Final = 60_000
"""A version stays at least that long: another gateway may take tasks for it until it has noticed (`FRESH_S`)."""

log = get_logger("gateway")


def decide_unneeded(
    now_ms: int, retired: Iterable[RetiredVersion], needed: Collection[str]
) -> list[RetiredVersion]:
    """Deleted versions that no task can need. `needed`: ids of versions that tasks wait for or run."""
    return [
        entry for entry in retired if entry.since_ms + GRACE_MS <= now_ms and entry.version.id not in needed
    ]


class Sweeper:
    """Looks once a minute; every gateway may do it."""

    def __init__(self, store: Store, files: FileStore) -> None:
        self._store = store
        self._files = files

    async def run(self) -> None:
        """Sweep until cancelled. A store that does not answer is asked again the next time."""
        while True:
            await asyncio.sleep(EVERY_S)
            try:
                await self.sweep(now_ms())
            except StokerError as error:
                log.warning(Event.CODE_KEPT, reason=error.message)

    async def sweep(self, now_ms: int) -> list[str]:
        """Remove what nobody needs; the ids of those versions.

        Raises:
            StoreUnavailable: Redis does not answer.
        """
        retired = await self._store.catalog.retired()
        if not decide_unneeded(now_ms, retired, ()):
            return []
        unneeded = decide_unneeded(now_ms, retired, await self._needed())
        in_use = await self._bundles_in_use(unneeded)
        for entry in unneeded:
            version = entry.version
            if version.bundle_file_id and version.bundle_file_id not in in_use:
                await self._remove(version.bundle_file_id)
            await self._store.catalog.forget_retired(version)
            log.info(Event.CODE_REMOVED, app_id=version.app_id, version_id=version.id)
        return [entry.version.id for entry in unneeded]

    async def _needed(self) -> set[str]:
        """Versions of all tasks that have not ended. Cost: reads the whole queue; only when there is something to sweep.

        A task that leaves its engine meanwhile is seen there at first, and one that an engine takes at last.
        """
        scheduling = self._store.scheduling
        held = await self._on_engines()
        waiting = [
            *await scheduling.delayed(),
            *await scheduling.pending(),
        ]  # in the order in which they move
        held |= await self._on_engines()
        views = await self._store.tasks.read_many(sorted(held), with_logs=False) if held else []
        needed = {spec.version_id for spec in waiting}
        return needed | {view.request.version_id for view in views if view is not None}

    async def _on_engines(self) -> set[TaskId]:
        return {TaskId(task_id) for engine in await self._store.engines.list() for task_id in engine.tasks}

    async def _bundles_in_use(self, unneeded: list[RetiredVersion]) -> set[str]:
        """Files that other versions have too: copies of an app share their code."""
        gone = {(entry.version.app_id, entry.version.id) for entry in unneeded}
        kept = {
            entry.version.bundle_file_id
            for entry in await self._store.catalog.retired()
            if (entry.version.app_id, entry.version.id) not in gone
        }
        for app in await self._store.catalog.list_apps():
            kept |= {version.bundle_file_id for version in await self._store.catalog.versions(app.id)}
        return kept

    async def _remove(self, file_id: str) -> None:
        try:
            record = await self._store.files.get(file_id)
        except NotFound:
            record = None  # it never was, or is gone
        await self._files.delete(file_key(file_id))
        if record is not None:
            await self._store.files.delete(record)
