"""A run request on its way to a queued task, as named steps."""

import time
from typing import Any
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, structs

from stoker.core.apps import App, AppFunction, AppVersion
from stoker.core.errors import CallerError, Conflict, InvalidRequest, NotFound, WorkerLost
from stoker.core.ids import new_id
from stoker.core.limits import TaskLimits
from stoker.core.messages import Infra, Owner, TaskId, TaskRequest, TaskSpec, TaskView, Waiter
from stoker.core.sessions import NEW, SessionInfo
from stoker.core.setup_key import fill_defaults, known_only, setup_key
from stoker.core.states import TaskState
from stoker.flows.records import RUN
from stoker.protocol import Repeat, Room, Store
from stoker.protocol.admission import ANY_ROOM
from stoker.run_settings import RunFields
from stoker.runs.file_fields import FileFields
from stoker.runs.file_uses import note_uses
from stoker.runs.grants import Grants
from stoker.runs.registry import Registry
from stoker.runs.run_limits import read_run_at, task_limits
from stoker.runs.sessions import SessionRules

MAX_PRIORITY = 100
MAX_KEY_LENGTH = 255
"""Of an idempotency key: room for any id that a client makes up, and none for a body."""
RAN_HERE = {
    "level": "info",
    "code": "infra_private",
    "message": "There is no cloud here: the task runs on this system's own workers. Say infra: private to silence this.",
}


_sorted = msgspec.json.Encoder(order="sorted").encode


class RunBody(Struct, kw_only=True):
    """The body of a run request. Unknown fields are ignored."""

    app: str = ""
    app_id: str = ""
    version_id: str = ""
    function: str | None = None
    input: Any = None
    setup: dict[str, Any] | None = None
    infra: str | None = None
    workers: list[str] | None = None
    variant: str | None = None
    webhook: str | None = None
    session: str | None = None
    session_timeout: int | None = None
    priority: int = 0
    run_at: str | float | None = None
    timeouts: Any = None  # see stoker.core.limits, as is the next one
    retry: Any = None


class Origin(Struct, frozen=True, kw_only=True):
    """Where a run request comes from, when no client sent it.

    With `task_id` a second submission is the first: it answers with the task that there is.
    """

    task_id: str = ""  # `stoker.core.ids.derived_id` of what asks; '' = a new one
    waiter: Waiter | None = None  # who is told of the ending; the queue's bounds do not hold then
    files_url: str = ""  # where clients see the own store; '' = as the submitter knows it
    retry_of: str = ""  # the task that this one is run again for


CLIENT = Origin()


def check_webhook(url: str) -> str:
    """An address that an ending can be told to. Where it leads is judged when it is called.

    Raises:
        InvalidRequest: it is none.
    """
    try:
        parts = urlsplit(url)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:  # brackets without an address, a port that is none
        good = False
    if url and not good:
        raise InvalidRequest(f"Input validation failed: webhook: {url[:100]!r} is no http or https address")
    return url


def check_key(key: str) -> str:
    """An idempotency key when it is not too long.

    Raises:
        InvalidRequest: it is.
    """
    if len(key) > MAX_KEY_LENGTH:
        raise InvalidRequest(
            f"Input validation failed: Idempotency-Key: it has {len(key)} characters; it may have {MAX_KEY_LENGTH}"
        )
    return key


