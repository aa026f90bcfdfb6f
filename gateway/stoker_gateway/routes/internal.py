"""What a worker may ask while it runs a task. The key is the secret of the attempt, good for that task alone."""

import asyncio

from litestar import Request, get, post, put
from litestar.response import Stream
from msgspec import Struct

from stoker.core.errors import NotFound, Unauthorized
from stoker.core.logs import CHUNK_LIMIT_BYTES, check_chunk
from stoker.core.messages import TaskId, TaskView
from stoker.core.pins import LoadGrant, is_load
from stoker.files import file_key
from stoker.files.logs import log_key, one
from stoker_gateway.access import open_to_all
from stoker_gateway.door import caller_of
from stoker_gateway.enrolment import ENGINE_HEADER
from stoker_gateway.file_records import NewFile, announce, file_dto
from stoker_gateway.log_reader import unpack
from stoker_gateway.routes.files import begun
from stoker_gateway.services import JSON, Answer, AnyRequest, services_of

_ = Request  # litestar resolves the annotation of handlers at import


class OutputFile(Struct, kw_only=True):
    """A file of a result; `field` is its place in the output."""

    filename: str
    content_type: str = ""
    size: int = 0
    field: str = ""


class OutputFiles(Struct, kw_only=True):
    """The files of one result."""

    files: list[OutputFile]


async def attempt_task(request: AnyRequest, task_id: str) -> TaskView:
    """The task whose present attempt's token came, from the engine that has it.

    Raises:
        Unauthorized: another attempt's, or none; or another engine's.
    """
    view = await services_of(request).store.tasks.check_token(TaskId(task_id), bearer_token(request))
    await check_engine(request, view.engine_id)
    return view


async def load_grant(request: AnyRequest, load_id: str) -> LoadGrant:
    """What may be given for the order to load whose secret came, from the engine that has it.

    Raises:
        Unauthorized: another order's, or none; or another engine's.
    """
    grant = await services_of(request).store.pins.check(load_id, bearer_token(request))
    await check_engine(request, grant.engine_id)
    return grant


async def check_engine(request: AnyRequest, engine_id: str) -> None:
    """Whether an engine that was enrolled showed its key.

    Raises:
        Unauthorized: it did not.
    """
    header = caller_of(request).headers.get(ENGINE_HEADER, "")
    await services_of(request).enroller.check(engine_id, header)


def bearer_token(request: AnyRequest) -> str:
    """The secret of an attempt that came.

    Raises:
        Unauthorized: none came.
    """
    scheme, _, token = caller_of(request).headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise Unauthorized("This attempt does not own the task")
    return token


@get("/internal/tasks/{task_id:str}/bundle", include_in_schema=False)
async def get_bundle(request: AnyRequest, task_id: str) -> Stream:
    """The code of the app version of a task, or of an order to load, as a tar.gz."""
    services = services_of(request)
    if is_load(task_id):
        grant = await load_grant(request, task_id)
        name, app_id, version_id = grant.app, grant.app_id, grant.version_id
    else:
        task = (await attempt_task(request, task_id)).request
        name, app_id = task.app, task.app_id
        version_id = await services.store.tasks.version_id(
            TaskId(task_id)
        )  # the request itself lies where engines write
    version = await services.store.catalog.code_of(app_id, version_id)
    if not version.bundle_file_id:
        raise NotFound(f"The code of {name} is not stored; deploy it again")
    key = file_key(version.bundle_file_id)
    size = await services.blobs.size(key)
    headers = {"etag": f'"{version.id}"', "content-length": str(size)}
    return Stream(await begun(services.blobs.get(key)), media_type="application/gzip", headers=headers)


@post("/internal/tasks/{task_id:str}/files", status_code=200, include_in_schema=False)
async def post_outputs(request: AnyRequest, task_id: str, data: OutputFiles) -> Answer:
    """Announce the files of a result; answers their upload and download addresses."""
    view = await attempt_task(request, task_id)
    services = services_of(request)
    owner = await services.store.tasks.owner(TaskId(task_id))
    slots = []
    for new in data.files:
        entry = NewFile(filename=new.filename, content_type=new.content_type, size=new.size, path=new.field)
        file = await announce(services, entry, owner.user_id, task_id, view.attempt)
        slots.append(file_dto(services, file, upload=True))
    return Answer(content=request.app.state.encode(slots), media_type=JSON)


@get("/internal/tasks/{task_id:str}/secrets", include_in_schema=False)
async def get_values(request: AnyRequest, task_id: str) -> Answer:
    """The variables for the instance that is started for this task, or this order to load: name -> value.

    What may be given was decided when the task or the pin was accepted, and lies where no engine can write.
    """
    services = services_of(request)
    if is_load(task_id):
        grant = await load_grant(request, task_id)
        owner, key = grant.owner, grant.setup_key
    else:
        key = (await attempt_task(request, task_id)).request.setup_key
        owner = await services.store.tasks.owner(TaskId(task_id))
    values = await services.secrets.values_for(task_id, owner, key)
    body = request.app.state.encode(values)
    return Answer(content=body, media_type=JSON, headers={"cache-control": "no-store"})


@put(
    "/internal/tasks/{task_id:str}/logs/{attempt:int}/{first:int}",
    status_code=200,
    include_in_schema=False,
    request_max_body_size=CHUNK_LIMIT_BYTES,
)
async def put_log(request: AnyRequest, task_id: str, attempt: int, first: int) -> Answer:
    """Store a chunk of an attempt's log, also after the attempt's end. A repeat replaces the chunk by itself."""
    services, task, token = services_of(request), TaskId(task_id), bearer_token(request)
    await check_engine(request, await services.store.logs.check(task, attempt, token))
    packed = await request.body()
    chunk = await asyncio.to_thread(lambda: check_chunk(unpack(packed), first))
    key = log_key(task, attempt, first)
    await services.blobs.put(key, one(packed))
    try:
        await services.store.logs.keep(task, attempt, token, chunk)
    except NotFound:  # deleted meanwhile
        await services.blobs.delete(key)
        raise
    return Answer(content=b"{}", media_type=JSON)


ROUTES = open_to_all(get_bundle, post_outputs, get_values, put_log)
