"""Which files of ours a task's input, a flow run or a chat names: outputs of other tasks must outlive those tasks then."""

import re
import time
from collections.abc import Iterator
from typing import Any, Final

from stoker.protocol import Store

OUTPUT: Final = "output"
"""The role of a file that a task made; other files live until somebody deletes them."""
_IN_ADDRESS: Final = re.compile(r"/files/([a-z2-7]{26})/")


async def note_uses(store: Store, given: Any, user: str) -> None:
    """Keep the outputs of other tasks that a value names, as long as its task, or its document, is kept.

    Args:
        user: id of the task, or `stoker.protocol.files.document_user`.
    """
    ids = sorted(set(file_ids(given)))
    if not ids:
        return
    outputs = [file.id for file in await store.files.get_many(ids) if file and file.role == OUTPUT]
    if outputs:
        await store.files.use(outputs, user, int(time.time() * 1000))


def file_ids(value: Any) -> Iterator[str]:
    """The ids of files of ours whose addresses stand anywhere in a JSON value."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            yield from _IN_ADDRESS.findall(item) if "/files/" in item else ()
        elif isinstance(item, dict):
            waiting += item.values()
        elif isinstance(item, list):
            waiting += item
