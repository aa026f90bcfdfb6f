"""What is stored of why groups of tasks wait, for whoever asks for one of them."""

from collections.abc import Iterable

from stoker.protocol import Store
from stoker_scheduler import reasons
from stoker_scheduler.actions import GroupId
from stoker_scheduler.queues import Queues


class ReasonChores:
    """The work of one leadership on the reasons of its queue."""

    def __init__(self, store: Store, queues: Queues) -> None:
        self._store = store
        self._queues = queues
        self._written: dict[GroupId, str] = {}

    async def restore(self) -> None:
        """At the start of a leadership: what others have written, of which `forget` drops what waits no more."""
        found = await self._store.scheduling.reasons()
        self._written = {GroupId(group_id): text for group_id, text in found.items()}

    async def write(self, group_ids: Iterable[GroupId], *, only_new: bool) -> None:
        """Store why groups wait: new ones at once, changed ones with the next tick."""
        texts: dict[str, str] = {}
        for group_id in group_ids:
            group = self._queues.group(group_id)
            if group is None or group.reason is None or (only_new and group_id in self._written):
                continue
            text = reasons.sentence(group.reason)
            if self._written.get(group_id) != text:
                texts[group_id] = self._written[group_id] = text
        if texts:
            await self._store.scheduling.set_reasons(texts)

    async def forget(self) -> None:
        """Drop the reasons of groups of which no task waits."""
        gone = [group_id for group_id in self._written if self._queues.group(group_id) is None]
        if gone:
            await self._store.scheduling.set_reasons({}, gone)
            for group_id in gone:
                del self._written[group_id]
