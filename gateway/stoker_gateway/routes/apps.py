"""Apps: list, read, register, change, delete. Their versions: `routes/versions.py`."""

import asyncio
from typing import Any

from litestar import delete, get, post
from msgspec import Struct, structs

from stoker.core.apps import App, AppVersion
from stoker.core.audit import Action
from stoker.core.errors import InvalidRequest, NotFound
from stoker.core.ids import new_id, short_id
from stoker.core.limits import BadLimit, read_keep_alive
from stoker.core.scopes import Scope
from stoker.protocol.catalog import Catalog
from stoker.runs.registry import listed, visible
from stoker_gateway.access import needs
from stoker_gateway.app_dto import app_dto, license_dto
from stoker_gateway.clock import now_ms
from stoker_gateway.door import caller_of
from stoker_gateway.listing import LIST_LIMIT, MAX_LIMIT, ListQuery, plain, term_of
from stoker_gateway.registration import AppChange, NewApp
from stoker_gateway.routes.audit import record
from stoker_gateway.services import Answer, AnyRequest, answer, page, services_of

STATUSES = ("active", "maintenance", "deprecated", "retired")
COPIES = 100
"""Names that a copy of an app may try: echo-copy, echo-copy-2 ..."""


class VisibilityBody(Struct, kw_only=True):
    """Who may see an app."""

    visibility: str


class StatusBody(Struct, kw_only=True):
    """Whether an app is in service, and what to tell who runs it."""

    status: str
    message: str | None = None


class KeepAliveBody(Struct, kw_only=True):
    """Seconds after its last task for which an instance of an app stays loaded; null = what its inf.yml says."""

    seconds: float | None


class TransferBody(Struct, kw_only=True):
    """Who is to own an app."""

    team_id: str


class LicenseBody(Struct, kw_only=True):
    """The text that users of an app agree to."""

    license: str


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


async def current_version(catalog: Catalog, app: App) -> AppVersion | None:
    """The version that runs when none is named; None where there is none."""
    if not app.current_version_id:
        return None
    try:
        return await catalog.get_version(app.id, app.current_version_id)
    except NotFound:
        return None  # removed a moment ago


async def app_answer(request: AnyRequest, app: App, messages: tuple[object, ...] | list[Any] = ()) -> Answer:
    """An app with its current version."""
    version = await current_version(services_of(request).store.catalog, app)
    return answer(request, app_dto(app, version), messages)


async def save(request: AnyRequest, app: App, action: Action, detail: str = "", **changes: object) -> Answer:
    """Store a changed app, record that, and answer it."""
    app = structs.replace(app, updated_ms=now_ms(), **changes)
    await services_of(request).store.catalog.put_app(app)
    services_of(request).registry.forget()
    if not changes.keys().isdisjoint(("current_version_id", "keep_alive_s")):
        await services_of(request).pinner.settle(app)
    await record_app(request, action, app, change=detail)
    return await app_answer(request, app)


async def record_app(request: AnyRequest, action: Action, app: App, **detail: object) -> None:
    """Record a change of an app under its reference and id."""
    await record(request, action, ref_of(app), id=app.id, **detail)


@post("/apps", status_code=200, tags=["apps"], summary="Register an app or a version of it")
async def put_app(request: AnyRequest, data: NewApp) -> Answer:
    """Make an app, or change one, and add a version that is current from then on.

    With `preserve_current_version` the current one stays. `stoker apps deploy` packs, builds and uploads what this call refers to. The bundle is read again here: what
    it holds decides, and what is declared differently is refused.
    """
    services = services_of(request)
    app, version, messages = await services.registrar.register(data, caller_of(request).owner)
    services.registry.forget()
    await _record_change(request, app, version)
    return await app_answer(request, app, messages)


@post("/apps/{app_id:str}", status_code=200, tags=["apps"], summary="Change an app")
async def change_app(request: AnyRequest, app_id: str, data: AppChange) -> Answer:
    """Title, description, images and so on; what is left out stays."""
    return await _change(request, app_id, data)


async def _change(request: AnyRequest, app_id: str, data: AppChange) -> Answer:
    services = services_of(request)
    before = await own_app(request, app_id)
    app, version, messages = await services.registrar.change(before, data)
    services.registry.forget()
    await _record_change(request, app, version, before)
    return await app_answer(request, app, messages)


