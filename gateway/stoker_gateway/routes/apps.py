"""Apps and their versions."""

import time
from typing import Any

import msgspec
from litestar import delete, get, post, put
from msgspec import Struct

from stoker.core.errors import Conflict, InvalidRequest, NotFound
from stoker.core.ids import new_id, short_id
from stoker.core.messages import (
    App,
    AppFunction,
    AppVersion,
    GpuType,
    IntegrationNeed,
    Needs,
    SecretNeed,
)
from stoker.core.refs import parse_ref
from stoker.core.requirements import check_name, wanted
from stoker_gateway.door import caller_of
from stoker_gateway.dto import iso
from stoker_gateway.registry import visible
from stoker_gateway.routes.tasks import ListBody
from stoker_gateway.services import Answer, AnyRequest, answer, page, services_of

VISIBILITIES = ("private", "public", "unlisted")


class GpuResources(Struct, frozen=True, kw_only=True):
    """GPUs that an app needs; `vram` in bytes."""

    count: int = 0
    vram: int = 0
    type: str = "none"


class Resources(Struct, frozen=True, kw_only=True):
    """What an app needs; `ram` in bytes."""

    gpu: GpuResources = GpuResources()
    ram: int = 0


class NewVersion(Struct, kw_only=True):
    """A version to register. Its bundle was uploaded before."""

    id: str
    bundle_file_id: str
    kernel: str = "python-3.11"
    functions: dict[str, AppFunction] = {}
    default_function: str = "run"
    setup_schema: dict[str, Any] = {}
    env: dict[str, str] = {}
    env_key: str = ""
    resources: Resources = Resources()
    secrets: list[SecretNeed | str] = []
    integrations: list[IntegrationNeed | str] = []
    required_secrets: list[SecretNeed | str] = []
    required_integrations: list[IntegrationNeed | str] = []
    metadata: dict[str, Any] = {}


class NewApp(Struct, kw_only=True):
    """An app to register, or a new version of one."""

    name: str
    namespace: str = "local"
    title: str = ""
    description: str = ""
    category: str = "other"
    images: dict[str, str] = {}
    visibility: str = ""
    version: NewVersion | None = None
    preserve_current_version: bool = False


class VisibilityBody(Struct, kw_only=True):
    """Who may see an app."""

    visibility: str


@post("/apps", status_code=200, tags=["apps"], summary="Register an app or a version of it")
async def put_app(request: AnyRequest, data: NewApp) -> Answer:
    """Make an app, or add a version to one, and set that version current.

    `stoker apps deploy` packs, builds and uploads what this call refers to.
    """
    services, owner = services_of(request), caller_of(request).owner
    parse_ref(f"{data.namespace}/{data.name}")
    if data.visibility not in {"", *VISIBILITIES}:
        raise InvalidRequest(f"Input validation failed: visibility: it may be {', '.join(VISIBILITIES)}")
    catalog, now = services.store.catalog, int(time.time() * 1000)
    app = await catalog.find_app(data.namespace, data.name)
    if app is not None and app.owner_id != owner.user_id:
        raise Conflict(
            f"The name {data.namespace}/{data.name} belongs to somebody else. Choose another namespace."
        )
    app_id = app.id if app else new_id()
    app = App(
        id=app_id,
        short_id=short_id(app_id),
        namespace=data.namespace,
        name=data.name,
        owner_id=owner.user_id,
        visibility=data.visibility or (app.visibility if app else "private"),
        title=data.title,
        description=data.description,
        category=data.category,
        images=data.images,
        current_version_id=app.current_version_id if app else "",
        created_ms=app.created_ms if app else now,
        updated_ms=now,
    )
    if data.version is not None:
        bundle = await services.store.files.get(data.version.bundle_file_id)
        if bundle.owner_id != owner.user_id or not bundle.uploaded:
            raise InvalidRequest(
                "Input validation failed: version.bundle_file_id: upload the bundle first (POST /files)"
            )
        await catalog.put_version(stored_version(app_id, data.version, bundle.size, now))
        if not data.preserve_current_version:
            app = msgspec.structs.replace(app, current_version_id=data.version.id)
    await catalog.put_app(app)
    services.registry.forget()
    return answer(request, await app_dto(request, app))


