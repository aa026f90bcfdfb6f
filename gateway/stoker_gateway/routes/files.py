"""Files: two-step upload, download, list, delete."""

import time
from urllib.parse import quote

from litestar import Response, delete, get, post, put
from litestar.response import Stream
from msgspec import Struct, structs

from stoker.core.errors import InvalidRequest, NotFound
from stoker.core.ids import new_id
from stoker.core.messages import StoredFile
from stoker_gateway.door import caller_of
from stoker_gateway.dto import iso
from stoker_gateway.file_store import download_url, parse_range, read_range
from stoker_gateway.routes.tasks import PAGE_LIMIT, ListBody
from stoker_gateway.services import Answer, AnyRequest, Services, answer, page, services_of

MAX_FILES = 100
DEFAULT_TYPE = "application/octet-stream"


class NewFile(Struct, kw_only=True):
    """A file that will be uploaded."""

    filename: str | None = None
    content_type: str | None = None
    size: int | None = None
    path: str | None = None
    category: str | None = None


class NewFiles(Struct, kw_only=True):
    """The files of one request."""

    files: list[NewFile]


def file_dto(services: Services, file: StoredFile, *, upload: bool = False) -> dict[str, object]:
    """A file as clients read it; with `upload`, where its bytes go."""
    body: dict[str, object] = {
        "id": file.id,
        "created_at": iso(file.created_ms),
        "user_id": file.owner_id,
        "uri": download_url(services.base_url, file),
        "filename": file.filename,
        "content_type": file.content_type,
        "size": file.size,
        "path": file.path,
        "category": file.category,
        "role": file.role or None,
        "uploaded": file.uploaded,
    }
    return body | {"upload_url": services.files.upload_url(services.base_url, file)} if upload else body


async def announce(
    services: Services, new: NewFile, owner_id: str, task_id: str = "", role: str = ""
) -> StoredFile:
    """Make the record of a file whose bytes come next.

    Raises:
        TooLarge: over the limit.
    """
    services.files.check_size(new.size or 0)
    filename = (new.filename or "").replace("\\", "/").rsplit("/", 1)[-1]
    file = StoredFile(
        id=new_id(),
        secret=new_id(),
        owner_id=owner_id,
        filename=filename or "file",
        content_type=new.content_type or DEFAULT_TYPE,
        size=new.size or 0,
        created_ms=int(time.time() * 1000),
        path=new.path or "",
        category=new.category or "",
        task_id=task_id,
        role=role,
    )
    await services.store.files.put(file)
    return file


@post("/files", status_code=200, tags=["files"], summary="Announce uploads")
async def post_files(request: AnyRequest, data: NewFiles) -> Answer:
    """Answers an array of files, each with an `upload_url` that takes its bytes by PUT, without a key."""
    if not 1 <= len(data.files) <= MAX_FILES:
        raise InvalidRequest(
            f"Input validation failed: files: 1 to {MAX_FILES} at a time, not {len(data.files)}"
        )
    services, owner = services_of(request), caller_of(request).owner
    files = [await announce(services, new, owner.user_id) for new in data.files]
    return answer(request, [file_dto(services, file, upload=True) for file in files])


@put(
    "/upload/{file_id:str}",
    status_code=200,
    tags=["files"],
    summary="Upload a file's bytes",
    request_max_body_size=None,
)
async def upload(request: AnyRequest, file_id: str) -> Answer:
    """The address comes from `POST /files` and is signed; it needs no key."""
    services = services_of(request)
    file = await services.store.files.get(file_id)
    query = request.query_params
    services.files.check_upload(file, query.get("expires", ""), query.get("signature", ""))
    size = await services.files.save(file, request.stream())
    stored = structs.replace(file, size=size, uploaded=True)
    await services.store.files.put(stored)
    return answer(request, file_dto(services, stored))


@get("/files/{file_id:str}/{secret:str}/{name:str}", tags=["files"], summary="Download a file")
async def download(request: AnyRequest, file_id: str, secret: str, name: str) -> Stream | Response[None]:  # noqa: ARG001 - the name is for people
    """The `uri` of a file: whoever has it can read it. Ranges and ETags work."""
    services = services_of(request)
    file = await services.store.files.get(file_id)
    if file.secret != secret:
        raise NotFound("File not found")
    headers = {
        "etag": f'"{file.id}"',
        "accept-ranges": "bytes",
        "cache-control": "private, max-age=31536000, immutable",
        "content-disposition": f"inline; filename*=UTF-8''{quote(file.filename, safe='')}",
        # A file of an app must not run as a page of this origin.
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:",
    }
    sent = caller_of(request).headers
    if headers["etag"] in sent.get("if-none-match", ""):
        return Response(content=None, status_code=304, headers=headers)
    handle, size = services.files.open(file_id)
    try:
        wanted = parse_range(sent.get("range", ""), size)
    except InvalidRequest:
        handle.close()
        return Response(content=None, status_code=416, headers=headers | {"content-range": f"bytes */{size}"})
    start, length = wanted or (0, size)
    if wanted:
        headers["content-range"] = f"bytes {start}-{start + length - 1}/{size}"
    headers["content-length"] = str(length)
    body = read_range(handle, start, length)
    return Stream(body, media_type=file.content_type, status_code=206 if wanted else 200, headers=headers)


@post("/files/list", status_code=200, tags=["files"], summary="List files")
async def list_files(request: AnyRequest, data: ListBody) -> Answer:
    """The caller's files, newest first."""
    services, owner = services_of(request), caller_of(request).owner
    offset = int(data.cursor) if data.cursor and data.cursor.isdecimal() else 0
    limit = max(1, min(data.limit, PAGE_LIMIT))
    files = await services.store.files.page(owner.user_id, offset, limit + 1)
    following = str(offset + limit) if len(files) > limit else ""
    items = [file_dto(services, file) for file in files[:limit]]
    return answer(request, page(items, following, data.cursor or "", limit))


async def own_file(request: AnyRequest, file_id: str) -> StoredFile:
    """A file of the caller.

    Raises:
        NotFound: no such file, or somebody else's.
    """
    file = await services_of(request).store.files.get(file_id)
    if file.owner_id != caller_of(request).owner.user_id:
        raise NotFound("File not found")
    return file


@get("/files/{file_id:str}", tags=["files"], summary="Read a file's record")
async def get_file(request: AnyRequest, file_id: str) -> Answer:
    """Name, type, size and address; not the bytes."""
    return answer(request, file_dto(services_of(request), await own_file(request, file_id)))


@delete("/files/{file_id:str}", status_code=200, tags=["files"], summary="Delete a file")
async def delete_file(request: AnyRequest, file_id: str) -> Answer:
    """The record and the bytes."""
    file = await own_file(request, file_id)
    services = services_of(request)
    await services.store.files.delete(file)
    services.files.delete(file.id)
    return answer(request, {"id": file_id, "deleted": True})


ROUTES = [post_files, upload, download, list_files, get_file, delete_file]
