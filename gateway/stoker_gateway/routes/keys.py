"""API keys, and the scopes that they may have."""

from datetime import UTC, datetime
from typing import Any, Final

from litestar import delete, get, post
from msgspec import Struct, structs

from stoker.api_keys import fresh_key
from stoker.core.audit import Action, change_of
from stoker.core.errors import InvalidRequest, MissingScope, NotFound
from stoker.core.messages import ApiKey
from stoker.core.scopes import (
    ADMINISTRATIVE,
    ALL,
    FAMILIES,
    PRESETS,
    Scope,
    check_grant,
    check_scopes,
)
from stoker_gateway.access import needs
from stoker_gateway.clock import now_ms
from stoker_gateway.door import caller_of
from stoker_gateway.dto import iso
from stoker_gateway.listing import ListQuery, plain
from stoker_gateway.services import Answer, AnyRequest, answer, page, services_of

_RATES = ("run", "get", "upload")
MAX_NAME_CHARS: Final = 200


class NewKey(Struct, kw_only=True):
    """A key to make. `rates`: requests a minute by kind, 0 = unlimited. No scopes = everything."""

    name: str = ""
    scopes: list[str] | None = None
    expires_at: datetime | None = None
    rates: dict[str, int] = {}
    numbering: str = ""


def make_key(user_id: str, new: NewKey) -> tuple[str, ApiKey]:
    """A fresh key: its text, which is shown once, and what is kept of it.

    Raises:
        InvalidRequest: an unknown rate, scope or numbering, or an end that is past.
    """
    now = now_ms()
    expires_ms = _unix_ms(new.expires_at)
    if expires_ms and expires_ms <= now:
        raise InvalidRequest(f"Input validation failed: expires_at: {iso(expires_ms)} is past")
    if len(new.name) > MAX_NAME_CHARS:
        raise InvalidRequest(f"Input validation failed: name: it has more than {MAX_NAME_CHARS} characters")
    if unknown := [name for name, limit in new.rates.items() if name not in _RATES or limit < 0]:
        raise InvalidRequest(
            f"Input validation failed: rates: {', '.join(unknown)}; possible: {', '.join(_RATES)}, from 0"
        )
    if new.numbering not in {"", "v1", "v2"}:
        raise InvalidRequest(
            "Input validation failed: numbering: it may be 'v1' (9/10/11), 'v2' (10/11/12) or empty"
        )
    text, key = fresh_key(user_id, new.name, now)
    limited = structs.replace(
        key,
        scopes=check_scopes(new.scopes or ()),
        rates=new.rates,
        expires_ms=expires_ms,
        numbering=new.numbering,
    )
    return text, limited


def _unix_ms(at: datetime | None) -> int:
    """A time without a zone is meant as UTC."""
    if at is None:
        return 0
    return int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)


def key_dto(key: ApiKey) -> dict[str, Any]:
    """A key as clients read it: never its text."""
    return {
        "id": key.id,
        "name": key.name,
        "user_id": key.user_id,
        "prefix": key.prefix,
        "scopes": key.scopes,
        "rates": key.rates,
        "numbering": key.numbering or None,
        "created_at": iso(key.created_ms),
        "expires_at": iso(key.expires_ms) if key.expires_ms else None,
        "expired": key.expired(now_ms()),
    }


@post("/apikeys", status_code=200, tags=["keys"], summary="Make an API key")
async def post_key(request: AnyRequest, data: NewKey) -> Answer:
    """The answer's `key` is the only time that the key is shown. It gets no scope that the caller's key lacks."""
    caller = caller_of(request)
    text, key = make_key(caller.owner.user_id, data)
    try:
        check_grant(caller.scopes, key.scopes)
    except MissingScope:
        asked = ", ".join(key.scopes) or "everything"
        await services_of(request).attempts.lacks_scope(caller.actor, "POST /apikeys", asked)
        raise
    expires = iso(key.expires_ms) if key.expires_ms else ""
    made = change_of(
        Action.KEY_CREATED,
        key.id,
        caller.actor,
        name=key.name,
        scopes=", ".join(key.scopes) or "everything",
        expires_at=expires,
    )
    await services_of(request).store.keys.put(key, made)
    return answer(request, key_dto(key) | {"key": text})


async def own_keys(request: AnyRequest) -> list[ApiKey]:
    return await services_of(request).store.keys.list(caller_of(request).owner.user_id)


@get("/apikeys", tags=["keys"], summary="List API keys")
async def get_keys(request: AnyRequest) -> Answer:
    """The keys of this key's user, without their texts."""
    return answer(request, page([key_dto(key) for key in await own_keys(request)]))


@post("/apikeys/list", status_code=200, tags=["keys"], summary="List API keys")
async def list_keys(request: AnyRequest, data: ListQuery | None = None) -> Answer:
    """The same; one page holds all."""
    plain(data)
    return answer(request, page([key_dto(key) for key in await own_keys(request)]))


@delete("/apikeys/{key_id:str}", status_code=200, tags=["keys"], summary="Delete an API key")
async def delete_key(request: AnyRequest, key_id: str) -> Answer:
    """Clients that use it are refused within a second."""
    found = next((key for key in await own_keys(request) if key.id == key_id), None)
    if found is None:
        raise NotFound("API key not found")
    gone = change_of(Action.KEY_DELETED, key_id, caller_of(request).actor, name=found.name)
    await services_of(request).store.keys.delete(key_id, gone)
    return answer(request, {"id": key_id, "deleted": True})


@get("/scopes", tags=["keys"], summary="List scopes")
async def get_scopes(request: AnyRequest) -> Answer:
    """What a key may be limited to: single scopes, families of them, and sets that are often wanted together."""
    definitions = [
        {
            "scope": scope,
            "group": scope.family,
            "description": scope.meaning,
            "admin": scope.family in ADMINISTRATIVE,
        }
        for scope in Scope
    ]
    groups = [{"scope": name, "scopes": [s for s in Scope if s.family == name]} for name in FAMILIES]
    presets = [{"name": name, "scopes": scopes} for name, scopes in PRESETS.items()]
    return answer(request, {"definitions": definitions, "groups": groups, "presets": presets, "all": ALL})


ROUTES = [
    *needs(Scope.APIKEYS_READ, get_keys, list_keys, get_scopes),
    *needs(Scope.APIKEYS_WRITE, post_key, delete_key),
]
