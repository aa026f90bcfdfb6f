"""Records of files as the gateway makes, shows and hides them."""

import mimetypes
import re
from collections.abc import Sequence
from secrets import token_urlsafe

from msgspec import Struct

from stoker.core.errors import InvalidRequest, NotFound
from stoker.core.ids import new_id
from stoker.core.messages import StoredFile, TaskId
from stoker.core.states import TaskState
from stoker.files import file_key
from stoker.protocol import Store
from stoker.protocol.files import Standing
from stoker.runs.file_uses import OUTPUT
from stoker_gateway.clock import now_ms
from stoker_gateway.door import caller_of
from stoker_gateway.downloads import download_url
from stoker_gateway.dto import iso
from stoker_gateway.services import AnyRequest, Services, services_of
from stoker_gateway.uploads import DEFAULT_TYPE, upload_url

_MEDIA_TYPE = re.compile(r"[\x20-\x7e]{0,200}")
"""What a header can carry; empty = it is guessed."""


class NewFile(Struct, kw_only=True):
    """A file that will be uploaded. What is announced binds: bytes of another size or type are refused."""

    filename: str | None = None
    content_type: str | None = None
    size: int | None = None
    path: str | None = None
    category: str | None = None
    public: bool | None = None


async def announce(
    services: Services, new: NewFile, owner_id: str, task_id: str = "", attempt: int = 0
) -> StoredFile:
    """Make the record of a file whose bytes come next; an output when a task is named.

    Raises:
        TooLarge: over the limit.
        InvalidRequest: its size is negative, its type is none that a header can carry.
    """
    size = -1 if new.size is None else new.size
    if new.size is not None and size < 0:
        raise InvalidRequest(f"Input validation failed: files.size: {size} is no size")
    services.uploads.check_size(size)
    content_type = new.content_type or ""
    if not _MEDIA_TYPE.fullmatch(content_type):
        if not task_id:
            raise InvalidRequest(
                f"Input validation failed: files.content_type: {content_type[:100]!r} is no media type"
            )
        content_type = DEFAULT_TYPE  # an app's slip is not to cost its result
    filename = (new.filename or "").replace("\\", "/").rsplit("/", 1)[-1]
    now = now_ms()
    file = StoredFile(
        id=new_id(),
        secret=new_id(),
        owner_id=owner_id,
        filename=filename or "file",
        content_type=content_type,
        size=size,
        created_ms=now,
        path=new.path or "",
        category=new.category or "",
        task_id=task_id,
        attempt=attempt,
        role=OUTPUT if task_id else "",
        public=bool(new.public),
        upload_key=token_urlsafe(16),
        upload_until_ms=now + round(services.settings.upload_ttl_s * 1000),
        announced=f"{size} {content_type}",
    )
    await services.store.files.put(file)
    return file


def type_of(file: StoredFile) -> str:
    """The content type: the announced one, else what the name says."""
    return file.content_type or mimetypes.guess_type(file.filename)[0] or DEFAULT_TYPE


def file_dto(services: Services, file: StoredFile, *, upload: bool = False) -> dict[str, object]:
    """A file as clients read it; with `upload`, where its bytes go."""
    body = {**file_row(file), "uri": download_url(services.base_url, file)}
    return body | {"upload_url": upload_url(services.base_url, file)} if upload else body


def file_row(file: StoredFile) -> dict[str, object]:
    """The fields of a file that lists filter and search by."""
    return {
        "id": file.id,
        "created_at": iso(file.created_ms),
        "user_id": file.owner_id,
        "filename": file.filename,
        "content_type": type_of(file),
        "size": file.size if file.size >= 0 else None,
        "path": file.path,
        "category": file.category,
        "role": file.role or None,
        "task_id": file.task_id or None,
        "uploaded": file.uploaded,
        "visibility": "public" if file.public else "private",
    }


def is_shown(file: StoredFile, standing: Standing | None) -> bool:
    """Whether people may see a file: an output only when its attempt is the one that ended the task well.

    The output of a task that is forgotten was kept because another task uses it.
    """
    if file.role != OUTPUT or standing is None:
        return True
    return standing.state is TaskState.COMPLETED and standing.attempt == file.attempt


async def shown(store: Store, files: Sequence[StoredFile]) -> list[StoredFile]:
    """Those of some files that people may see."""
    tasks = list({file.task_id for file in files if file.role == OUTPUT})
    standings = await store.files.standings([TaskId(task) for task in tasks])
    known = dict(zip(tasks, standings, strict=True))
    return [file for file in files if is_shown(file, known.get(file.task_id))]


async def own_file(request: AnyRequest, file_id: str, *, others_public: bool = False) -> StoredFile:
    """A file of the caller; with `others_public` also one that somebody else made public.

    Raises:
        NotFound: no such file, or somebody else's.
    """
    store = services_of(request).store
    file = await store.files.get(file_id)
    mine = file.owner_id == caller_of(request).owner.user_id
    if not (mine or (others_public and file.public)) or not await shown(store, [file]):
        raise NotFound("File not found")
    return file


async def forget_file(services: Services, file: StoredFile) -> None:
    """Delete the bytes and the record of a file, whatever names it."""
    services.uploads.drop(file.id)
    await services.blobs.delete(file_key(file.id))
    await services.store.files.delete(file)
