"""Machines that may join, and the one request of a machine that does."""

from typing import Any

from litestar import delete, get, post
from msgspec import Struct

from stoker.core.enrolments import Enrolment
from stoker.core.scopes import Scope
from stoker_gateway.access import needs, open_to_all
from stoker_gateway.door import caller_of
from stoker_gateway.dto import iso
from stoker_gateway.routes.internal import bearer_token
from stoker_gateway.services import JSON, Answer, AnyRequest, answer, page, services_of


class NewMachine(Struct, kw_only=True):
    """A machine to invite; `name` becomes its engine id and the first part of its workers' ids."""

    name: str


def enrolment_dto(enrolment: Enrolment) -> dict[str, Any]:
    """An enrolment as clients read it: never a secret, and no hash of one."""
    return {
        "name": enrolment.name,
        "state": enrolment.state,
        "by": enrolment.by,
        "created_at": iso(enrolment.created_ms) if enrolment.created_ms else None,
        "joined_at": iso(enrolment.joined_ms) if enrolment.joined_ms else None,
        "revoked_at": iso(enrolment.revoked_ms) if enrolment.revoked_ms else None,
        "expires_at": iso(enrolment.expires_ms) if enrolment.expires_ms else None,
    }


@post("/engines/enrolments", status_code=200, tags=["engines"], summary="Invite a machine")
async def post_enrolment(request: AnyRequest, data: NewMachine) -> Answer:
    """The answer's `join` is shown once: the machine exchanges it for an identity of its own, once."""
    join, expires_ms = await services_of(request).enroller.enroll(data.name, caller_of(request).actor)
    body = {
        "name": data.name,
        "join": join,
        "command": f"STOKER_JOIN='{join}' stoker worker",
        "expires_at": iso(expires_ms),
    }
    return answer(request, body)


@get("/engines/enrolments", tags=["engines"], summary="List enrolments")
async def get_enrolments(request: AnyRequest) -> Answer:
    """Every machine that was invited, and what became of it."""
    found = await services_of(request).store.enrolments.list()
    return answer(request, page([enrolment_dto(each) for each in found]))


@delete("/engines/enrolments/{name:str}", status_code=200, tags=["engines"], summary="Revoke an enrolment")
async def delete_enrolment(request: AnyRequest, name: str) -> Answer:
    """The machine is shut out at once; its tasks run again elsewhere when its lease ends."""
    actor = caller_of(request).actor
    return answer(request, enrolment_dto(await services_of(request).enroller.revoke(name, actor)))


@post("/internal/join", status_code=200, include_in_schema=False)
async def post_join(request: AnyRequest) -> Answer:
    """The identity of a machine, for its token."""
    identity = await services_of(request).enroller.join(bearer_token(request), caller_of(request).address)
    body = request.app.state.encode(identity)
    return Answer(content=body, media_type=JSON, headers={"cache-control": "no-store"})


ROUTES = [
    *needs(Scope.ENGINES_READ, get_enrolments),
    *needs(Scope.ENGINES_WRITE, post_enrolment, delete_enrolment),
    *open_to_all(post_join),
]