async def _record_change(
    request: AnyRequest, app: App, version: AppVersion | None, before: App | None = None
) -> None:
    if before is not None and before.visibility != app.visibility:
        await record_app(request, Action.APP_VISIBILITY, app, visibility=app.visibility)
        if version is None:
            return
    if version is not None:
        await services_of(request).pinner.settle(app)
    action = Action.APP_DEPLOYED if version is not None else Action.APP_CHANGED
    short = version.short_id if version is not None else ""
    await record_app(request, action, app, version=short, visibility=app.visibility)


@post("/apps/list", status_code=200, tags=["apps"], summary="List apps")
async def list_apps(request: AnyRequest, data: ListQuery | None = None) -> Answer:
    """The caller's apps and the public ones, by name; `search` looks into names and descriptions."""
    query = plain(data, searched=True)
    page_limit = query.limit or LIST_LIMIT
    return answer(request, await apps_page(request, query.cursor or "", page_limit, term_of(query)))


@get("/apps", tags=["apps"], summary="List apps")
async def get_apps(request: AnyRequest, cursor: str = "", limit: int = MAX_LIMIT) -> Answer:
    """The same."""
    return answer(request, await apps_page(request, cursor, limit, ""))


async def apps_page(request: AnyRequest, cursor: str, limit: int, term: str) -> dict[str, Any]:
    """One page of apps; the cursor is the name of the last one."""
    catalog, user_id = services_of(request).store.catalog, caller_of(request).owner.user_id
    apps = [
        app
        for app in await catalog.list_apps()
        if listed(app, user_id) and term in f"{ref_of(app)} {app.title} {app.description}".lower()
    ]
    limit = max(1, min(limit, MAX_LIMIT))
    rest = behind(apps, cursor)
    shown = rest[:limit]
    versions = await asyncio.gather(*(current_version(catalog, app) for app in shown))
    following = ref_of(shown[-1]) if len(rest) > limit else ""
    items = [app_dto(app, version) for app, version in zip(shown, versions, strict=True)]
    return page(items, following, limit, len(apps))


def behind(apps: list[App], cursor: str) -> list[App]:
    """The apps after the one that a cursor names, compared as the catalogue sorts: in a text "-" is before "/"."""
    namespace, _, name = cursor.partition("/")
    return [app for app in apps if (app.namespace, app.name) > (namespace, name)]


def ref_of(app: App) -> str:
    return f"{app.namespace}/{app.name}"


@get("/apps/{app_id:str}", tags=["apps"], summary="Read an app")
async def get_app(request: AnyRequest, app_id: str) -> Answer:
    """An app with its current version, by its id or by its name where that is unique."""
    services = services_of(request)
    try:
        return await app_answer(request, await seen_app(request, app_id))
    except NotFound:
        app = await services.registry.app_named(app_id, caller_of(request).owner.user_id)
        return await app_answer(request, app)


@get("/apps/{namespace:str}/{name:str}", tags=["apps"], summary="Read an app by its name")
async def get_app_by_name(request: AnyRequest, namespace: str, name: str) -> Answer:
    """The same, by namespace and name."""
    registry = services_of(request).registry
    return await app_answer(
        request, await registry.app_named(f"{namespace}/{name}", caller_of(request).owner.user_id)
    )


@delete("/apps/{app_id:str}", status_code=200, tags=["apps"], summary="Delete an app")
async def delete_app(request: AnyRequest, app_id: str) -> Answer:
    """Forget an app and its versions; tasks that were accepted still run, and the code goes when they have."""
    app = await own_app(request, app_id)
    await services_of(request).store.catalog.delete_app(app, now_ms())
    services_of(request).registry.forget()
    await services_of(request).pinner.forget(app, caller_of(request).actor)
    await record_app(request, Action.APP_DELETED, app)
    return answer(request, {"id": app_id, "deleted": True})


@post("/apps/{app_id:str}/duplicate", status_code=200, tags=["apps"], summary="Copy an app")
async def duplicate_app(request: AnyRequest, app_id: str) -> Answer:
    """A private app of the caller with the current version of this one, under a name that is free."""
    services, owner = services_of(request), caller_of(request).owner
    app = await own_app(request, app_id)
    version = await current_version(services.store.catalog, app)
    now, copy_id = now_ms(), new_id()
    if version is not None:
        copied = structs.replace(version, app_id=copy_id, created_ms=now)
        await services.store.catalog.put_version(copied)
    for number in range(1, COPIES + 1):
        copy = structs.replace(
            app,
            id=copy_id,
            short_id=short_id(copy_id),
            name=f"{app.name}-copy" + (f"-{number}" if number > 1 else ""),
            owner_id=owner.user_id,
            visibility="private",
            created_ms=now,
            updated_ms=now,
        )
        if await services.store.catalog.add_app(copy) == copy_id:
            services.registry.forget()
            await services.pinner.settle(copy)
            await record_app(request, Action.APP_COPIED, copy, source=ref_of(app))
            return await app_answer(request, copy)
    if version is not None:
        await services.store.catalog.delete_version(copied, now)
    raise InvalidRequest(f"{ref_of(app)} has {COPIES} copies already. Remove some.")


