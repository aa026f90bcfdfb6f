"""Announcing files, and taking their bytes: PUT for a whole file, HEAD and PATCH to go on (tus 1.0.0)."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Final

from litestar import Response, head, patch, post, put
from litestar.exceptions import InternalServerException
from msgspec import Struct, structs

from stoker.core.errors import CallerError, Conflict, Forbidden, InvalidRequest, NotFound
from stoker.core.messages import StoredFile, TaskId
from stoker.core.scopes import Scope
from stoker.core.states import ON_ENGINE
from stoker.files import file_key
from stoker.protocol import Store
from stoker.runs.file_uses import OUTPUT
from stoker_gateway.access import needs, open_to_all
from stoker_gateway.door import caller_of
from stoker_gateway.file_records import NewFile, announce, file_dto, type_of
from stoker_gateway.numbers import whole
from stoker_gateway.services import Answer, AnyRequest, Services, answer, services_of
from stoker_gateway.uploads import UploadBroken, check_address, check_announced

MAX_FILES: Final = 100
TUS_VERSION: Final = "1.0.0"
TUS_TYPE: Final = "application/offset+octet-stream"
IDLE_S: Final = 60.0
"""How long a sender may be silent; then its connection counts as broken, and it may go on with another."""


class UnsupportedMediaType(CallerError):
    """PATCH takes Content-Type application/offset+octet-stream alone (tus 1.0.0)."""

    code = "unsupported_media_type"
    http = 415


class UnsupportedVersion(CallerError):
    """This server speaks tus 1.0.0 alone."""

    code = "unsupported_version"
    http = 412


class NewFiles(Struct, kw_only=True):
    """The files of one request."""

    files: list[NewFile]


@post("/files", status_code=200, tags=["files"], summary="Announce uploads")
async def post_files(request: AnyRequest, data: NewFiles) -> Answer:
    """Answers an array of files, each with an `upload_url` that takes its bytes by PUT, without a key.

    The address expires. It is good for the announced `size` and `content_type` alone.
    """
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
    """The whole file in one request. The address comes from `POST /files`; it needs no key.

    After a connection that broke, HEAD tells how many bytes are here, and PATCH goes on from there.
    """
    file = await _addressed(request, file_id)
    services, sent = services_of(request), caller_of(request).headers
    content_type = sent.get("content-type", "")
    if file.uploaded:
        raise Conflict("The file is uploaded already. POST /files gives an address for another one.")
    check_announced(file, content_type, sent.get("content-length", ""))
    limit = file.size if file.size >= 0 else services.settings.max_upload_bytes
    services.uploads.check_size(whole(sent.get("content-length", "")) or 0)
    size = await services.uploads.write(file, 0, _body(request), limit=limit)
    if file.size not in {size, -1}:
        services.uploads.drop(file.id)
        raise InvalidRequest(f"{size} bytes came, {file.size} were announced. Send the file again.")
    if not file.content_type:
        file = structs.replace(file, content_type=content_type)
    stored = await complete(services, file, size)
    return answer(request, file_dto(services, stored))


@head("/upload/{file_id:str}", tags=["files"], summary="How far an upload is")
async def upload_offset(request: AnyRequest, file_id: str) -> Response[None]:
    """`Upload-Offset` bytes of `Upload-Length` are here (tus 1.0.0)."""
    file = await _addressed(request, file_id)
    services = services_of(request)
    offset = file.size if file.uploaded else await services.uploads.offset(file)
    if (
        not file.uploaded and offset == file.size
    ):  # an earlier request wrote all, and went down before the end
        if not offset:
            await services.uploads.write(file, 0, _nothing(), limit=0)
        await complete(services, file, offset)
    length = {"upload-length": str(file.size)} if file.size >= 0 else {"upload-defer-length": "1"}
    headers = {
        "cache-control": "no-store",
        "upload-offset": str(offset),
        "tus-resumable": TUS_VERSION,
    } | length
    return Response(content=None, status_code=200, headers=headers)


@patch(
    "/upload/{file_id:str}",
    status_code=204,
    tags=["files"],
    summary="Go on with an upload",
    request_max_body_size=None,
)
async def continue_upload(request: AnyRequest, file_id: str) -> Response[None]:
    """More bytes from `Upload-Offset` on, which HEAD tells (tus 1.0.0). The last ones complete the file."""
    file = await _addressed(request, file_id)
    services, sent = services_of(request), caller_of(request).headers
    _check_tus(sent.get("tus-resumable", TUS_VERSION), sent.get("content-type", ""))
    offset = whole(sent.get("upload-offset", ""))
    if offset is None:
        raise InvalidRequest(
            f"Upload-Offset is {sent.get('upload-offset', '')[:40]!r}; it must be the number of bytes that HEAD tells."
        )
    if file.size < 0:
        raise InvalidRequest(
            "The size was not announced. Announce the file again, with its size, or use PUT."
        )
    if file.uploaded:
        raise Conflict(f"The file is uploaded already; Upload-Offset is {file.size}.", offset=file.size)
    if offset + (whole(sent.get("content-length", "")) or 0) > file.size:
        raise InvalidRequest(
            f"Content-Length leads beyond the {file.size} bytes that were announced. Send what is missing."
        )
    size = await services.uploads.write(file, offset, _body(request), limit=file.size)
    if size == file.size:
        await complete(services, file, size)
    headers = {"upload-offset": str(size), "tus-resumable": TUS_VERSION}
    return Response(content=None, status_code=204, headers=headers)


def _check_tus(version: str, content_type: str) -> None:
    if version != TUS_VERSION:
        raise UnsupportedVersion(f"Tus-Resumable is '{version}'. This server speaks tus {TUS_VERSION} alone.")
    if content_type != TUS_TYPE:
        raise UnsupportedMediaType(f"Content-Type is '{content_type}'; PATCH takes {TUS_TYPE} alone.")


async def _addressed(request: AnyRequest, file_id: str) -> StoredFile:
    """The file that an upload address is for.

    Raises:
        NotFound: it was deleted.
        Forbidden: the address is not one of ours, or has expired.
    """
    store, query = services_of(request).store, request.query_params
    file = await store.files.get(file_id)
    until_s = check_address(file, query.get("expires", ""), query.get("signature", ""))
    if until_s < time.time() and not await _is_awaited(store, file):
        raise Forbidden("The upload address has expired. POST /files gives a new one.")
    return file


async def _is_awaited(store: Store, file: StoredFile) -> bool:
    """Whether a file is an output, and its attempt goes on: storing a result may take longer than an address is good."""
    if file.role != OUTPUT:
        return False
    [standing] = await store.files.standings([TaskId(file.task_id)])
    return standing is not None and standing.attempt == file.attempt and standing.state in ON_ENGINE


async def complete(services: Services, file: StoredFile, size: int) -> StoredFile:
    """Make a whole file readable: its bytes go into the store first, then its record says so.

    Raises:
        NotFound: it was deleted meanwhile.
        Conflict: another request completed it meanwhile, or writes it anew; a file never changes.
        FilesUnavailable: the store does not take it now; HEAD on the upload address tries again.
    """
    if (await services.store.files.get(file.id)).uploaded:
        services.uploads.drop(file.id)
        raise Conflict("The file is uploaded already. POST /files gives an address for another one.")
    digest = await services.uploads.finish(file, size)
    try:
        present = await services.store.files.get(file.id)
    except NotFound:
        await services.blobs.delete(file_key(file.id))
        raise
    stored = structs.replace(present, size=size, content_type=type_of(file), uploaded=True, sha256=digest)
    await services.store.files.put(stored)
    return stored


async def _nothing() -> AsyncIterator[bytes]:
    """The bytes of an empty file: it is whole from the start."""
    return
    yield


async def _body(request: AnyRequest) -> AsyncIterator[bytes]:
    """The bytes of a request as they come.

    Raises:
        UploadBroken: the connection ended, or was silent for `IDLE_S`.
    """
    chunks = request.stream()
    try:
        while True:
            async with asyncio.timeout(IDLE_S):
                chunk = await anext(chunks)
            yield chunk
    except StopAsyncIteration:
        return
    except TimeoutError as error:
        raise UploadBroken(f"No bytes came for {IDLE_S:g} s.") from error
    except InternalServerException as error:  # what the framework makes of a connection that ended
        raise UploadBroken from error


ROUTES = [
    *needs(Scope.FILES_WRITE, post_files),
    *open_to_all(upload, upload_offset, continue_upload),
]
