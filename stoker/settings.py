"""Every setting of every part: one class a part, each field with a default, a unit, bounds and one sentence.

A value comes from the first of: a command-line flag, the environment (`STOKER_<FIELD>`), `stoker.yml`, the
default. Nothing else in Stoker reads the environment, and nothing is read at import. `load` is the only way
in; it turns what is wrong into one error that names the setting, what was found and where it came from.
"""

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal, Self, TypeVar

import yaml
from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from stoker.access_settings import KeyRetentionFields
from stoker.agent_settings import ChatFields, StepFields
from stoker.core.errors import CallerError
from stoker.core.ids import DEFAULT_POOL
from stoker.core.messages import CANCEL_GRACE_MS
from stoker.data_dir_settings import DataDirFields
from stoker.enrolment_settings import EnrolmentFields, JoinFields
from stoker.environment_settings import EnvironmentFields
from stoker.fetch_settings import FetchFields
from stoker.file_settings import FileFields
from stoker.parking_settings import ParkingFields
from stoker.path_settings import WholePath
from stoker.queue_settings import QueueFields
from stoker.retry_settings import QuarantineFields
from stoker.secret_settings import (
    PRIVATE_FIELDS,
    KeyRingFields,
    SecretFields,
    without_password,
    yaml_problem,
)
from stoker.server_address import embedded_url, parse_redis
from stoker.skill_settings import SkillFields
from stoker.slot_settings import WorkerSlots
from stoker.store_settings import StoreFields
from stoker.tls_settings import ServerTlsFields, TlsFields
from stoker.webhook_settings import WebhookFields

PREFIX: Final = "STOKER_"
CONFIG_PLACES: Final = ("stoker.yml", "~/.config/stoker/stoker.yml", "/etc/stoker/stoker.yml")
"""Where the settings file is looked for, unless STOKER_CONFIG names it; the first that exists counts."""

MIB: Final = 1024 * 1024
DAY_S: Final = 86_400


class InvalidSettings(CallerError):
    """A setting is not valid."""

    code = "invalid_settings"


def config_file() -> Path | None:
    """The settings file in use, or None.

    Raises:
        InvalidSettings: STOKER_CONFIG names a file that does not exist.
    """
    if named := os.environ.get("STOKER_CONFIG"):
        path = Path(named).expanduser()
        if not path.is_file():
            raise InvalidSettings(f"STOKER_CONFIG names '{path}', which is not a file")
        return path
    places = (Path(place).expanduser() for place in CONFIG_PLACES)
    return next((path for path in places if path.is_file()), None)


def file_values() -> dict[str, Any]:
    """What the settings file says; empty without one.

    Raises:
        InvalidSettings: the file is no YAML mapping, or holds a name that no setting has.
    """
    path = config_file()
    if path is None:
        return {}
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidSettings(f"cannot read the settings file '{path}': {error}") from error
    except yaml.YAMLError as error:
        # Not with the error's own text, nor as its cause: it quotes the line, which may hold a secret.
        raise InvalidSettings(f"cannot read the settings file '{path}': {yaml_problem(error)}") from None
    if not isinstance(values, dict):
        raise InvalidSettings(f"the settings file '{path}' must be a mapping of names to values")
    if unknown := sorted(str(name) for name in values if name not in field_names()):
        raise InvalidSettings(
            f"the settings file '{path}' has unknown names: {', '.join(unknown)}; "
            f"known: {', '.join(sorted(field_names()))}"
        )
    return values