@post("/apps/{app_id:str}/visibility", status_code=200, tags=["apps"], summary="Set who may see an app")
async def set_visibility(request: AnyRequest, app_id: str, data: VisibilityBody) -> Answer:
    """`private`: its owner; `unlisted`: whoever knows its name; `public`: all."""
    if not data.visibility:
        raise InvalidRequest("Input validation failed: visibility: it may be private, public or unlisted")
    return await _change(request, app_id, AppChange(visibility=data.visibility))


@post("/apps/{app_id:str}/status", status_code=200, tags=["apps"], summary="Set an app's status")
async def set_status(request: AnyRequest, app_id: str, data: StatusBody) -> Answer:
    """`active`; `deprecated`: runs, and says so; `maintenance` and `retired`: no new runs, with the message."""
    if data.status not in STATUSES:
        raise InvalidRequest(
            f"Input validation failed: status: {data.status!r} is unknown; it may be {', '.join(STATUSES)}"
        )
    return await save(
        request,
        await own_app(request, app_id),
        Action.APP_CHANGED,
        f"status: {data.status}",
        status=data.status,
        status_message=data.message or "",
        status_changed_ms=now_ms(),
    )


@post(
    "/apps/{app_id:str}/keep-alive",
    status_code=200,
    tags=["apps"],
    summary="Set how long an app stays loaded",
)
async def set_keep_alive(request: AnyRequest, app_id: str, data: KeepAliveBody) -> Answer:
    """`seconds` after its last task an instance is unloaded: 0 = at once, null = what `keep_alive` in inf.yml says.

    Where neither says anything, it stays until its room is wanted (or for the setting `idle_unload_s`).
    """
    app = await own_app(request, app_id)
    try:
        keep_alive_s = read_keep_alive(data.seconds)
    except BadLimit as error:
        raise InvalidRequest(f"Input validation failed: {error}") from error
    said = "what its inf.yml says" if keep_alive_s is None else f"{keep_alive_s:g} s"
    return await save(request, app, Action.APP_CHANGED, f"keep_alive: {said}", keep_alive_s=keep_alive_s)


@post("/apps/{app_id:str}/transfer", status_code=200, tags=["apps"], summary="Give an app to another owner")
async def transfer(request: AnyRequest, app_id: str, data: TransferBody) -> Answer:
    """The platform's route. There are no teams here: an app belongs to a user, and all keys of the user share it."""
    app = await own_app(request, app_id)
    if data.team_id != app.owner_id:
        raise NotFound(
            f"Team not found: {data.team_id!r}. This system has no teams; the app belongs to {app.owner_id!r}, "
            "and every key of that user may use and change it (stoker keys create)."
        )
    return await app_answer(request, app)


@get("/apps/{app_id:str}/license", tags=["apps"], summary="Read an app's licence")
async def get_license(request: AnyRequest, app_id: str) -> Answer:
    """The text that its users agree to; empty when it has none."""
    return answer(request, license_dto(await seen_app(request, app_id)))


@post("/apps/{app_id:str}/license", status_code=200, tags=["apps"], summary="Set an app's licence")
async def set_license(request: AnyRequest, app_id: str, data: LicenseBody) -> Answer:
    """The text that its users agree to."""
    app = structs.replace(await own_app(request, app_id), license=data.license)
    await services_of(request).store.catalog.put_app(app)
    await record_app(request, Action.APP_CHANGED, app, change="license")
    return answer(request, license_dto(app))


ROUTES = [
    *needs(Scope.APPS_READ, list_apps, get_apps, get_app, get_app_by_name, get_license),
    *needs(
        Scope.APPS_WRITE,
        put_app,
        change_app,
        delete_app,
        duplicate_app,
        set_visibility,
        set_status,
        set_keep_alive,
        transfer,
        set_license,
    ),
]
