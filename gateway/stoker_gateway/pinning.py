"""What is to be loaded without a task, on its way to the scheduler; and what is to be unloaded.

A pin is made like a task: the same setup with the same secrets of the same user gives the same setup key, or the
instance would wait for tasks that never come.
"""

from collections.abc import Collection, Iterable, Sequence
from enum import StrEnum
from typing import Any, Final

from msgspec import Struct, structs

from stoker.core.apps import App, AppVersion
from stoker.core.audit import Action, Actor, Change, change_of
from stoker.core.errors import CallerError, Conflict, InvalidRequest, NotFound, ProtocolRefusal
from stoker.core.events import Event
from stoker.core.ids import new_id
from stoker.core.messages import EngineView, Owner, Resident, SetupKey, TaskId, TaskRequest, WorkerId
from stoker.core.pins import MAX_PINS, ONCE_KEPT_S, Pin
from stoker.core.refs import parse_ref
from stoker.core.sessions import plain_key, session_of
from stoker.core.setup_key import fill_defaults, known_only, setup_key
from stoker.core.states import ResidentState
from stoker.log import get_logger
from stoker.protocol import Store
from stoker.runs.grants import Grants
from stoker.runs.registry import Registry
from stoker.runs.submit import check_status, setup_messages
from stoker.settings import GatewaySettings
from stoker_gateway.clock import now_ms

MAX_COPIES: Final = 1_000
MAX_NAMES: Final = 1_000
MAX_LOADS: Final = 50
"""Loads of one user that are wanted once: whoever may run apps may ask, and pins must have their place."""

log = get_logger("gateway")


class PinBody(Struct, kw_only=True):
    """An app to load without a task. `workers` are ids of workers or names of machines; none = any."""

    app: str
    setup: dict[str, Any] | None = None
    workers: list[str] | None = None
    copies: int = 0


class UnloadBody(Struct, kw_only=True):
    """Instances to unload: of an app, or of one setup of it; on these workers, or on all."""

    app: str
    setup: dict[str, Any] | None = None
    workers: list[str] | None = None


class Going(StrEnum):
    """Whether an instance goes that somebody wants to go."""

    UNLOADING = "unloading"
    BUSY = "busy"
    PINNED = "pinned"


class Unloading(Struct, frozen=True, kw_only=True):
    """What becomes of an instance that somebody wants to go."""

    worker_id: WorkerId
    setup_key: SetupKey
    state: Going


