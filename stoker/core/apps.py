"""Apps and their versions, as they are stored and as one part tells another."""

from typing import Any

from msgspec import Struct

from stoker.core.limits import Retry, Timeouts
from stoker.core.messages import FlowRef, IntegrationNeed, Needs, SecretNeed


class AppFunction(Struct, frozen=True, kw_only=True):
    """One callable of an app."""

    name: str
    description: str = ""
    input_schema: dict[str, Any] = {}
    output_schema: dict[str, Any] = {}


class AppVersion(Struct, frozen=True, kw_only=True):
    """An immutable version; `id` is the hash of its content."""

    id: str
    short_id: str
    app_id: str
    created_ms: int
    kernel: str = "python-3.11"
    functions: dict[str, AppFunction] = {}
    default_function: str = "run"
    setup_schema: dict[str, Any] = {}
    env: dict[str, str] = {}
    needs: Needs = Needs()
    secrets: tuple[SecretNeed, ...] = ()
    integrations: tuple[IntegrationNeed, ...] = ()
    env_key: str = ""
    bundle_file_id: str = ""
    metadata: dict[str, Any] = {}
    timeouts: Timeouts = Timeouts()
    retry: Retry = Retry()
    flow: FlowRef | None = None
    keep_alive_s: float | None = None  # how long its instances stay after their last task; None = not said


class RetiredVersion(Struct, frozen=True, kw_only=True):
    """A version that was removed; its code stays until no task needs it."""

    version: AppVersion
    since_ms: int


class App(Struct, frozen=True, kw_only=True):
    """An app: a name that points at its current version."""

    id: str
    short_id: str
    namespace: str
    name: str
    owner_id: str
    visibility: str = "private"
    title: str = ""
    description: str = ""
    agent_description: str = ""
    category: str = "other"
    images: dict[str, str] = {}
    status: str = "active"  # active | maintenance | deprecated | retired
    status_message: str = ""
    status_changed_ms: int = 0
    license: str = ""
    current_version_id: str = ""
    keep_alive_s: float | None = None  # stronger than what the version says
    alias_of: str = ""  # reference of the app that runs in its place; it has no versions of its own then
    alias_setup: dict[str, Any] = {}  # what that one is set up with, where the caller says nothing else
    created_ms: int = 0
    updated_ms: int = 0
