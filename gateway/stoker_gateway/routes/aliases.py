"""Other names of apps: a program that asks for a model of another platform gets one of ours, set up as it should be."""

from typing import Any

from litestar import post
from msgspec import Struct, structs

from stoker.core.apps import App, AppVersion
from stoker.core.audit import Action
from stoker.core.errors import Conflict, InvalidRequest
from stoker.core.ids import new_id, short_id
from stoker.core.messages import Owner
from stoker.core.refs import parse_ref
from stoker.core.scopes import Scope
from stoker.core.setup_key import fill_defaults, known_only
from stoker_gateway.access import needs
from stoker_gateway.app_dto import app_dto
from stoker_gateway.clock import now_ms
from stoker_gateway.door import caller_of
from stoker_gateway.registration import check_visibility
from stoker_gateway.routes.apps import record_app
from stoker_gateway.services import Answer, AnyRequest, Services, answer, services_of


class AliasBody(Struct, kw_only=True):
    """A name, and what runs under it."""

    name: str
    app: str
    setup: dict[str, Any] = {}
    visibility: str = "private"


@post("/apps/alias", status_code=200, tags=["apps"], summary="Give an app another name")
async def put_alias(request: AnyRequest, data: AliasBody) -> Answer:
    """Make `name` (namespace/name) stand for `app` with a setup; it replaces what the alias stood for before.

    A version in a reference to the alias has no meaning. It is removed like an app (`DELETE /apps/{id}`).
    """
    services, owner = services_of(request), caller_of(request).owner
    check_visibility(data.visibility)
    version = await _target(services, data, owner)
    alias = await _named(services, data, owner)
    await services.store.catalog.put_app(alias)
    services.registry.forget()
    await record_app(request, Action.APP_CHANGED, alias, change=f"stands for {data.app}")
    return answer(request, app_dto(alias, version))


async def _target(services: Services, data: AliasBody, owner: Owner) -> AppVersion:
    """The version that runs now under the name.

    Raises:
        NotFound: there is no such app.
        InvalidRequest: its setup is not what it takes, or it is an alias itself.
    """
    app = await services.registry.app_named(data.app, owner.user_id)
    if app.alias_of:
        raise InvalidRequest(
            f"Input validation failed: app: {data.app} stands for {app.alias_of}; name that one"
        )
    _, _, version = await services.registry.resolve(data.app, owner.user_id)
    _, unknown = known_only(version.setup_schema, data.setup)
    if unknown:
        known = ", ".join(version.setup_schema.get("properties", {})) or "none"
        raise InvalidRequest(
            f"Input validation failed: setup: {', '.join(unknown)} unknown to {data.app}; it knows: {known}"
        )
    services.registry.validate_setup(version, fill_defaults(version.setup_schema, data.setup))
    return version


async def _named(services: Services, data: AliasBody, owner: Owner) -> App:
    """The alias as it is to be stored.

    Raises:
        Conflict: the name is an app's, or another user's.
    """
    ref = parse_ref(data.name)
    if not ref.namespace or ref.version or ref.function:
        raise InvalidRequest(
            f"Input validation failed: name: {data.name!r} must be namespace/name, without version and function"
        )
    now, catalog = now_ms(), services.store.catalog
    known = await catalog.find_app(ref.namespace, ref.name)
    if known is None:
        new = new_id()
        known = App(
            id=new,
            short_id=short_id(new),
            namespace=ref.namespace,
            name=ref.name,
            owner_id=owner.user_id,
            alias_of=data.app,
            created_ms=now,
        )
        if await catalog.add_app(known) != known.id:
            raise Conflict(f"{data.name} was just made by somebody else. Take another name.")
    if known.owner_id != owner.user_id or not known.alias_of:
        raise Conflict(f"{data.name} is an app already. Take another name, or remove it first.")
    return structs.replace(
        known,
        alias_of=data.app,
        alias_setup=data.setup,
        visibility=data.visibility,
        description=f"Stands for {data.app}",
        updated_ms=now,
    )


ROUTES = [*needs(Scope.APPS_WRITE, put_alias)]