class Pinner:
    """Makes pins of requests, and keeps them in step with their apps."""

    def __init__(self, store: Store, registry: Registry, settings: GatewaySettings) -> None:
        self._store = store
        self._registry = registry
        self._settings = settings
        self._grants = Grants(store, settings.verified_owners)

    async def pin(self, body: PinBody, actor: Actor, *, once: bool) -> tuple[Pin, list[dict[str, Any]]]:
        """Have an app loaded, for as long as it is pinned or `once`. What is wanted already is replaced.

        Returns:
            The pin, and messages for the envelope.

        Raises:
            InvalidRequest: names the field and what it may be.
            NotFound: no such app.
            Conflict: the app takes no runs, or there are too many pins.
            RequirementsNotMet: secrets are missing.
        """
        check_counts(body)
        owner = Owner(user_id=actor.user_id, key_id=actor.key_id)
        ref = parse_ref(body.app)
        named = await self._registry.app_named(body.app, owner.user_id)
        app, version = await self._registry.by_id(named.id, ref.version, owner.user_id)
        messages = check_status(app) + await self._check_workers(body.workers or (), once=once)
        made, unknown = await self._make(app, version, body.setup or {}, owner)
        follows = not (parse_ref(named.alias_of) if named.alias_of else ref).version
        now = now_ms()
        pin = structs.replace(
            made,
            id=await self._id_for(made, once=once, follows=follows),
            setup={
                **named.alias_setup,
                **made.setup,
            },  # the pin goes on with the app itself, which lacks them
            follows=follows,
            workers=tuple(dict.fromkeys(body.workers or ())),
            copies=body.copies,
            once=once,
            created_ms=now,
            until_ms=now + int(ONCE_KEPT_S * 1000) if once else 0,
        )
        action = Action.APP_LOADED if once else Action.APP_PINNED
        await self._put(pin, recorded(action, pin, actor))
        return pin, messages + setup_messages(app, version, unknown)

    async def unpin(self, pin_id: str, actor: Actor) -> Pin:
        """Let what is loaded go when its room is wanted.

        Raises:
            NotFound: there is no such pin.
        """
        pin = await self._store.pins.get(pin_id)
        await self._store.pins.remove(pin_id, recorded(Action.APP_UNPINNED, pin, actor))
        return pin

    async def settle(self, app: App) -> None:
        """An app was deployed or changed: how long its instances stay, and which version its pins are for."""
        catalog = self._store.catalog
        version = None
        if app.current_version_id:
            version = await catalog.get_version(app.id, app.current_version_id)
        said = version.keep_alive_s if version is not None else None
        keep_alive_s = said if app.keep_alive_s is None else app.keep_alive_s
        await self._store.pins.set_keep_alive(f"{app.namespace}/{app.name}", keep_alive_s)
        if version is not None:
            for pin in await self._of_app(app.id):
                if pin.follows and not pin.once and pin.request.version_id != version.id:
                    await self._follow(pin, app, version)

    async def renew(self, user_id: str) -> None:
        """A secret of a user was set or deleted: what it pinned is to hold what tasks are given from now on."""
        for pin in await self._store.pins.list():
            if pin.once or pin.owner.user_id != user_id:
                continue
            try:
                found = await self._registry.by_id(pin.request.app_id, pin.request.version_id, user_id)
            except NotFound:  # deleted a moment ago, and its pins with it
                continue
            await self._follow(pin, *found)

    async def forget(self, app: App, actor: Actor, version_id: str = "") -> None:
        """An app was deleted, or one version of it: nothing of that is pinned any more."""
        if not version_id:
            await self._store.pins.set_keep_alive(f"{app.namespace}/{app.name}", None)
        for pin in await self._of_app(app.id):
            if version_id not in {"", pin.request.version_id}:
                continue
            change = recorded(Action.APP_UNPINNED, pin, actor, reason="it was deleted")
            try:
                await self._store.pins.remove(pin.id, change)
            except NotFound:  # somebody else was quicker
                continue

    async def unload(self, body: UnloadBody, actor: Actor) -> list[Unloading]:
        """Have instances unloaded that are idle. Busy ones stay, and so do pinned ones.

        Without a setup it needs no right to the app: whoever looks after machines may free them.

        Raises:
            NotFound: nothing of it is loaded there, says what is; or with a setup, no such app.
            Conflict: all of it is pinned.
        """
        ref, key = parse_ref(body.app), None
        if body.setup is not None:
            owner = Owner(user_id=actor.user_id, key_id=actor.key_id)
            _, app, version = await self._registry.resolve(body.app, owner.user_id)
            key = (await self._make(app, version, body.setup, owner))[0].setup_key
        engines = await self._store.engines.list()
        found = [
            (engine, resident)
            for engine, resident in loaded(engines, body.workers or ())
            if f"/{resident.app}".endswith(
                f"/{ref.namespace}/{ref.name}" if ref.namespace else f"/{ref.name}"
            )
            and resident.version_id.startswith(ref.version)
            and key in {None, plain_key(resident.setup_key)}
        ]
        if not found:
            raise NotFound(f"Nothing of {body.app} is loaded there that could be unloaded. {_what(engines)}")
        wanted = {pin.setup_key for pin in await self._store.pins.list() if not pin.once}
        states = [unloading(engine, resident, wanted) for engine, resident in found]
        if all(state.state is Going.PINNED for state in states):
            raise Conflict(f"{body.app} is pinned. Let it go first: stoker apps unpin {body.app}")
        for (engine, _), state in zip(found, states, strict=True):
            if state.state is Going.UNLOADING:
                await self._store.pins.ask_unload(engine.info.id, state.worker_id, state.setup_key)
        going = [state.worker_id for state in states if state.state is Going.UNLOADING]
        await self._store.audit.add(
            change_of(Action.APP_UNLOADED, body.app, actor, workers=", ".join(going), instances=len(going))
        )
        return states

    async def _make(
        self, app: App, version: AppVersion, given: dict[str, Any], owner: Owner
    ) -> tuple[Pin, list[str]]:
        """A pin for a version of an app, without what a request says of it; and setup values that are unknown."""
        known, unknown = known_only(version.setup_schema, given)
        setup = fill_defaults(version.setup_schema, known)
        self._registry.validate_setup(version, setup)
        granted = await self._grants.find(app, version, owner)
        request = TaskRequest(
            id=TaskId(""),
            app_id=app.id,
            app=f"{app.namespace}/{app.name}",
            version_id=version.id,
            function="",
            input=None,
            setup=setup,
            setup_key=setup_key(version.id, setup, granted.digest),
            env_key=version.env_key,
            setup_timeout_s=min(version.timeouts.setup, self._settings.task_bounds.timeout_max_s),
            has_secrets=bool(granted.digest),
        )
        owner = structs.replace(owner, secrets=granted.needs if granted.digest else ())
        return Pin(id="", request=request, needs=version.needs, owner=owner, setup=known), unknown

    async def _follow(self, pin: Pin, app: App, version: AppVersion) -> None:
        """Pin the same setup of a version, with the secrets of now; what was pinned stays where that cannot be."""
        owner = structs.replace(pin.owner, secrets=())
        try:
            made, _ = await self._make(app, version, pin.setup, owner)
        except CallerError as error:
            log.warning(Event.PIN_STAYED, pin_id=pin.id, app=pin.request.app, reason=error.message)
            return
        await self._put(structs.replace(pin, request=made.request, needs=made.needs, owner=made.owner))

    async def _put(self, pin: Pin, change: Change | None = None) -> None:
        try:
            await self._store.pins.put(pin, change)
        except ProtocolRefusal as refusal:
            raise Conflict(
                f"There are {MAX_PINS} pins and loads, which is the limit. Remove some: stoker apps pins, then "
                "stoker apps unpin; loads that were wanted once go by themselves."
            ) from refusal

    async def _of_app(self, app_id: str) -> list[Pin]:
        return [pin for pin in await self._store.pins.list() if pin.request.app_id == app_id]

    async def _id_for(self, made: Pin, *, once: bool, follows: bool) -> str:
        """The id of what the same user asked for already, or a new one.

        The setup key alone does not tell: one with an older version, or an older secret, is meant as well.
        """
        mine = [
            pin
            for pin in await self._store.pins.list()
            if pin.once is once and pin.owner.user_id == made.owner.user_id
        ]
        for pin in mine:
            both_follow = pin.follows and follows and pin.request.app_id == made.request.app_id
            if pin.setup_key == made.setup_key or (both_follow and pin.request.setup == made.request.setup):
                return pin.id
        if once and len(mine) >= MAX_LOADS:
            raise Conflict(
                f"You have asked for {MAX_LOADS} loads in the last {ONCE_KEPT_S / 60:.0f} minutes, which is the limit. "
                "Run the app, or wait."
            )
        return new_id("warm_" if once else "pin_")

    async def _check_workers(self, wanted: Iterable[str], *, once: bool) -> list[dict[str, Any]]:
        """What to tell whoever pins to workers that are not there: they may come.

        Raises:
            InvalidRequest: what is wanted now, and once, cannot wait for them.
        """
        engines = await self._registry.engines()
        known = {name for engine in engines for name in names_of(engine)}
        unknown = [name for name in wanted if name not in known]
        if not unknown:
            return []
        text = (
            f"workers: {', '.join(map(repr, unknown))} unknown; known: {', '.join(sorted(known)) or 'none'} "
            "(stoker workers list)"
        )
        if once:
            raise InvalidRequest(f"Input validation failed: {text}")
        text += ". It is loaded there when such a worker joins."
        return [{"level": "warning", "code": "worker_unknown", "message": text}]


