"""Apps by reference, and compiled validators, remembered for a moment so that a hot submit asks Redis for nothing."""

import difflib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import jsonschema_rs
from msgspec import structs

from stoker.core.apps import App, AppFunction, AppVersion
from stoker.core.errors import InvalidRequest, NotFound
from stoker.core.messages import EngineView
from stoker.core.refs import AppRef, parse_ref
from stoker.core.schema_errors import schema_errors
from stoker.protocol import Store
from stoker.runs.file_fields import with_maps

FRESH_S = 1.0
"""How long another gateway's deploy may stay unseen here."""
_KEPT = 1000
_SETUP = "setup"
"""Where a setup's fields lie in a request; no function can have this name."""

Found = tuple[App, AppVersion]


class Registry:
    """Looks apps, versions and workers up, and validates inputs."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._found: dict[tuple[str, str], tuple[float, Found]] = {}
        self._engines: tuple[float, list[EngineView]] = (0.0, [])
        self._validators: dict[tuple[str, str, str], jsonschema_rs.Validator | None] = {}

    def forget(self) -> None:
        """Look everything up anew: an app was deployed, changed or deleted here."""
        self._found.clear()

    async def resolve(self, text: str, user_id: str) -> tuple[AppRef, App, AppVersion]:
        """The app and version that a reference names, for one user.

        Raises:
            InvalidRequest: the text is no reference.
            NotFound: nothing that this user may see fits; names the candidates.
        """
        ref = parse_ref(text)
        app, version = await self._fresh((user_id, text), lambda: self._look_up(ref, user_id))
        return ref, app, version

    async def by_id(self, app_id: str, version_id: str, user_id: str) -> Found:
        """An app by its id and a version of it; an empty `version_id` is the current one.

        Raises:
            NotFound: no such app or version for this user.
        """
        app = await self._store.catalog.get_app(app_id)
        if not visible(app, user_id):
            raise NotFound("App not found")
        if app.alias_of:
            return await self._aliased(app, user_id)
        return app, await self._version(app, version_id)

    async def app_named(self, text: str, user_id: str) -> App:
        """An app by `namespace/name`, or by its name alone where that names one.

        Raises:
            NotFound: nothing that this user may see fits; names the candidates.
        """
        try:
            ref = parse_ref(text)
        except InvalidRequest as error:
            raise NotFound("App not found") from error
        return await self._app(ref, user_id)

    async def engines(self) -> list[EngineView]:
        """All engines, at most `FRESH_S` old."""
        at, engines = self._engines
        if at + FRESH_S < time.monotonic():
            engines = await self._store.engines.list()
            self._engines = (time.monotonic(), engines)
        return engines

    def validate(self, version: AppVersion, function: AppFunction, value: Any) -> None:
        """Check an input against a function's schema.

        Raises:
            InvalidRequest: lists the fields and what is wrong with each.
        """
        self._check((version.app_id, version.id, function.name), function.input_schema, value, "")

    def validate_setup(self, version: AppVersion, setup: Mapping[str, Any]) -> None:
        """Check a completed setup against its schema: a wrong one would cost a load before the app says so.

        Raises:
            InvalidRequest: lists the fields and what is wrong with each.
        """
        self._check((version.app_id, version.id, _SETUP), version.setup_schema, setup, _SETUP)

    def validate_flow_input(
        self, flow_id: str, version_id: str, schema: Mapping[str, Any], value: Any
    ) -> None:
        """Check the input of a flow that need not be an app.

        Raises:
            InvalidRequest: lists the fields and what is wrong with each.
        """
        self._check((flow_id, version_id, ""), schema, value, "")

    def _check(self, key: tuple[str, str, str], schema: Mapping[str, Any], value: Any, root: str) -> None:
        if key not in self._validators:
            if len(self._validators) >= _KEPT:
                self._validators.clear()
            self._validators[key] = compiled(schema)
        validator = self._validators[key]
        wrong = "" if validator is None else schema_errors(validator, value, "input", root)
        if wrong:
            raise InvalidRequest(f"Input validation failed: {wrong}")

    async def _fresh(self, key: tuple[str, str], look_up: Callable[[], Awaitable[Found]]) -> Found:
        at, found = self._found.get(key, (0.0, None))
        if found is not None and at + FRESH_S > time.monotonic():
            return found
        found = await look_up()
        if len(self._found) >= _KEPT:
            self._found.clear()
        self._found[key] = (time.monotonic(), found)
        return found

    async def _look_up(self, ref: AppRef, user_id: str) -> Found:
        app = await self._app(ref, user_id)
        if app.alias_of:
            return await self._aliased(app, user_id)
        return app, await self._version(app, ref.version)

    async def _aliased(self, alias: App, user_id: str) -> Found:
        """What runs under another name. A version that the caller named was one of the name's first owner."""
        ref = parse_ref(alias.alias_of)
        app = await self._app(ref, user_id)
        if app.alias_of:
            raise NotFound(
                f"App not found: {alias.namespace}/{alias.name} stands for {ref}, which stands for another one itself"
            )
        return app, set_up(await self._version(app, ref.version), alias.alias_setup)

    async def _app(self, ref: AppRef, user_id: str) -> App:
        catalog = self._store.catalog
        if ref.namespace:
            app = await catalog.find_app(ref.namespace, ref.name)
            if app is not None and visible(app, user_id):
                return app
            named = []
        else:
            named = [app for app in await catalog.apps_named(ref.name) if visible(app, user_id)]
            own = [app for app in named if app.owner_id == user_id]
            for choice in (own, named):
                if len(choice) == 1:
                    return choice[0]
        known = named or [app for app in await catalog.list_apps() if listed(app, user_id)]
        raise NotFound("App not found" + candidates(ref, known, several=bool(named)))

    async def _version(self, app: App, version: str) -> AppVersion:
        if not (version or app.current_version_id):
            raise NotFound(f"App not found: {app.namespace}/{app.name} has no current version; deploy one")
        return await self._store.catalog.get_version(app.id, version or app.current_version_id)


