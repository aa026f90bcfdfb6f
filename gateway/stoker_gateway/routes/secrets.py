"""Secrets of the user of the key. No answer but that of `reveal` holds a value."""

from typing import Annotated, Any

from litestar import delete, get, post, put
from msgspec import Meta, Struct

from stoker.core.errors import InvalidRequest
from stoker.core.messages import Secret
from stoker.core.requirements import MAX_DESCRIPTION_CHARS
from stoker.core.scopes import Scope
from stoker_gateway.access import needs
from stoker_gateway.door import caller_of
from stoker_gateway.dto import iso
from stoker_gateway.listing import ListQuery, plain
from stoker_gateway.services import Answer, AnyRequest, answer, page, services_of

Description = Annotated[str, Meta(max_length=MAX_DESCRIPTION_CHARS)]


class NewSecret(Struct, kw_only=True):
    """A secret to make. `key` is the environment variable that apps read."""

    key: str
    value: str
    description: Description = ""

    def __repr__(self) -> str:
        return f"NewSecret(key={self.key!r})"


class SecretChange(Struct, kw_only=True):
    """What to change of a secret; what is absent stays."""

    value: str | None = None
    description: Description | None = None

    def __repr__(self) -> str:
        return "SecretChange()"


def secret_dto(secret: Secret, masked_value: str) -> dict[str, Any]:
    """A secret as clients read it."""
    return {
        "id": secret.id,
        "key": secret.key,
        "description": secret.description,
        "masked_value": masked_value,
        "version": secret.version,
        "user_id": secret.owner_id,
        "created_at": iso(secret.created_ms),
        "updated_at": iso(secret.updated_ms),
    }


@post("/secrets", status_code=200, tags=["secrets"], summary="Make a secret")
async def post_secret(request: AnyRequest, data: NewSecret) -> Answer:
    """Store a value under the name of an environment variable. Apps that declare it get it at their start."""
    store, actor = services_of(request).secrets, caller_of(request).actor
    made = await store.set(actor, data.key, data.value, data.description, only_new=True)
    await services_of(request).pinner.renew(actor.user_id)
    return answer(request, secret_dto(made, store.mask(made)))


@put("/secrets/{key:str}", tags=["secrets"], summary="Set a secret")
async def put_secret(request: AnyRequest, key: str, data: SecretChange) -> Answer:
    """Change the value or the description, or make the secret. Instances with the old value are unloaded."""
    if data.value is None and data.description is None:
        raise InvalidRequest("Input validation failed: body: give a value, a description or both")
    store, actor = services_of(request).secrets, caller_of(request).actor
    changed = await store.set(actor, key, data.value, data.description)
    if data.value is not None:
        await services_of(request).pinner.renew(actor.user_id)
    return answer(request, secret_dto(changed, store.mask(changed)))


@delete("/secrets/{key:str}", status_code=200, tags=["secrets"], summary="Delete a secret")
async def delete_secret(request: AnyRequest, key: str) -> Answer:
    """Runs that need it are refused from now on; instances that hold it are unloaded."""
    actor = caller_of(request).actor
    await services_of(request).secrets.delete(actor, key)
    await services_of(request).pinner.renew(actor.user_id)
    return answer(request, {"key": key, "deleted": True})


async def secrets_page(request: AnyRequest) -> dict[str, Any]:
    found = await services_of(request).secrets.list(caller_of(request).owner)
    return page([secret_dto(secret, masked_value) for secret, masked_value in found])


@get("/secrets", tags=["secrets"], summary="List secrets")
async def get_secrets(request: AnyRequest) -> Answer:
    """By name, with masked values."""
    return answer(request, await secrets_page(request))


@post("/secrets/list", status_code=200, tags=["secrets"], summary="List secrets")
async def list_secrets(request: AnyRequest, data: ListQuery | None = None) -> Answer:
    """The same; one page holds all."""
    plain(data)
    return answer(request, await secrets_page(request))


@get("/secrets/reveal/{key:str}", tags=["secrets"], summary="Read a secret's value")
async def reveal_secret(request: AnyRequest, key: str) -> Answer:
    """The full value; refused unless the operator has set `secrets_reveal`."""
    store = services_of(request).secrets
    secret, value = await store.reveal(caller_of(request).actor, key)
    revealed = answer(request, secret_dto(secret, store.mask(secret)) | {"value": value})
    revealed.headers["cache-control"] = "no-store"
    return revealed


ROUTES = [
    *needs(Scope.SECRETS_READ, get_secrets, list_secrets, reveal_secret),
    *needs(Scope.SECRETS_WRITE, post_secret, put_secret, delete_secret),
]
