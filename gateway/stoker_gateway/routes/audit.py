"""The record of changes, for who administers the system; and how the other routes add to it."""

from typing import Any

from litestar import get, post

from stoker.core.audit import Action, Recorded, change_of
from stoker.core.scopes import Scope
from stoker_gateway.access import needs
from stoker_gateway.door import caller_of
from stoker_gateway.dto import iso
from stoker_gateway.listing import LIST_LIMIT, MAX_LIMIT, ListQuery, plain
from stoker_gateway.services import Answer, AnyRequest, answer, page, services_of


async def record(request: AnyRequest, action: Action, target: str, **detail: object) -> None:
    """Record what the caller has just changed: an answer that says success is given after it.

    Raises:
        StoreUnavailable: Redis went away in between; the caller hears of it, and asks again.
    """
    await services_of(request).store.audit.add(change_of(action, target, caller_of(request).actor, **detail))


def change_dto(recorded: Recorded) -> dict[str, Any]:
    """A change as clients read it."""
    change = recorded.change
    return {
        "id": recorded.id,
        "at": iso(recorded.at_ms),
        "action": change.action,
        "target": change.target,
        "user_id": change.actor.user_id or None,
        "key_id": change.actor.key_id or None,
        "address": change.actor.address or None,
        "detail": change.detail,
    }


async def audit_page(request: AnyRequest, cursor: str, limit: int) -> dict[str, Any]:
    """One page of the record."""
    limit = max(1, min(limit, MAX_LIMIT))
    audit = services_of(request).store.audit
    found, following = await audit.page(cursor, limit)
    return page([change_dto(each) for each in found], following, limit, await audit.count())


@get("/audit", tags=["system"], summary="List changes")
async def get_audit(request: AnyRequest, cursor: str = "", limit: int = 20) -> Answer:
    """Who changed what: keys, secrets, apps and machines, of all users, the latest first; and who was refused.

    Never a secret's value.
    """
    return answer(request, await audit_page(request, cursor, limit))


@post("/audit/list", status_code=200, tags=["system"], summary="List changes")
async def list_audit(request: AnyRequest, data: ListQuery | None = None) -> Answer:
    """The same."""
    query = plain(data)
    return answer(request, await audit_page(request, query.cursor or "", query.limit or LIST_LIMIT))


ROUTES = [
    *needs(Scope.AUDIT_READ, get_audit, list_audit),
]
