"""Versions of apps: list, read, make current, fetch the code of, delete."""

from litestar import delete, get, post, put
from litestar.response import Stream

from stoker.core.audit import Action
from stoker.core.errors import Conflict, NotFound
from stoker.core.scopes import Scope
from stoker.files import file_key
from stoker_gateway.access import needs
from stoker_gateway.app_dto import app_dto, version_dto
from stoker_gateway.clock import now_ms
from stoker_gateway.door import caller_of
from stoker_gateway.listing import LIST_LIMIT, MAX_LIMIT, ListQuery, plain
from stoker_gateway.numbers import whole
from stoker_gateway.routes.apps import own_app, record_app, save, seen_app
from stoker_gateway.routes.files import begun
from stoker_gateway.services import Answer, AnyRequest, answer, page, services_of


@post("/apps/{app_id:str}/versions/list", status_code=200, tags=["apps"], summary="List an app's versions")
async def list_versions(request: AnyRequest, app_id: str, data: ListQuery | None = None) -> Answer:
    """Newest first."""
    query = plain(data)
    app = await seen_app(request, app_id)
    versions = await services_of(request).store.catalog.versions(app.id)
    start = whole(query.cursor or "") or 0
    limit = max(1, min(query.limit or LIST_LIMIT, MAX_LIMIT))
    following = str(start + limit) if len(versions) > start + limit else ""
    items = [version_dto(version) for version in versions[start : start + limit]]
    return answer(request, page(items, following, limit, len(versions)))


@get("/apps/{app_id:str}/versions/{version_id:str}", tags=["apps"], summary="Read a version")
async def get_version(request: AnyRequest, app_id: str, version_id: str) -> Answer:
    """A version by its id or its first characters: its own fields, and those of its app."""
    app = await seen_app(request, app_id)
    version = await services_of(request).store.catalog.get_version(app.id, version_id)
    # Clients read this answer as a version or as an app with that version; both are there.
    return answer(request, app_dto(app, version) | version_dto(version))


@put("/apps/{app_id:str}/versions/{version_id:str}/current", tags=["apps"], summary="Set the current version")
async def set_current(request: AnyRequest, app_id: str, version_id: str) -> Answer:
    """Runs that name no version use it from now on."""
    app = await own_app(request, app_id)
    version = await services_of(request).store.catalog.get_version(app.id, version_id)
    return await save(request, app, Action.VERSION_USED, version.short_id, current_version_id=version.id)


@get("/apps/{app_id:str}/versions/{version_id:str}/bundle", tags=["apps"], summary="Fetch a version's code")
async def get_code(request: AnyRequest, app_id: str, version_id: str) -> Stream:
    """The files of a version as a tar.gz; for the app's owner."""
    app = await own_app(request, app_id)
    services = services_of(request)
    version = await services.store.catalog.get_version(app.id, version_id)
    if not version.bundle_file_id:
        raise NotFound(
            f"{app.namespace}/{app.name} is a flow and has no code. Read the flow: GET /flows/{version.flow and version.flow.flow_id}"
        )
    key = file_key(version.bundle_file_id)
    size = await services.blobs.size(key)
    headers = {"etag": f'"{version.id}"', "content-length": str(size)}
    return Stream(await begun(services.blobs.get(key)), media_type="application/gzip", headers=headers)


@delete(
    "/apps/{app_id:str}/versions/{version_id:str}", status_code=200, tags=["apps"], summary="Delete a version"
)
async def delete_version(request: AnyRequest, app_id: str, version_id: str) -> Answer:
    """Forget a version that is not current; tasks that were accepted still run on it."""
    app = await own_app(request, app_id)
    services = services_of(request)
    version = await services.store.catalog.get_version(app.id, version_id)
    if version.id == app.current_version_id:
        raise Conflict(
            f"Version {version.short_id} is the current one of {app.namespace}/{app.name}. "
            "Make another one current first, or delete the app."
        )
    await services.store.catalog.delete_version(version, now_ms())
    services.registry.forget()
    await services.pinner.forget(app, caller_of(request).actor, version.id)
    await record_app(request, Action.VERSION_DELETED, app, version=version.short_id)
    return answer(request, {"id": version.id, "deleted": True})


ROUTES = [
    *needs(Scope.APPS_READ, list_versions, get_version, get_code),
    *needs(Scope.APPS_WRITE, set_current, delete_version),
]