class Submitter:
    """Turns run requests into tasks.

    1. find the app and its version, and the session that is called  2. find the function  3. check infra and
    workers  4. validate the input and find its files  5. complete and validate the setup  6. find the secrets
    7. hash setup and secrets into the setup key  8. open or join the session  9. store the task.
    """

    def __init__(
        self,
        store: Store,
        registry: Registry,
        settings: RunFields,
        *,
        base_url: str,
        room: Room = ANY_ROOM,
        idempotency_s: float = 0,
    ) -> None:
        self._store = store
        self._grants = Grants(store, settings.verified_owners)
        self._registry = registry
        self._settings = settings
        self._sessions = SessionRules(store)
        self._file_fields = FileFields()
        self._base_url = base_url
        self._room = room
        self._idempotency_s = idempotency_s

    async def submit(
        self, body: RunBody, owner: Owner, idempotency_key: str = "", origin: Origin = CLIENT
    ) -> tuple[TaskView, list[dict[str, Any]]]:
        """Queue a task.

        Args:
            idempotency_key: of the client; a repeat gives the first task again.
            origin: who asks, when it is no client.

        Returns:
            The task as it was stored, and messages for the envelope.

        Raises:
            InvalidRequest: names the field and what it may be.
            NotFound: no such app.
            Conflict: the idempotency key came with another request.
            SessionNotFound, SessionExpired, SessionEnded, AppMismatch, VersionMismatch, WorkerLeased,
            WorkerLost: the session that it names does not go on, or not with this run.
            RequirementsNotMet: secrets or connected accounts are missing.
            KeyQueueFull, QueueFull: as many tasks wait as may.
        """
        repeat = self._repeat(idempotency_key, body)
        try:
            return await self._submit(body, owner, repeat, origin)
        except (CallerError, WorkerLost):
            # What was accepted stays accepted, whatever became of its app, its session or its secrets since then.
            first = await self._store.tasks.first_of(owner, repeat) if repeat is not None else None
            if first is None:
                raise
            return await self._first_task(first), []

    def _repeat(self, key: str, body: RunBody) -> Repeat | None:
        check_key(key)
        return Repeat(key=key, body=_sorted(body), kept_s=self._idempotency_s) if key else None

    async def _first_task(self, task_id: TaskId) -> TaskView:
        try:
            return await self._store.tasks.read(task_id)
        except NotFound as error:
            raise Conflict(
                f"The task of this Idempotency-Key, {task_id}, was deleted, or its time is over. "
                "Use a new key to run it again."
            ) from error

    async def _submit(
        self, body: RunBody, owner: Owner, repeat: Repeat | None, origin: Origin
    ) -> tuple[TaskView, list[dict[str, Any]]]:
        ref_function, app, version = await self._find_app(body, owner)  # 1
        called = await self._sessions.find(body.session, body.session_timeout, owner, app, version)
        told = check_status(app)
        function = choose_function(app, version, body.function or ref_function)  # 2
        infra, messages = self._check_infra(body.infra)  # 3
        messages += told
        workers = await self._check_workers(body.workers)
        given = {} if body.input is None else body.input
        self._registry.validate(version, function, given)  # 4
        if version.flow is not None:
            given = flow_input(body, function, given)
        files = self._file_fields.find(f"{app.id}/{version.id}", function.name, function.input_schema, given)
        kept = called.info.setup if called is not None else {}
        known, unknown = known_only(version.setup_schema, body.setup or kept)  # 5
        messages += setup_messages(app, version, unknown)
        setup = fill_defaults(version.setup_schema, known)
        self._registry.validate_setup(version, setup)
        limits = task_limits(body.timeouts, body.retry, version, self._settings.task_bounds)
        granted = await self._grants.find(app, version, owner)  # 6
        request = TaskRequest(
            id=TaskId(origin.task_id or new_id(self._store.id_prefix)),
            app_id=app.id,
            app=f"{app.namespace}/{app.name}",
            version_id=version.id,
            function=function.name,
            input=given,
            setup=setup,
            setup_key=setup_key(version.id, setup, granted.digest),  # 7
            env_key=version.env_key,
            infra=infra,
            workers=workers,
            variant=body.variant or "default",
            webhook=check_webhook(body.webhook or ""),
            input_files=files,
            has_secrets=bool(granted.digest),
            waiter=origin.waiter,
            flow=version.flow,
            files_url=(origin.files_url or self._base_url) if files or version.flow else "",
            run_timeout_s=limits.timeouts.run,
            setup_timeout_s=limits.timeouts.setup,
            upload_timeout_s=limits.timeouts.upload,
            retry_app_errors=limits.retry_app_errors,
            run_at_ms=read_run_at(body.run_at, body.session),
            retry_of=origin.retry_of,
        )
        spec = spec_of(request, version, owner, body.priority, limits)
        request, spec, session = await self._sessions.enter(  # 8
            called, request, spec, owner, opens=body.session == NEW, timeout_s=body.session_timeout
        )
        owner = structs.replace(owner, secrets=granted.needs if granted.digest else ())
        return await self._store_task(request, spec, owner, session, repeat), messages  # 9

    async def _find_app(self, body: RunBody, owner: Owner) -> tuple[str, App, AppVersion]:
        if body.app:
            ref, app, version = await self._registry.resolve(body.app, owner.user_id)
            return ref.function, app, version
        if body.app_id:
            return "", *await self._registry.by_id(body.app_id, body.version_id, owner.user_id)
        raise InvalidRequest("Input validation failed: app: say which app to run, for instance infsh/echo")

    def _check_infra(self, wanted: str | None) -> tuple[Infra, list[dict[str, Any]]]:
        try:
            infra = Infra(wanted or Infra.CLOUD)
        except ValueError as error:
            raise InvalidRequest(
                f"Input validation failed: infra: {wanted!r} is unknown; it may be {', '.join(Infra)}"
            ) from error
        if infra is not Infra.CLOUD:
            return infra, []
        if self._settings.cloud_infra == "refuse":
            raise InvalidRequest(
                "Input validation failed: infra: this system has private workers only; say infra: private"
            )
        return infra, [RAN_HERE]

    async def _check_workers(self, wanted: list[str] | None) -> tuple[str, ...]:
        if not wanted:
            return ()
        known: dict[str, tuple[str, ...]] = {}  # a machine's name stands for all its workers
        for engine in await self._registry.engines():
            ids = tuple(worker.id for worker in engine.info.workers)
            known |= {worker_id: (worker_id,) for worker_id in ids}
            for name in filter(None, (engine.info.id, engine.info.name)):
                known[name] = (*known.get(name, ()), *ids)
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise InvalidRequest(
                f"Input validation failed: workers: {', '.join(map(repr, unknown))} unknown; "
                f"known: {', '.join(sorted(known)) or 'none'} (stoker workers list)"
            )
        return tuple(dict.fromkeys(worker_id for name in wanted for worker_id in known[name]))

    async def _store_task(
        self,
        request: TaskRequest,
        spec: TaskSpec,
        owner: Owner,
        session: SessionInfo | None,
        repeat: Repeat | None,
    ) -> TaskView:
        await note_uses(self._store, request.input, request.id)
        kept_s = self._settings.retention_s
        if request.flow is not None:
            stored = await self._store.carried.begin(
                request, spec, owner, RUN, retention_s=kept_s, repeat=repeat
            )
        else:
            stored = await self._store.tasks.submit(
                request,
                spec,
                owner,
                retention_s=kept_s,
                repeat=repeat,
                room=self._room if request.waiter is None else ANY_ROOM,
                session=session,
            )
        if stored != request.id:  # the task of an earlier request with this idempotency key
            return await self._first_task(stored)
        queued = TaskState.QUEUED
        history = ((0, int(TaskState.RECEIVED), spec.created_ms), (0, int(queued), spec.created_ms))
        return TaskView(
            request=request,
            state=queued,
            attempt=0,
            created_ms=spec.created_ms,
            updated_ms=spec.created_ms,
            history=history,
        )