def set_up(version: AppVersion, setup: Mapping[str, Any]) -> AppVersion:
    """A version whose setup has these values by default."""
    if not setup:
        return version
    known = version.setup_schema.get("properties", {})
    filled = {name: {**known.get(name, {}), "default": value} for name, value in setup.items()}
    return structs.replace(version, setup_schema={**version.setup_schema, "properties": {**known, **filled}})


def candidates(ref: AppRef, known: list[App], *, several: bool = False) -> str:
    """A hint that begins after the contract's words, or nothing."""
    names = [f"{app.namespace}/{app.name}" for app in known]
    if several:
        return f": {ref} names several: {', '.join(names[:5])}. Say which, with its namespace."
    wanted = f"{ref.namespace}/{ref.name}" if ref.namespace else ref.name
    near = [
        name for name in names if ref.name in name.rsplit("/", 1)[-1] or name.rsplit("/", 1)[-1] in ref.name
    ]
    spelled = {name if ref.namespace else name.rsplit("/", 1)[-1]: name for name in names}
    near += [spelled[text] for text in difflib.get_close_matches(wanted, spelled, n=3)]
    shown = list(dict.fromkeys(near))[:5]
    return f": {ref} names none; did you mean {', '.join(shown)}?" if shown else ""


def listed(app: App, user_id: str) -> bool:
    """Whether a user finds an app in lists."""
    return app.owner_id == user_id or app.visibility == "public"


def visible(app: App, user_id: str) -> bool:
    """Whether a user may run an app."""
    return app.owner_id == user_id or app.visibility in {"public", "unlisted"}


def compiled(schema: Mapping[str, Any]) -> jsonschema_rs.Validator | None:
    """A validator; None for a schema that says nothing or cannot be compiled (the app's own model checks then)."""
    if not schema:
        return None
    try:
        return jsonschema_rs.validator_for(with_maps(dict(schema)), retriever=_refuse)
    except (ValueError, RecursionError, jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError):
        return None


def _refuse(uri: str) -> Any:
    raise ValueError(f"schemas are not fetched: {uri}")
