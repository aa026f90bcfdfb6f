"""What a run's `session` means."""

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from stoker.core.apps import App, AppVersion
from stoker.core.errors import (
    AppMismatch,
    InvalidRequest,
    SessionNotFound,
    VersionMismatch,
    WorkerLeased,
)
from stoker.core.ids import new_id, short_id
from stoker.core.messages import Owner, TaskRequest, TaskSpec
from stoker.core.sessions import ID_PREFIX, NEW, Session, SessionInfo, session_key
from stoker.protocol import Store

IDLE_DEFAULT_S: Final = 60
IDLE_MAX_S: Final = 3600
_ID: Final = re.compile(rf"{ID_PREFIX}[a-z0-9]{{1,64}}")


class SessionRules:
    """Makes a task the first or a later one of a session."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def find(
        self, wanted: str | None, timeout_s: int | None, owner: Owner, app: App, version: AppVersion
    ) -> Session | None:
        """The session that a run calls; None when it opens one or has none.

        Args:
            wanted: `session` of the run: nothing, ``new``, or an id.
            timeout_s: `session_timeout` of the run.

        Raises:
            InvalidRequest: `session_timeout` does not go with it.
            SessionNotFound, AppMismatch, VersionMismatch: see each.
        """
        check_timeout(wanted, timeout_s)
        if not wanted or wanted == NEW:
            return None
        session = await own_session(self._store, wanted, owner.user_id)
        check_same(session.info, app, version)
        return session

    async def enter(
        self,
        called: Session | None,
        request: TaskRequest,
        spec: TaskSpec,
        owner: Owner,
        *,
        opens: bool,
        timeout_s: int | None,
    ) -> tuple[TaskRequest, TaskSpec, SessionInfo | None]:
        """The task as its session wants it, and what the session is when the task opens it.

        Raises:
            InvalidRequest: setup or workers differ from those of the session that it calls.
            WorkerLeased: the workers that it names are leased to other sessions.
        """
        if called is not None:
            return *await self._join(called, request, spec), None
        await self._check_free(request.workers)
        return self._open(request, spec, owner, timeout_s) if opens else (request, spec, None)

    async def _join(
        self, called: Session, request: TaskRequest, spec: TaskSpec
    ) -> tuple[TaskRequest, TaskSpec]:
        if request.setup != called.info.setup:
            raise InvalidRequest(
                "Input validation failed: setup: a session keeps the setup that it was opened with; leave it out"
            )
        if called.worker_id and request.workers and called.worker_id not in request.workers:
            await self._check_free(request.workers)
            raise InvalidRequest(
                f"Input validation failed: workers: the session runs on {called.worker_id!r} and nowhere else"
            )
        pattern = called.info.spec
        request = msgspec.structs.replace(request, session_id=called.info.id, setup_key=pattern.setup_key)
        spec = msgspec.structs.replace(pattern, id=spec.id, created_ms=spec.created_ms, opens_session=False)
        return request, spec

    def _open(
        self, request: TaskRequest, spec: TaskSpec, owner: Owner, timeout_s: int | None
    ) -> tuple[TaskRequest, TaskSpec, SessionInfo]:
        session_id, idle_s = new_id(ID_PREFIX), float(timeout_s or IDLE_DEFAULT_S)
        key = session_key(request.setup_key, session_id)
        # One attempt: on another process the memory of the calls before it would be missing.
        spec = msgspec.structs.replace(
            spec, session_id=session_id, opens_session=True, setup_key=key, max_attempts=1
        )
        request = msgspec.structs.replace(
            request, session_id=session_id, opens_session=True, setup_key=key, session_timeout_s=idle_s
        )
        info = SessionInfo(
            id=session_id,
            user_id=owner.user_id,
            app_id=request.app_id,
            app=request.app,
            version_id=request.version_id,
            idle_s=idle_s,
            spec=spec,
            setup=request.setup,
        )
        return request, spec, info

    async def _check_free(self, workers: Sequence[str]) -> None:
        """Refuse a run all of whose named workers are leased: it could not say when it will start."""
        if not workers:
            return
        leased = {session.worker_id for session in await self._store.sessions.active()}
        if leased.issuperset(workers):
            names = ", ".join(map(repr, workers))
            raise WorkerLeased(
                f"{'Worker' if len(workers) == 1 else 'Workers'} {names}: leased to a session. "
                "Name another one, or wait until that session is over (stoker sessions list)."
            )


async def own_session(store: Store, session_id: str, user_id: str) -> Session:
    """A session of the caller, active or over.

    Raises:
        SessionNotFound: no such session, or somebody else's.
    """
    if not _ID.fullmatch(session_id):
        raise SessionNotFound(
            f"Session not found: {session_id!r} is not the id of a session ({ID_PREFIX}...)."
        )
    session = await store.sessions.read(session_id)
    if session.info.user_id != user_id:
        raise SessionNotFound
    return session


def check_timeout(wanted: str | None, timeout_s: int | None) -> None:
    """Whether `session_timeout` goes with `session`.

    Raises:
        InvalidRequest: it is out of range, or the run opens no session.
    """
    if timeout_s is None:
        return
    if wanted != NEW:
        raise InvalidRequest(
            "Input validation failed: session_timeout: it is said once, with session: new, and holds for all its calls"
        )
    if not 1 <= timeout_s <= IDLE_MAX_S:
        raise InvalidRequest(
            f"Input validation failed: session_timeout: {timeout_s} is out of range; it may be 1 to {IDLE_MAX_S} seconds"
        )


def check_same(info: SessionInfo, app: App, version: AppVersion) -> None:
    """Whether a run of this app and version may call a session.

    Raises:
        AppMismatch: it is of another app.
        VersionMismatch: its reference names another version now than the session was opened with.
    """
    if app.id != info.app_id:
        raise AppMismatch(
            f"The session runs {info.app}, not {app.namespace}/{app.name}. Open another session for it."
        )
    if version.id != info.version_id:
        raise VersionMismatch(
            f"The session runs {info.app}@{short_id(info.version_id)}, and the request names version "
            f"{short_id(version.id)}. Name the session's version, or open a new session."
        )
