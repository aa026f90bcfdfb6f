"""Files: download, list, read, make public, delete."""

import hmac
from collections.abc import AsyncIterator, Sequence
from typing import Literal

from litestar import HttpMethod, Response, delete, get, post, route
from litestar.response import Stream
from msgspec import Struct, structs

from stoker.core.errors import Conflict, NotFound
from stoker.core.messages import StoredFile
from stoker.core.scopes import Scope
from stoker.files import file_key
from stoker.protocol.pages import Place
from stoker_gateway.access import needs, open_to_all
from stoker_gateway.door import caller_of
from stoker_gateway.downloads import ATTACHMENT, decide_download
from stoker_gateway.file_records import file_dto, file_row, forget_file, own_file, shown, type_of
from stoker_gateway.listing import ListQuery, chooser, query_of, read_page
from stoker_gateway.registration import CODE_ROLE
from stoker_gateway.services import Answer, AnyRequest, answer, own_task, page, services_of
from stoker_gateway.task_files import delete_files, files_of, task_file_dto

_LIST_FIELDS = (
    "id",
    "created_at",
    "filename",
    "content_type",
    "size",
    "path",
    "category",
    "role",
    "task_id",
    "uploaded",
    "visibility",
)
_SEARCHED = ("filename", "path", "content_type", "category")


class VisibilityBody(Struct, kw_only=True):
    """Who may read the record of a file."""

    visibility: Literal["public", "private"]


@route(
    "/files/{file_id:str}/{secret:str}/{name:str}",
    http_method=[HttpMethod.GET, HttpMethod.HEAD],
    tags=["files"],
    summary="Download a file",
)
async def download(request: AnyRequest, file_id: str, secret: str, name: str) -> Stream | Response[bytes]:  # noqa: ARG001 - the name is for people
    """The `uri` of a file: whoever has it can read it. Ranges and ETags work; `?download=1` saves it.

    A file whose upload has not ended is not there.
    """
    services = services_of(request)
    file = await services.store.files.get(file_id)
    if not hmac.compare_digest(file.secret.encode(), secret.encode()) or not file.uploaded:
        raise NotFound("File not found")
    attachment = request.query_params.get("download", "").lower() in ATTACHMENT
    plan = decide_download(file, file.size, caller_of(request).headers, attachment=attachment)
    if request.method == HttpMethod.HEAD or plan.status in {304, 416}:
        return Response(content=b"", status_code=plan.status, headers=plan.headers, media_type=type_of(file))
    body = await begun(services.blobs.get(file_key(file.id), plan.start, plan.length))
    return Stream(body, media_type=type_of(file), status_code=plan.status, headers=plan.headers)


async def begun(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The same chunks; the first one is read already, so that what is missing is an answer and no broken one."""
    first = await anext(chunks, b"")

    async def rest() -> AsyncIterator[bytes]:
        yield first
        async for chunk in chunks:
            yield chunk

    return rest()


@post("/files/list", status_code=200, tags=["files"], summary="List files")
async def list_files(request: AnyRequest, data: ListQuery | None = None) -> Answer:
    """The caller's files, newest first; `filters` and `search` choose among them."""
    return await _list(request, data or ListQuery())


@get("/files", tags=["files"], summary="List files")
async def get_files(request: AnyRequest) -> Answer:
    """The same with a query string: `limit`, `cursor`, `direction`, `search`, and `filters` as JSON."""
    return await _list(request, query_of(request.query_params))


async def _list(request: AnyRequest, query: ListQuery) -> Answer:
    services, owner = services_of(request), caller_of(request).owner
    is_chosen = chooser(query, _LIST_FIELDS, _SEARCHED)
    store = services.store

    async def beyond(place: Place | None, limit: int, newer: bool) -> tuple[Sequence[StoredFile], bool]:
        return await store.files.after(owner.user_id, place, limit, newer=newer)

    async def wanted(files: Sequence[StoredFile]) -> Sequence[StoredFile]:
        return await shown(store, [file for file in files if is_chosen(file_row(file))])

    found = await read_page(query, beyond, lambda file: (file.created_ms, file.id), wanted)
    items = [file_dto(services, file) for file in found.items]
    return answer(request, page(items, found.next_cursor, found.limit, prev_cursor=found.prev_cursor))


@get("/files/{file_id:str}", tags=["files"], summary="Read a file's record")
async def get_file(request: AnyRequest, file_id: str) -> Answer:
    """Name, type, size and address; not the bytes."""
    file = await own_file(request, file_id, others_public=True)
    return answer(request, file_dto(services_of(request), file))


@post("/files/{file_id:str}/visibility", status_code=200, tags=["files"], summary="Make a file public or not")
async def set_visibility(request: AnyRequest, file_id: str, data: VisibilityBody) -> Answer:
    """The record of a public file can be read with any key. Its bytes can be read by whoever has the `uri`."""
    services = services_of(request)
    file = structs.replace(await own_file(request, file_id), public=data.visibility == "public")
    await services.store.files.put(file)
    return answer(request, file_dto(services, file))


@delete("/files/{file_id:str}", status_code=200, tags=["files"], summary="Delete a file")
async def delete_file(request: AnyRequest, file_id: str) -> Answer:
    """The bytes and the record."""
    file = await own_file(request, file_id)
    if file.role == CODE_ROLE:
        raise Conflict("The file is the code of an app's version. Delete the version instead.")
    services = services_of(request)
    await forget_file(services, file)
    return answer(request, {"id": file_id, "deleted": True})


@get("/tasks/{task_id:str}/files", tags=["files"], summary="List a task's files")
async def get_task_files(request: AnyRequest, task_id: str, role: str = "") -> Answer:
    """The caller's files that the task's input names (`role=input`) and those that it made (`role=output`)."""
    services, view = services_of(request), await own_task(request, task_id, with_logs=False)
    found = await files_of(services, view, caller_of(request).owner.user_id, role)
    return answer(request, [task_file_dto(services, file, view) for file in found])


@delete("/tasks/{task_id:str}/files", status_code=200, tags=["files"], summary="Delete a task's files")
async def delete_task_files(request: AnyRequest, task_id: str, role: str = "") -> Answer:
    """The bytes and the records, also of files that something else names; the task itself stays.

    Answers with the ids of those that are `deleted`, and of those that were `skipped`: the code of an app.
    """
    view = await own_task(request, task_id, with_logs=False)
    owner_id = caller_of(request).owner.user_id
    return answer(request, await delete_files(services_of(request), view, owner_id, role))


ROUTES = [
    *needs(Scope.FILES_READ, list_files, get_files, get_file, get_task_files),
    *needs(Scope.FILES_WRITE, set_visibility, delete_file, delete_task_files),
    *open_to_all(download),
]