def stored_version(app_id: str, new: NewVersion, bundle_bytes: int, now_ms: int) -> AppVersion:
    """A version as it is kept.

    Raises:
        InvalidRequest: an unknown GPU type, or a secret that cannot be one.
    """
    secrets = tuple(
        SecretNeed(key=need) if isinstance(need, str) else need
        for need in (*new.secrets, *new.required_secrets)
    )
    integrations = tuple(
        IntegrationNeed(key=need) if isinstance(need, str) else need
        for need in (*new.integrations, *new.required_integrations)
    )
    for need in wanted(secrets, integrations):
        check_name(need.key, "version.secrets")
    gpu = new.resources.gpu
    try:
        gpu_type = GpuType(gpu.type or GpuType.NONE)
    except ValueError as error:
        raise InvalidRequest(
            f"Input validation failed: version.resources.gpu.type: {gpu.type!r} is unknown; it may be {', '.join(GpuType)}"
        ) from error
    return AppVersion(
        id=new.id,
        short_id=short_id(new.id),
        app_id=app_id,
        created_ms=now_ms,
        kernel=new.kernel,
        functions=new.functions,
        default_function=new.default_function,
        setup_schema=new.setup_schema,
        env=new.env,
        needs=Needs(gpu_count=gpu.count, gpu_type=gpu_type, vram_bytes=gpu.vram, ram_bytes=new.resources.ram),
        secrets=secrets,
        integrations=integrations,
        env_key=new.env_key,
        bundle_file_id=new.bundle_file_id,
        bundle_bytes=bundle_bytes,
        metadata=new.metadata,
    )


async def app_dto(request: AnyRequest, app: App, *, with_version: bool = True) -> dict[str, Any]:
    """An app as clients read it, with its current version."""
    version = None
    if with_version and app.current_version_id:
        version = version_dto(
            await services_of(request).store.catalog.get_version(app.id, app.current_version_id)
        )
    return {
        "id": app.id,
        "short_id": app.short_id,
        "created_at": iso(app.created_ms),
        "updated_at": iso(app.updated_ms),
        "user_id": app.owner_id,
        "visibility": app.visibility,
        "namespace": app.namespace,
        "name": app.name,
        "title": app.title,
        "description": app.description,
        "category": app.category,
        "images": app.images,
        "version_id": app.current_version_id or None,
        "version": version,
    }


def version_dto(version: AppVersion) -> dict[str, Any]:
    """A version as clients read it."""
    needs, default = version.needs, version.functions.get(version.default_function)
    return {
        "id": version.id,
        "short_id": version.short_id,
        "created_at": iso(version.created_ms),
        "app_id": version.app_id,
        "kernel": version.kernel,
        "functions": version.functions,
        "default_function": version.default_function,
        "setup_schema": version.setup_schema,
        "input_schema": default.input_schema if default else {},
        "output_schema": default.output_schema if default else {},
        "env": version.env,
        "resources": {
            "gpu": {"count": needs.gpu_count, "vram": needs.vram_bytes, "type": needs.gpu_type},
            "ram": needs.ram_bytes,
        },
        "required_secrets": version.secrets,
        "required_integrations": version.integrations,
        "checksum": version.id,
        "metadata": version.metadata,
    }


async def seen_app(request: AnyRequest, app_id: str) -> App:
    """An app that the caller may see.

    Raises:
        NotFound: no such app for this caller.
    """
    app = await services_of(request).store.catalog.get_app(app_id)
    if not visible(app, caller_of(request).owner.user_id):
        raise NotFound("App not found")
    return app


async def own_app(request: AnyRequest, app_id: str) -> App:
    """An app that the caller may change.

    Raises:
        NotFound: no such app of this caller.
    """
    app = await seen_app(request, app_id)
    if app.owner_id != caller_of(request).owner.user_id:
        raise NotFound("App not found")
    return app


