"""API keys."""

import hashlib
import secrets
import string
import time
from datetime import datetime
from typing import Any

from litestar import delete, get, post
from msgspec import Struct

from stoker.core.errors import InvalidRequest, NotFound
from stoker.core.ids import new_id
from stoker.core.messages import ApiKey
from stoker_gateway.door import caller_of
from stoker_gateway.dto import iso
from stoker_gateway.routes.tasks import ListBody
from stoker_gateway.services import Answer, AnyRequest, answer, page, services_of

KEY_PREFIX = "inf_"
KEY_LENGTH = 32
_ALPHABET = string.ascii_letters + string.digits
_SHOWN = len(KEY_PREFIX) + 4
_RATES = ("run", "get", "upload")


class NewKey(Struct, kw_only=True):
    """A key to make. `rates`: requests a minute by kind, 0 = unlimited."""

    name: str = ""
    scopes: list[str] | None = None
    expires_at: datetime | None = None
    rates: dict[str, int] = {}
    numbering: str = ""


def make_key(user_id: str, new: NewKey) -> tuple[str, ApiKey]:
    """A fresh key: its text, which is shown once, and what is kept of it.

    Raises:
        InvalidRequest: an unknown rate or numbering.
    """
    if unknown := [name for name, limit in new.rates.items() if name not in _RATES or limit < 0]:
        raise InvalidRequest(
            f"Input validation failed: rates: {', '.join(unknown)}; possible: {', '.join(_RATES)}, from 0"
        )
    if new.numbering not in {"", "v1", "v2"}:
        raise InvalidRequest(
            "Input validation failed: numbering: it may be 'v1' (9/10/11), 'v2' (10/11/12) or empty"
        )
    text = KEY_PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(KEY_LENGTH))
    key = ApiKey(
        id=new_id(),
        name=new.name,
        user_id=user_id,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        prefix=text[:_SHOWN],
        scopes=tuple(new.scopes or ()),
        rates=new.rates,
        created_ms=int(time.time() * 1000),
        expires_ms=int(new.expires_at.timestamp() * 1000) if new.expires_at else 0,
        numbering=new.numbering,
    )
    return text, key


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
    }


@post("/apikeys", status_code=200, tags=["keys"], summary="Make an API key")
async def post_key(request: AnyRequest, data: NewKey) -> Answer:
    """The answer's `key` is the only time that the key is shown."""
    text, key = make_key(caller_of(request).owner.user_id, data)
    await services_of(request).store.keys.put(key)
    return answer(request, key_dto(key) | {"key": text})


async def own_keys(request: AnyRequest) -> list[ApiKey]:
    return await services_of(request).store.keys.list(caller_of(request).owner.user_id)


@get("/apikeys", tags=["keys"], summary="List API keys")
async def get_keys(request: AnyRequest) -> Answer:
    """The keys of this key's user, without their texts."""
    return answer(request, page([key_dto(key) for key in await own_keys(request)]))


@post("/apikeys/list", status_code=200, tags=["keys"], summary="List API keys")
async def list_keys(request: AnyRequest, data: ListBody) -> Answer:  # noqa: ARG001 - one page holds all
    """The same."""
    return answer(request, page([key_dto(key) for key in await own_keys(request)]))


@delete("/apikeys/{key_id:str}", status_code=200, tags=["keys"], summary="Delete an API key")
async def delete_key(request: AnyRequest, key_id: str) -> Answer:
    """Clients that use it are refused within a second."""
    if key_id not in {key.id for key in await own_keys(request)}:
        raise NotFound("API key not found")
    await services_of(request).store.keys.delete(key_id)
    return answer(request, {"id": key_id, "deleted": True})


ROUTES = [post_key, get_keys, list_keys, delete_key]
