"""Sessions: look at them, keep them, end them. A run opens them (`session: new`) and calls them (`session: id`)."""

from litestar import delete, get, post

from stoker.core.scopes import Scope
from stoker.core.sessions import SessionEnd
from stoker.runs.sessions import own_session
from stoker_gateway.access import needs
from stoker_gateway.door import caller_of
from stoker_gateway.services import Answer, AnyRequest, answer, services_of
from stoker_gateway.sessions import session_dto


@get("/sessions", tags=["sessions"], summary="List sessions")
async def list_sessions(request: AnyRequest) -> Answer:
    """The caller's active sessions, the one that expires first before the others."""
    user_id = caller_of(request).owner.user_id
    sessions = await services_of(request).store.sessions.active()
    return answer(request, [session_dto(s) for s in sessions if s.info.user_id == user_id])


@get("/sessions/{session_id:str}", tags=["sessions"], summary="Read a session")
async def read_session(request: AnyRequest, session_id: str) -> Answer:
    """One session, also one that was over less than a day ago."""
    store, user_id = services_of(request).store, caller_of(request).owner.user_id
    return answer(request, session_dto(await own_session(store, session_id, user_id)))


@post(
    "/sessions/{session_id:str}/keepalive", status_code=200, tags=["sessions"], summary="Keep a session alive"
)
async def keep_session(request: AnyRequest, session_id: str) -> Answer:
    """Begin the idle time of a session anew, and answer with it."""
    store, user_id = services_of(request).store, caller_of(request).owner.user_id
    await own_session(store, session_id, user_id)
    await store.sessions.keep(session_id)
    return answer(request, session_dto(await store.sessions.read(session_id)))


@delete("/sessions/{session_id:str}", status_code=204, tags=["sessions"], summary="End a session")
async def end_session(request: AnyRequest, session_id: str) -> None:
    """Give the worker back. A call that runs goes on to its end; those that wait fail. Harmless when it is over."""
    store, user_id = services_of(request).store, caller_of(request).owner.user_id
    await own_session(store, session_id, user_id)
    await store.sessions.end(session_id, SessionEnd.ENDED)


ROUTES = [
    *needs(Scope.APPS_READ, list_sessions, read_session),
    *needs(Scope.APPS_EXECUTE, keep_session, end_session),
]