class _FileSource(PydanticBaseSettingsSource):
    """The settings file as a source of pydantic-settings."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:  # noqa: ARG002 - interface
        return file_values().get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        known = self.settings_cls.model_fields
        return {name: value for name, value in file_values().items() if name in known}


class CommonSettings(BaseSettings, DataDirFields, StoreFields, TlsFields):
    """What every part needs to find the others."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,  # what a compose file hands on unset says nothing
        extra="ignore",
        frozen=True,
    )

    pool: str = Field(
        default=DEFAULT_POOL,
        pattern=r"^[a-z0-9][a-z0-9-]{0,31}$",
        description="Scheduling domain that this part belongs to.",
    )
    public_url: str = Field(
        default="",
        description="Address under which clients reach the gateway; empty = http://host:port.",
    )
    internal_url: str = Field(
        default="",
        description="Address under which workers reach the gateway; empty = the public one.",
    )
    lease_s: float = Field(
        default=15,
        ge=1,
        le=300,
        description="Seconds that a worker machine may be silent before its tasks are taken back.",
    )
    max_app_bytes: int = Field(
        default=2 * 1024 * MIB, ge=MIB, description="Largest code of an app version, unpacked, in bytes."
    )
    log_json: bool = Field(
        default=True, description="Log one JSON object a line; off = coloured text for people."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severity that is logged."
    )

    @field_validator("public_url", "internal_url", mode="after")
    @classmethod
    def _no_slash(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic's interface; we read no .env
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - nor a secrets directory
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings, _FileSource(settings_cls)

    @property
    def store_url(self) -> str:
        """The Redis to connect to: the named one, else the embedded server's socket."""
        return self.secured(self.redis_url) or embedded_url(self.data_dir)


class FilesSettings(CommonSettings, FileFields):
    """What the parts need that keep files, or remove them."""

    @property
    def files_folder(self) -> str:
        """Where below its place this pool keeps its files; empty = at the place itself.

        Pools may have one place, and each removes what lies there without a record of its own.
        """
        return "" if self.pool == DEFAULT_POOL else f"pools/{self.pool}"

    @property
    def files_dir(self) -> Path:
        """Where this machine keeps uploaded and produced files, or those that are on their way to a bucket."""
        return self.data_dir / "files" / self.files_folder


class VaultSettings(FilesSettings, KeyRingFields):
    """What the parts need besides that open secrets: the gateway for apps, the jobs for webhooks and tools."""

    @property
    def secrets_key_path(self) -> Path:
        """`secrets_key_file` with its default filled in."""
        return self.secrets_key_file or self.data_dir / "secrets-key"


class GatewaySettings(
    VaultSettings, SecretFields, EnrolmentFields, ServerTlsFields, QueueFields, ChatFields, SkillFields
):
    """The front door."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=8787, ge=0, le=65535, description="TCP port to listen on; 0 = any free one.")
    listen_fd: int = Field(
        default=-1,
        ge=-1,
        description="Inherited listening socket, set by `stoker up` so that a new gateway keeps its port.",
    )
    max_body_bytes: int = Field(
        default=4 * MIB, ge=1024, le=256 * MIB, description="Largest JSON body that is read, in bytes."
    )
    max_upload_bytes: int = Field(
        default=10 * 1024 * MIB, ge=1024, description="Largest file that can be uploaded, in bytes."
    )
    upload_ttl_s: float = Field(
        default=3600, ge=10, le=7 * DAY_S, description="Seconds that an upload address is good for."
    )
    rate_run: int = Field(default=100, ge=0, description="Runs a minute and key; 0 = unlimited.")
    rate_get: int = Field(default=1000, ge=0, description="Reads a minute and key; 0 = unlimited.")
    rate_upload: int = Field(default=50, ge=0, description="Uploads a minute and key; 0 = unlimited.")
    cancel_grace_s: float = Field(
        default=CANCEL_GRACE_MS / 1000,
        ge=0,
        le=600,
        description="Seconds that a cancelled task has to end by itself, where the caller says nothing else.",
    )
    heartbeat_s: float = Field(
        default=10, ge=0.1, le=60, description="Seconds between keep-alive lines on a quiet stream."
    )
    resend_s: float = Field(
        default=15,
        ge=0.1,
        le=60,
        description="Seconds after which a quiet stream repeats the whole task: silence would end it.",
    )
    allowed_origins: tuple[str, ...] = Field(
        default=(), description="Web origins whose pages may call the API; '*' = all."
    )


class SchedulerSettings(CommonSettings, QuarantineFields):
    """The part that decides which worker runs which task."""

    leader_ttl_s: float = Field(
        default=5, ge=0.5, le=60, description="Seconds after which a silent scheduler loses the lead."
    )
    no_match_timeout_s: float = Field(
        default=600, ge=1, description="Seconds that a task waits for a worker that could run it at all."
    )
    queue_timeout_s: float = Field(
        default=DAY_S, ge=1, description="Seconds that a task waits in the queue before it fails."
    )
    age_cap_s: float = Field(
        default=120, ge=0, description="Seconds that a task may be passed by tasks whose model is warm."
    )
    hold_timeout_s: float = Field(
        default=DAY_S,
        ge=60,
        description="Seconds after which a task is taken from a worker machine that is stuck; later if it has a run "
        "timeout and its parts together may take longer.",
    )
    engine_forget_s: float = Field(
        default=7 * DAY_S,
        ge=3600,
        description="Seconds after which a worker machine that is away is known no more; it may come back at any time.",
    )
    look_ahead: int = Field(
        default=1,
        ge=0,
        le=16,
        description="Short tasks that a worker may hold beside the one it runs, of the same setup.",
    )
    short_task_s: float = Field(
        default=0.05, ge=0, le=10, description="Seconds below which a learned run time counts as short."
    )
    idle_unload_s: float = Field(
        default=0,
        ge=0,
        description="Seconds after which an unused instance is unloaded whose app says no keep_alive; 0 = never.",
    )

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.no_match_timeout_s > self.queue_timeout_s:
            raise ValueError(
                f"no_match_timeout_s ({self.no_match_timeout_s:g}) must not exceed "
                f"queue_timeout_s ({self.queue_timeout_s:g})"
            )
        return self


class WorkerSettings(CommonSettings, FetchFields, EnvironmentFields, JoinFields, ParkingFields):
    """The daemon of one machine."""

    name: str = Field(default="", description="Name of this machine in worker ids; empty = its host name.")
    workers: WorkerSlots = Field(
        default=WorkerSlots(), description="Which GPU and CPU workers this machine has, see gpus.md."
    )
    labels: dict[str, str] = Field(default={}, description="Free labels of this machine.")
    app_env: dict[str, SecretStr] = Field(
        default={},
        description="Variables for the processes of all apps; those of an app itself and secrets are stronger.",
    )
    max_residents: int = Field(
        default=4, ge=1, le=256, description="Instances that one worker keeps loaded at the same time."
    )
    telemetry_s: float = Field(
        default=5, ge=0.2, le=60, description="Seconds between two readings of the machine."
    )
    setup_timeout_s: float = Field(
        default=3600, ge=1, description="Seconds that preparing and setting up an app may take."
    )
    run_timeout_s: float = Field(
        default=3600, ge=1, description="Seconds that one run of a function may take."
    )
    upload_timeout_s: float = Field(
        default=3600, ge=1, description="Seconds that storing the files of one result may take."
    )
    drain_grace_s: float = Field(
        default=30, ge=0, description="Seconds that running tasks have to end when the daemon is stopped."
    )
    private_tmp: Literal["auto", "require", "off"] = Field(
        default="auto",
        description="A /tmp of its own for each app's process: where the kernel allows it, always (else the "
        "worker does not start), or never.",
    )
    cache_dir: WholePath | None = Field(
        default=None,
        description="Directory of app code, environments and models; unset = cache/ of the data directory.",
    )
    spool_dir: WholePath | None = Field(
        default=None,
        description="Directory of outcomes and logs that are not delivered yet; unset = spool/ of the data "
        "directory.",
    )
    log_max_bytes: int = Field(
        default=64 * MIB,
        ge=64 * 1024,
        description="Bytes that are kept of the log of one attempt; what is printed beyond them is counted.",
    )
    log_spool_bytes: int = Field(
        default=1024 * MIB,
        ge=MIB,
        description="Bytes of logs that may wait on disk for the gateway; beyond them lines are counted only.",
    )

    @property
    def engine_name(self) -> str:
        """The machine's name, safe as the first part of a worker id."""
        text = (self.name or socket.gethostname().split(".")[0]).lower()
        safe = "".join(c if c.isalnum() and c.isascii() else "-" for c in text).strip("-")
        return safe[:40] or "engine"

    @property
    def cache_path(self) -> Path:
        """`cache_dir` with its default filled in."""
        return self.cache_dir or self.data_dir / "cache"

    @property
    def spool_path(self) -> Path:
        """`spool_dir` with its default filled in."""
        return self.spool_dir or self.data_dir / "spool"


class JobsSettings(VaultSettings, KeyRetentionFields, WebhookFields, ChatFields, StepFields):
    """Background work on RQ."""

    jobs_redis_url: str = Field(
        default="", description="Redis for RQ, which does not run on Redis Cluster; empty = the same server."
    )
    sweep_s: float = Field(default=300, ge=1, description="Seconds between two retention sweeps.")

    @model_validator(mode="after")
    def _no_cluster(self) -> Self:
        if parse_redis(self.jobs_url).kind == "cluster":
            raise ValueError(
                "RQ does not run on Redis Cluster. Give the jobs a Redis of their own: STOKER_JOBS_REDIS_URL"
            )
        return self

    @property
    def jobs_url(self) -> str:
        """The Redis that RQ uses."""
        return self.secured(self.jobs_redis_url) or self.store_url


class UpSettings(CommonSettings, ServerTlsFields):
    """`stoker up`: the whole system on one machine."""

    host: str = Field(default="127.0.0.1", description="Address that the gateway listens on.")
    port: int = Field(default=8787, ge=0, le=65535, description="TCP port of the gateway; 0 = any free one.")
    listen: str = Field(
        default="",
        description="Address (host:port) at which the embedded server takes further machines; empty = none.",
    )
    cpu_workers: int | None = Field(
        default=None, ge=0, le=256, description="CPU workers of this machine; unset = as the worker decides."
    )
    examples: WholePath | None = Field(
        default=None, description="Directory of apps that are deployed at start."
    )
    drain_grace_s: float = Field(
        default=30, ge=0, description="Seconds that running tasks have to end when the system is stopped."
    )


class ClientSettings(CommonSettings):
    """How the command line finds a gateway."""

    url: str = Field(default="", description="Gateway to talk to; empty = the one of the data directory.")
    api_key: str = Field(
        default="", description="API key to use; empty = the first key, from the data directory."
    )


ALL_SETTINGS: Final[tuple[type[CommonSettings], ...]] = (
    CommonSettings,
    GatewaySettings,
    SchedulerSettings,
    WorkerSettings,
    JobsSettings,
    UpSettings,
    ClientSettings,
)
OTHER_VARIABLES: Final[dict[str, str]] = {
    "STOKER_CONFIG": "Path of the settings file.",
    "STOKER_PARENT_PID": "Set by `stoker up` for its parts, which end when that process ends.",
}

S = TypeVar("S", bound=CommonSettings)


def load(kind: type[S], flags: Mapping[str, object] | None = None) -> S:
    """Read the settings of one part.

    Args:
        kind: the part's class.
        flags: values from the command line; None means "not given".

    Raises:
        InvalidSettings: one sentence for each wrong value: its name, what was found, where it came from.
    """
    given: dict[str, Any] = {name: value for name, value in (flags or {}).items() if value is not None}
    try:
        return kind(**given)
    except ValidationError as error:
        raise InvalidSettings("; ".join(_explain(kind, given, item) for item in error.errors())) from error
    except SettingsError as error:
        raise InvalidSettings(f"cannot read the environment: {error}") from error


def origins(kind: type[CommonSettings], flags: Mapping[str, object] | None = None) -> dict[str, str]:
    """Where each value of a part comes from: "flag", "environment STOKER_X", "file <path>" or "default"."""
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    return {name: _origin(name, given) for name in kind.model_fields}


def field_names() -> frozenset[str]:
    """The names of all settings of all parts."""
    return frozenset(name for kind in ALL_SETTINGS for name in kind.model_fields)


def unknown_variables() -> list[str]:
    """Names in the environment that look like settings and are none: typing errors, as a rule."""
    known = {PREFIX + name.upper() for name in field_names()} | set(OTHER_VARIABLES)
    return sorted(name for name in os.environ if name.startswith(PREFIX) and name not in known)


def _origin(name: str, given: Mapping[str, object]) -> str:
    if name in given:
        return "flag"
    variable = PREFIX + name.upper()
    if any(key.upper() == variable and value for key, value in os.environ.items()):
        return f"environment {variable}"
    if name in file_values():
        return f"file {config_file()}"
    return "default"


def _explain(kind: type[CommonSettings], given: Mapping[str, object], item: Mapping[str, Any]) -> str:
    path = ".".join(str(part) for part in item["loc"])
    text = str(item["msg"]).removeprefix("Value error, ")
    name = str(item["loc"][0]) if item["loc"] else ""
    if name not in kind.model_fields:
        return text
    if name in PRIVATE_FIELDS or "env" in item["loc"] or "'env'" in repr(item["input"]):
        return f"{path}: {text} (from {_origin(name, given)}; the value is not shown)"
    return f"{path}: {text}, found {without_password(repr(item['input']))} (from {_origin(name, given)})"