@post("/apps/list", status_code=200, tags=["apps"], summary="List apps")
async def list_apps(request: AnyRequest, data: ListBody) -> Answer:  # noqa: ARG001 - the catalogue is one page
    """The apps that the caller may run, by name."""
    return answer(request, await apps_page(request))


@get("/apps", tags=["apps"], summary="List apps")
async def get_apps(request: AnyRequest) -> Answer:
    """The same."""
    return answer(request, await apps_page(request))


async def apps_page(request: AnyRequest) -> dict[str, Any]:
    user_id = caller_of(request).owner.user_id
    apps = [app for app in await services_of(request).store.catalog.list_apps() if visible(app, user_id)]
    return page([await app_dto(request, app) for app in apps])


@get("/apps/{app_id:str}", tags=["apps"], summary="Read an app")
async def get_app(request: AnyRequest, app_id: str) -> Answer:
    """An app with its current version and the schemas of its functions."""
    return answer(request, await app_dto(request, await seen_app(request, app_id)))


@get("/apps/{namespace:str}/{name:str}", tags=["apps"], summary="Read an app by its name")
async def get_app_by_name(request: AnyRequest, namespace: str, name: str) -> Answer:
    """The same, by namespace and name."""
    app = await services_of(request).store.catalog.find_app(namespace, name)
    if app is None or not visible(app, caller_of(request).owner.user_id):
        raise NotFound("App not found")
    return answer(request, await app_dto(request, app))


@delete("/apps/{app_id:str}", status_code=200, tags=["apps"], summary="Delete an app")
async def delete_app(request: AnyRequest, app_id: str) -> Answer:
    """Forget an app and its versions; tasks that were accepted still run."""
    app = await own_app(request, app_id)
    await services_of(request).store.catalog.delete_app(app)
    services_of(request).registry.forget()
    return answer(request, {"id": app_id, "deleted": True})


@post("/apps/{app_id:str}/visibility", status_code=200, tags=["apps"], summary="Set who may see an app")
async def set_visibility(request: AnyRequest, app_id: str, data: VisibilityBody) -> Answer:
    """`private`, `public` or `unlisted`."""
    if data.visibility not in VISIBILITIES:
        raise InvalidRequest(f"Input validation failed: visibility: it may be {', '.join(VISIBILITIES)}")
    app = msgspec.structs.replace(await own_app(request, app_id), visibility=data.visibility)
    await services_of(request).store.catalog.put_app(app)
    services_of(request).registry.forget()
    return answer(request, await app_dto(request, app))


@post("/apps/{app_id:str}/versions/list", status_code=200, tags=["apps"], summary="List an app's versions")
async def list_versions(request: AnyRequest, app_id: str) -> Answer:
    """Newest first."""
    await seen_app(request, app_id)
    return answer(
        request, page([version_dto(v) for v in await services_of(request).store.catalog.versions(app_id)])
    )


@get("/apps/{app_id:str}/versions/{version_id:str}", tags=["apps"], summary="Read a version")
async def get_version(request: AnyRequest, app_id: str, version_id: str) -> Answer:
    """A version by its id or its first characters."""
    await seen_app(request, app_id)
    return answer(
        request, version_dto(await services_of(request).store.catalog.get_version(app_id, version_id))
    )


@put("/apps/{app_id:str}/versions/{version_id:str}/current", tags=["apps"], summary="Set the current version")
async def set_current(request: AnyRequest, app_id: str, version_id: str) -> Answer:
    """Runs that name no version use it from now on."""
    catalog = services_of(request).store.catalog
    app = await own_app(request, app_id)
    version = await catalog.get_version(app_id, version_id)
    app = msgspec.structs.replace(app, current_version_id=version.id, updated_ms=int(time.time() * 1000))
    await catalog.put_app(app)
    services_of(request).registry.forget()
    return answer(request, await app_dto(request, app))


ROUTES = [
    put_app,
    list_apps,
    get_apps,
    get_app,
    get_app_by_name,
    delete_app,
    set_visibility,
    list_versions,
    get_version,
    set_current,
]
