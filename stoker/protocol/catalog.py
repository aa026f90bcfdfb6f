"""Apps and their versions, and API keys."""

import asyncio

import msgspec

from stoker.core.apps import App, AppVersion, RetiredVersion
from stoker.core.audit import Action, Actor, Change, change_of
from stoker.core.errors import NotFound
from stoker.core.messages import ApiKey
from stoker.protocol.audit import Audit, note
from stoker.protocol.connection import Connection
from stoker.protocol.keys import Keys

_encode = msgspec.json.Encoder().encode
_app = msgspec.json.Decoder(App)
_version = msgspec.json.Decoder(AppVersion)
_retired = msgspec.json.Decoder(RetiredVersion)
_api_key = msgspec.json.Decoder(ApiKey)


def _values(reply: object) -> list[bytes]:
    """Values of a HGETALL or HVALS reply of either protocol version."""
    if isinstance(reply, dict):
        return list(reply.values())
    return list(reply) if isinstance(reply, (list, tuple)) else []


def _retired_field(version: AppVersion) -> str:
    return f"{version.app_id}/{version.id}"


class Catalog:
    """Apps and versions."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._call = connection.command
        self._keys = keys

    async def put_app(self, app: App) -> None:
        await self._call("HSET", self._keys.apps, app.id, _encode(app))

    async def add_app(self, app: App) -> str:
        """Store a new app under its name; the id of the app that has the name now, this one or another.

        Of two callers at the same time one wins, and the other learns who; its app is not stored then.
        """
        field = f"{app.namespace}/{app.name}"
        await self.put_app(app)  # first: a name never points at nothing
        if await self._call("HSETNX", self._keys.app_names, field, app.id):
            return app.id
        holder = await self._call("HGET", self._keys.app_names, field)
        if holder == app.id.encode():  # the reply to a first HSETNX was lost
            return app.id
        await self._call("HDEL", self._keys.apps, app.id)
        return "" if holder is None else str(holder.decode())

    async def get_app(self, app_id: str) -> App:
        """One app.

        Raises:
            NotFound: no app has this id.
        """
        raw = await self._call("HGET", self._keys.apps, app_id)
        if raw is None:
            raise NotFound("App not found")
        return _app.decode(raw)

    async def find_app(self, namespace: str, name: str) -> App | None:
        app_id = await self._call("HGET", self._keys.app_names, f"{namespace}/{name}")
        raw = None if app_id is None else await self._call("HGET", self._keys.apps, app_id)
        return None if raw is None else _app.decode(raw)

    async def list_apps(self) -> list[App]:
        """All apps, by name. Cost: one read of the whole catalogue; not for hot paths."""
        raw = _values(await self._call("HVALS", self._keys.apps))
        return sorted((_app.decode(value) for value in raw), key=lambda app: (app.namespace, app.name))

    async def apps_named(self, name: str) -> list[App]:
        """Apps of any namespace with this name."""
        return [app for app in await self.list_apps() if app.name == name]

    async def delete_app(self, app: App, now_ms: int) -> None:
        """Forget an app; the code of its versions stays for the tasks that need it (`retired`).

        Safe to repeat after a failure in between.
        """
        for version in await self.versions(app.id):
            await self.delete_version(version, now_ms)
        field = f"{app.namespace}/{app.name}"
        if await self._call("HGET", self._keys.app_names, field) == app.id.encode():
            await self._call("HDEL", self._keys.app_names, field)
        await self._call("HDEL", self._keys.apps, app.id)

    async def delete_version(self, version: AppVersion, now_ms: int) -> None:
        """Forget a version; its code stays for the tasks that need it."""
        entry = RetiredVersion(version=version, since_ms=now_ms)
        await self._call("HSET", self._keys.retired_versions, _retired_field(version), _encode(entry))
        await self._call("HDEL", self._keys.app_versions(version.app_id), version.id)

    async def retired(self) -> list[RetiredVersion]:
        """All versions that were removed and whose code is still kept."""
        raw = _values(await self._call("HVALS", self._keys.retired_versions))
        return [_retired.decode(value) for value in raw]

    async def forget_retired(self, version: AppVersion) -> None:
        await self._call("HDEL", self._keys.retired_versions, _retired_field(version))

    async def code_of(self, app_id: str, version_id: str) -> AppVersion:
        """The version that an accepted task runs, also after its removal.

        Raises:
            NotFound: it was removed long ago.
        """
        try:
            return await self.get_version(app_id, version_id)
        except NotFound:
            raw = await self._call("HGET", self._keys.retired_versions, f"{app_id}/{version_id}")
            if raw is None:
                raise
            return _retired.decode(raw).version

    async def put_version(self, version: AppVersion) -> None:
        await self._call("HSET", self._keys.app_versions(version.app_id), version.id, _encode(version))

    async def get_version(self, app_id: str, version: str) -> AppVersion:
        """A version by its id, or by the first characters of it when they are unique.

        Raises:
            NotFound: none, or several, begin so.
        """
        raw = await self._call("HGET", self._keys.app_versions(app_id), version)
        if raw is not None:
            return _version.decode(raw)
        found = [v for v in await self.versions(app_id) if v.id.startswith(version)]
        if len(found) != 1:
            known = ", ".join(v.short_id for v in await self.versions(app_id)) or "none"
            raise NotFound(f"App not found: version {version!r} names {len(found)} versions; known: {known}")
        return found[0]

    async def versions(self, app_id: str) -> list[AppVersion]:
        """All versions of an app, newest first."""
        raw = _values(await self._call("HVALS", self._keys.app_versions(app_id)))
        return sorted((_version.decode(value) for value in raw), key=lambda v: -v.created_ms)


class ApiKeys:
    """API keys, found by the hash of their text."""

    def __init__(self, connection: Connection, keys: Keys, audit: Audit) -> None:
        self._connection = connection
        self._call = connection.command
        self._keys = keys
        self._audit = audit

    async def put(self, key: ApiKey, change: Change | None = None) -> None:
        """Store a key, and record the change in the same round trip."""
        await asyncio.gather(
            self._call("HSET", self._keys.api_keys, key.sha256, _encode(key)),
            self._call("HSET", self._keys.api_key_ids, key.id, key.sha256),
            *self._recorded(change),
        )

    async def put_first(self, key: ApiKey, change: Change | None = None) -> bool:
        """Store a key if there is none, expired ones included, and record that; whether it is stored.

        Raises:
            StoreUnavailable: no answer; safe to repeat.

        Cost: one round trip. Script: lua/put_first_key.lua.
        """
        keys = [self._keys.api_keys, self._keys.api_key_ids, self._keys.audit]
        args = [key.sha256, key.id, _encode(key), *note(change)]
        [stored] = await self._connection.script("put_first_key", keys, args)
        return bool(stored)

    async def by_hash(self, sha256: str) -> ApiKey | None:
        raw = await self._call("HGET", self._keys.api_keys, sha256)
        return None if raw is None else _api_key.decode(raw)

    async def list(self, user_id: str = "") -> "list[ApiKey]":
        """The keys of one user, or all, oldest first."""
        found = [_api_key.decode(raw) for raw in _values(await self._call("HVALS", self._keys.api_keys))]
        return sorted((k for k in found if not user_id or k.user_id == user_id), key=lambda k: k.created_ms)

    async def delete(self, key_id: str, change: Change | None = None) -> None:
        """Forget a key, and record the change in the same round trip.

        Raises:
            NotFound: no key has this id.
        """
        sha256 = await self._call("HGET", self._keys.api_key_ids, key_id)
        if sha256 is None:
            raise NotFound("API key not found")
        await asyncio.gather(
            self._call("HDEL", self._keys.api_keys, sha256),
            self._call("HDEL", self._keys.api_key_ids, key_id),
            *self._recorded(change),
        )

    async def sweep(self, before_ms: int) -> tuple[ApiKey, ...]:
        """Forget the keys that expired before a time; which those were."""
        gone = tuple(key for key in await self.list() if key.expired(before_ms))
        for key in gone:
            await self.delete(
                key.id, change_of(Action.KEY_EXPIRED, key.id, Actor(), user=key.user_id, name=key.name)
            )
        return gone

    def _recorded(self, change: Change | None) -> "tuple[asyncio.Future[bytes], ...]":
        return () if change is None else (self._audit.start(change),)
