"""The files of a task: those that its input names, and those that it made."""

from typing import Any

import msgspec

from stoker.core.errors import Conflict, InvalidRequest
from stoker.core.messages import StoredFile, TaskView
from stoker.core.states import TERMINAL
from stoker.runs.file_uses import OUTPUT, file_ids
from stoker_gateway.file_records import file_dto, forget_file
from stoker_gateway.registration import CODE_ROLE
from stoker_gateway.services import Services

INPUT = "input"


async def files_of(services: Services, view: TaskView, owner_id: str, role: str = "") -> list[StoredFile]:
    """A task's files that belong to its owner, as far as they are there; of one role, or of both.

    Raises:
        InvalidRequest: there is no such role.
    """
    if role not in {"", INPUT, OUTPUT}:
        raise InvalidRequest(f"Input validation failed: role: {role!r} is unknown; it may be input or output")
    named = {INPUT: view.request.input, OUTPUT: msgspec.json.decode(view.output)}
    ids = dict.fromkeys(one for side in named if role in {"", side} for one in file_ids(named[side]))
    found = [file for file in await services.store.files.get_many(list(ids)) if file is not None]
    return [file for file in found if file.owner_id == owner_id and role in {"", role_of(file, view)}]


def role_of(file: StoredFile, view: TaskView) -> str:
    """What a file is to a task; the output of one may be the input of another."""
    return OUTPUT if file.role == OUTPUT and file.task_id == view.request.id else INPUT


def task_file_dto(services: Services, file: StoredFile, view: TaskView) -> dict[str, Any]:
    """A file as the lists of files show it, with what it is to the task."""
    return file_dto(services, file) | {"role": role_of(file, view)}


async def delete_files(
    services: Services, view: TaskView, owner_id: str, role: str = ""
) -> dict[str, list[str]]:
    """Delete a task's files, whatever else names them; the ids of those that are gone, and of those that stay.

    Raises:
        Conflict: the task has not ended.
        InvalidRequest: there is no such role.
    """
    if view.state not in TERMINAL:
        raise Conflict(
            "The task has not ended, and may still read or make files. Cancel it, or wait for its end."
        )
    deleted, skipped = [], []
    for file in await files_of(services, view, owner_id, role):
        if file.role == CODE_ROLE:
            skipped.append(file.id)
            continue
        await forget_file(services, file)
        deleted.append(file.id)
    return {"deleted": deleted, "skipped": skipped}