def spec_of(
    request: TaskRequest, version: AppVersion, owner: Owner, priority: int, limits: TaskLimits
) -> TaskSpec:
    """What the scheduler is told of a request.

    Raises:
        InvalidRequest: the priority is out of range.
    """
    return TaskSpec(
        id=request.id,
        setup_key=request.setup_key,
        version_id=version.id,
        env_key=version.env_key,
        app=request.app,
        needs=version.needs,
        workers=request.workers,
        priority=check_priority(priority),
        key_id=owner.key_id,
        created_ms=int(time.time() * 1000),
        max_attempts=limits.max_attempts,
        retry_delay_s=limits.retry_delay_s,
        queue_timeout_s=limits.timeouts.queue,
        no_match_timeout_s=limits.timeouts.no_match,
    )


def flow_input(body: RunBody, function: AppFunction, given: Any) -> Any:
    """The input of a flow with its defaults: no app fills them in later.

    Raises:
        InvalidRequest: the request says what only a node of the flow can have.
    """
    for name in ("session", "run_at", "workers"):
        if getattr(body, name):
            raise InvalidRequest(
                f"Input validation failed: {name}: a flow runs on many workers, each node when it can. "
                "Say it at the flow's nodes, where they have it, and leave it out here."
            )
    return fill_defaults(function.input_schema, given) if isinstance(given, dict) else given


def choose_function(app: App, version: AppVersion, name: str) -> AppFunction:
    """A function of a version by name, or its default.

    Raises:
        InvalidRequest: it has no such function; names those it has.
    """
    found = version.functions.get(name or version.default_function)
    if found is None:
        raise InvalidRequest(
            f"Input validation failed: function: {name or version.default_function!r} is not a function of "
            f"{app.namespace}/{app.name}; it has {', '.join(sorted(version.functions)) or 'none'}"
        )
    return found


def check_status(app: App) -> list[dict[str, Any]]:
    """What to tell who runs an app that is on its way out.

    Raises:
        Conflict: it is out of service.
    """
    said = f" {app.status_message}" if app.status_message else ""
    if app.status in {"maintenance", "retired"}:
        state = "is under maintenance" if app.status == "maintenance" else "was retired"
        raise Conflict(f"{app.namespace}/{app.name} {state} and takes no runs.{said}")
    if app.status == "deprecated":
        text = f"{app.namespace}/{app.name} is deprecated.{said}"
        return [{"level": "warning", "code": "app_deprecated", "message": text}]
    return []


def setup_messages(app: App, version: AppVersion, unknown: list[str]) -> list[dict[str, Any]]:
    """What to tell who gave setup values that the app does not know."""
    if not unknown:
        return []
    known = ", ".join(version.setup_schema.get("properties", {})) or "none"
    text = (
        f"setup: {', '.join(unknown)} unknown to {app.namespace}/{app.name} and left out; it knows: {known}. "
        "The task runs as if they had not been given."
    )
    return [{"level": "warning", "code": "setup_unknown", "message": text}]


def check_priority(priority: int) -> int:
    """`priority` when it is within bounds.

    Raises:
        InvalidRequest: it is not.
    """
    if abs(priority) > MAX_PRIORITY:
        raise InvalidRequest(
            f"Input validation failed: priority: {priority} is out of range; "
            f"it may be -{MAX_PRIORITY} to {MAX_PRIORITY}"
        )
    return priority