def check_counts(body: PinBody) -> None:
    """Whether the numbers of a request can be meant.

    Raises:
        InvalidRequest: names the field.
    """
    if not 0 <= body.copies <= MAX_COPIES:
        raise InvalidRequest(
            f"Input validation failed: copies: {body.copies} is out of range; it may be 1 to {MAX_COPIES}, or 0: one "
            "on each worker that is named, else one"
        )
    if len(body.workers or ()) > MAX_NAMES:
        raise InvalidRequest(f"Input validation failed: workers: at most {MAX_NAMES} names")


def recorded(action: Action, pin: Pin, actor: Actor, **detail: object) -> Change:
    """The record of a change of a pin."""
    return change_of(
        action,
        pin.request.app,
        actor,
        id=pin.id,
        version=pin.request.version_id[:8],
        setup_key=pin.setup_key,
        workers=", ".join(pin.workers),
        copies=pin.copies or "",
        **detail,
    )


def names_of(engine: EngineView) -> set[str]:
    """What a pin may call the workers of a machine."""
    return {engine.info.id, engine.info.name, *(worker.id for worker in engine.info.workers)} - {""}


def loaded(engines: Iterable[EngineView], workers: Sequence[str]) -> Iterable[tuple[EngineView, Resident]]:
    """What is loaded, or parked, for everybody, on these workers or on all."""
    for engine in engines:
        if engine.status not in {"running", "draining"}:
            continue
        for resident in (*engine.report.residents, *engine.report.parked):
            named = not workers or {engine.info.id, engine.info.name, resident.worker_id}.intersection(
                workers
            )
            stays = resident.state is ResidentState.STOPPING or session_of(resident.setup_key)
            if named and not stays:
                yield engine, resident


def unloading(engine: EngineView, resident: Resident, wanted: Collection[SetupKey]) -> Unloading:
    """What becomes of an instance that somebody wants to go, as far as its engine has told.

    Args:
        wanted: setups that are pinned, wherever that is.
    """
    pinned = resident.setup_key in wanted and resident.setup_key in engine.report.pins.get(
        resident.worker_id, ()
    )
    busy = resident.state is ResidentState.LOADING or (
        resident.state is ResidentState.BUSY and resident.task_id in engine.tasks
    )
    return Unloading(
        worker_id=resident.worker_id,
        setup_key=resident.setup_key,
        state=Going.PINNED if pinned else Going.BUSY if busy else Going.UNLOADING,
    )


def _what(engines: Iterable[EngineView]) -> str:
    names = sorted({resident.app for _, resident in loaded(engines, ())})
    return f"Loaded: {', '.join(names)} (stoker workers list)." if names else "Nothing is loaded at all."
