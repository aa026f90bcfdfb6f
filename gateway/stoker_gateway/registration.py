"""Registering apps and versions. Nothing that a client says of its code is believed where the code itself says it.

The uploaded bundle is read again: the version's id is the hash of what is in it, and kernel, variables, resources
and secrets are those of its inf.yml. What only running the code can tell (functions and their schemas) is checked
for its form.
"""

import asyncio
import tempfile
from pathlib import Path
from typing import Any, Final

import jsonschema_rs
from msgspec import UNSET, Struct, UnsetType, structs

from stoker import bundles, manifest
from stoker.bundles import Contents, Limits
from stoker.core.apps import App, AppFunction, AppVersion
from stoker.core.errors import Conflict, InvalidRequest, NotFound
from stoker.core.ids import new_id, short_id
from stoker.core.messages import Owner, StoredFile
from stoker.core.refs import parse_ref
from stoker.core.requirements import check_name, wanted
from stoker.files import FileStore, file_key
from stoker.manifest import Manifest
from stoker.protocol import Store
from stoker_gateway.clock import now_ms

DEFAULT_NAMESPACE: Final = "local"
VISIBILITIES: Final = ("private", "public", "unlisted")
ENTRY_FILES: Final = ("inference.py", "inference.js", "src/inference.js")
CODE_ROLE: Final = "app"
"""Of a stored file that is the code of a version: it can be neither replaced nor deleted as a file."""
MAX_FUNCTIONS: Final = 200
_INSPECTIONS: Final = 2
"""At the same time; each reads up to `max_app_bytes` in a thread."""
EXISTS: Final = {
    "level": "info",
    "code": "version_exists",
    "message": "This very version was there already; nothing was added to it.",
}


class GpuResources(Struct, frozen=True, kw_only=True):
    """GPUs that an app needs; `vram` in bytes."""

    count: int = 0
    vram: int = 0
    type: str = "none"


class Resources(Struct, frozen=True, kw_only=True):
    """What an app needs; `ram` in bytes."""

    gpu: GpuResources = GpuResources()
    ram: int = 0


class NewVersion(Struct, kw_only=True):
    """A version to register. Its bundle was uploaded before; what is left out is read from the bundle."""

    bundle_file_id: str
    functions: dict[str, AppFunction]
    setup_schema: dict[str, Any] = {}
    env_key: str = ""
    id: str = ""
    checksum: str = ""
    kernel: str | None = None
    default_function: str | None = None
    env: dict[str, str] | None = None
    resources: Resources | None = None


class AppChange(Struct, kw_only=True):
    """What may change about an app; what is left out stays."""

    name: str | UnsetType = UNSET
    namespace: str | UnsetType = UNSET
    title: str | UnsetType = UNSET
    description: str | UnsetType = UNSET
    agent_description: str | UnsetType = UNSET
    category: str | UnsetType = UNSET
    images: dict[str, str] | UnsetType = UNSET
    visibility: str | UnsetType = UNSET
    version: NewVersion | None = None
    preserve_current_version: bool = False


class NewApp(AppChange, kw_only=True):
    """An app to register, or with `id` or a known name a new version of one."""

    id: str = ""


Registered = tuple[App, AppVersion | None, list[dict[str, Any]]]


class Registrar:
    """Adds and changes apps of one user at a time."""

    def __init__(self, store: Store, files: FileStore, limits: Limits) -> None:
        self._store = store
        self._files = files
        self._limits = limits
        self._inspecting = asyncio.Semaphore(_INSPECTIONS)

    async def register(self, data: NewApp, owner: Owner) -> Registered:
        """Make an app, or change one and add a version to it.

        Returns:
            The app, the version that was named (or None), and messages for the envelope.

        Raises:
            InvalidRequest: names the field; or the bundle is not what it was said to be.
            Conflict: the name is somebody else's.
            NotFound: no app of this user has the id.
        """
        app = await self._existing(data, owner)
        return await self._create(data, owner) if app is None else await self.change(app, data)

    async def change(self, app: App, data: AppChange) -> Registered:
        """Change an app of the caller, and add a version to it when one is given.

        Raises:
            InvalidRequest: names the field; or the bundle is not what it was said to be.
        """
        for field, old in (("name", app.name), ("namespace", app.namespace)):
            new = getattr(data, field)
            if new not in (UNSET, old):
                raise InvalidRequest(
                    f"Input validation failed: {field}: {old!r} cannot become {new!r}: references to the app would "
                    "break. Deploy it under the new name."
                )
        app = changed(app, data)
        version: AppVersion | None = None
        messages: list[dict[str, Any]] = []
        if data.version is not None:
            version, messages = await self._add_version(app, data.version)
        # Read again: what others changed meanwhile (the inspection takes a while) must not be undone.
        app = changed(await self._store.catalog.get_app(app.id), data)
        if version is not None and not data.preserve_current_version:
            app = structs.replace(app, current_version_id=version.id, alias_of="", alias_setup={})
        await self._store.catalog.put_app(app)
        return app, version, messages

    async def _existing(self, data: NewApp, owner: Owner) -> App | None:
        if data.id:
            app = await self._store.catalog.get_app(data.id)
            if app.owner_id != owner.user_id:
                raise NotFound("App not found")
            return app
        if not data.name:
            raise InvalidRequest("Input validation failed: name: say what the app is called")
        namespace = data.namespace or DEFAULT_NAMESPACE
        parse_ref(f"{namespace}/{data.name}")
        found = await self._store.catalog.find_app(namespace, data.name)
        if found is not None and found.owner_id != owner.user_id:
            raise taken(namespace, data.name)
        return found

    async def _create(self, data: NewApp, owner: Owner) -> Registered:
        now, app_id = now_ms(), new_id()
        namespace, name = str(data.namespace or DEFAULT_NAMESPACE), str(data.name)
        app = App(
            id=app_id,
            short_id=short_id(app_id),
            namespace=namespace,
            name=name,
            owner_id=owner.user_id,
            created_ms=now,
        )
        app = changed(app, data)
        version: AppVersion | None = None
        messages: list[dict[str, Any]] = []
        if data.version is not None:
            version, messages = await self._add_version(app, data.version)
            app = structs.replace(app, current_version_id=version.id)
        if await self._store.catalog.add_app(app) != app.id:
            if version is not None:
                await self._store.catalog.delete_version(version, now_ms())
            raise taken(namespace, name)
        return app, version, messages

    async def _add_version(self, app: App, new: NewVersion) -> tuple[AppVersion, list[dict[str, Any]]]:
        """Store a version unless it is there: a version never changes."""
        file = await self._bundle(app, new.bundle_file_id)
        check_functions(new)
        contents = await self._inspect(file)
        app_file = manifest_of(contents)
        check_declared(new, contents, app_file)
        for need in wanted(app_file.secrets, app_file.integrations):
            check_name(need.key, "inf.yml: secrets")
        for version in await self._store.catalog.versions(app.id):
            if version.id == contents.version_id:
                if version.bundle_file_id != file.id and not file.role:  # not the code of another version
                    await self._files.delete(file_key(file.id))
                    await self._store.files.delete(file)
                return version, [EXISTS]
        await self._store.files.put(structs.replace(file, role=CODE_ROLE))
        version = AppVersion(
            id=contents.version_id,
            short_id=short_id(contents.version_id),
            app_id=app.id,
            created_ms=now_ms(),
            kernel=app_file.kernel or "python-3.11",
            functions=new.functions,
            default_function=default_function(app_file.default_function, new.functions),
            setup_schema=new.setup_schema,
            env=app_file.env,
            needs=app_file.needs,
            secrets=app_file.secrets,
            integrations=app_file.integrations,
            env_key=new.env_key,
            bundle_file_id=file.id,
            metadata=app_file.metadata,
            timeouts=app_file.timeouts,
            retry=app_file.retry,
            keep_alive_s=app_file.keep_alive_s,
        )
        await self._store.catalog.put_version(version)
        return version, []

    async def _bundle(self, app: App, file_id: str) -> StoredFile:
        try:
            file = await self._store.files.get(file_id)
        except NotFound:
            file = None
        if file is None or file.owner_id != app.owner_id or not file.uploaded:
            raise InvalidRequest(
                "Input validation failed: version.bundle_file_id: upload the bundle first (POST /files)"
            )
        return file

    async def _inspect(self, file: StoredFile) -> Contents:
        """Read a stored bundle in a thread, from a copy that nobody can replace meanwhile."""
        async with self._inspecting:
            with tempfile.TemporaryDirectory(prefix="stoker-inspect-") as folder:
                copy = Path(folder) / "bundle.tar.gz"
                with copy.open("wb") as out:
                    async for chunk in self._files.get(file_key(file.id)):
                        await asyncio.to_thread(out.write, chunk)
                return await asyncio.to_thread(bundles.inspect, copy, self._limits, (manifest.FILE_NAME,))


def changed(app: App, data: AppChange) -> App:
    """An app with what a request changes, its versions apart.

    Raises:
        InvalidRequest: an unknown visibility.
    """
    if data.visibility not in {UNSET, "", *VISIBILITIES}:
        raise InvalidRequest(
            f"Input validation failed: visibility: {data.visibility!r} is unknown; "
            f"it may be {', '.join(VISIBILITIES)}"
        )
    fields = ("title", "description", "agent_description", "category", "images", "visibility")
    changes = {name: getattr(data, name) for name in fields if getattr(data, name) is not UNSET}
    if not changes.get("visibility", "x"):
        del changes["visibility"]  # older clients send an empty one
    return structs.replace(app, updated_ms=now_ms(), **changes)


def manifest_of(contents: Contents) -> Manifest:
    """The inf.yml of a bundle.

    Raises:
        InvalidRequest: it has none, or no code beside it.
        BadManifest: it cannot be used.
    """
    raw = contents.texts.get(manifest.FILE_NAME)
    names = {entry.name for entry in contents.entries}
    if raw is None or names.isdisjoint(ENTRY_FILES):
        missing = manifest.FILE_NAME if raw is None else " or ".join(ENTRY_FILES)
        raise InvalidRequest(f"The bundle is no app: it has no {missing} at its top.")
    return manifest.parse_text(raw)


def check_declared(new: NewVersion, contents: Contents, app_file: Manifest) -> None:
    """Compare what a client declares with what its bundle holds.

    Raises:
        InvalidRequest: names every field that differs, with both values.
    """
    gpu = (new.resources or Resources()).gpu
    needs = app_file.needs
    resources = None
    if new.resources is not None:
        resources = (gpu.count, gpu.vram, gpu.type or "none", new.resources.ram)
    rows: tuple[tuple[str, object, object], ...] = (
        ("id", new.id or None, contents.version_id),
        ("checksum", new.checksum or None, contents.version_id),
        ("kernel", new.kernel or None, app_file.kernel or "python-3.11"),
        ("env", new.env, app_file.env),
        (
            "resources (gpu.count, gpu.vram, gpu.type, ram)",
            resources,
            (needs.gpu_count, needs.vram_bytes, needs.gpu_type.value, needs.ram_bytes),
        ),
        (
            "default_function",
            new.default_function or None,
            default_function(app_file.default_function, new.functions),
        ),
    )
    wrong = [
        f"version.{name}: {declared!r} was declared, the bundle says {found!r}"
        for name, declared, found in rows
        if declared is not None and declared != found
    ]
    if wrong:
        raise InvalidRequest(f"Input validation failed: {'; '.join(wrong)}")


def check_functions(new: NewVersion) -> None:
    """Whether functions and schemas have the form that runs rely on.

    Raises:
        InvalidRequest: names the function and what is wrong with it.
    """
    if not 1 <= len(new.functions) <= MAX_FUNCTIONS:
        raise InvalidRequest(
            f"Input validation failed: version.functions: 1 to {MAX_FUNCTIONS}, not {len(new.functions)}"
        )
    for name, function in new.functions.items():
        if function.name != name or not name.isidentifier():
            raise InvalidRequest(
                f"Input validation failed: version.functions.{name}: its name is {function.name!r}"
            )
        check_schema(f"version.functions.{name}.input_schema", function.input_schema)
        check_schema(f"version.functions.{name}.output_schema", function.output_schema)
    check_schema("version.setup_schema", new.setup_schema)


def check_schema(field: str, schema: dict[str, Any]) -> None:
    """Whether a schema is a JSON schema.

    Raises:
        InvalidRequest: it is none; says why.
    """
    try:
        # Without $schema: its address would be fetched.
        jsonschema_rs.meta.validate({key: value for key, value in schema.items() if key != "$schema"})
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError) as error:
        text = getattr(error, "message", "") or str(error)
        raise InvalidRequest(f"Input validation failed: {field} is no JSON schema: {text[:200]}") from error


def default_function(wanted: str, functions: dict[str, AppFunction]) -> str:
    """The function that runs when none is named: the declared one, else the only one.

    Raises:
        InvalidRequest: inf.yml names one that is not there.
    """
    if wanted in functions:
        return wanted
    if wanted != manifest.DEFAULT_FUNCTION:
        raise InvalidRequest(
            f"inf.yml says default_function: {wanted!r}, which is not a function of the app; "
            f"it has {', '.join(sorted(functions))}"
        )
    return next(iter(functions)) if len(functions) == 1 else wanted


def taken(namespace: str, name: str) -> Conflict:
    return Conflict(f"The name {namespace}/{name} belongs to somebody else. Choose another namespace.")


def check_visibility(value: str) -> str:
    """`value` when it is a visibility.

    Raises:
        InvalidRequest: it is not.
    """
    if value not in VISIBILITIES:
        raise InvalidRequest(
            f"Input validation failed: visibility: {value!r} is unknown; it may be {', '.join(VISIBILITIES)}"
        )
    return value
