"""Everything that one part tells another, as msgspec structs. Neighbouring versions ignore each other's new fields.

Times are wall-clock milliseconds of the Redis server (`_ms`), sizes are bytes, durations are seconds (`_s`).
"""

from enum import StrEnum
from typing import Annotated, Any, NewType

import msgspec
from msgspec import Meta, Struct

from stoker.core.loads import LoadReport
from stoker.core.protocol_version import PROTOCOL_OLDEST, PROTOCOL_VERSION, Speaks
from stoker.core.states import ResidentState, TaskState, Temperature
from stoker.core.telemetry import Telemetry
from stoker.core.vram import VramState
from stoker.core.waiting import FlowRef as FlowRef  # noqa: PLC0414 - part of the messages, as is the next one
from stoker.core.waiting import Waiter as Waiter  # noqa: PLC0414

TaskId = NewType("TaskId", str)
EngineId = NewType("EngineId", str)
WorkerId = NewType("WorkerId", str)
SetupKey = NewType("SetupKey", str)

CANCEL_GRACE_MS = 10_000
"""What a cancelled task has to end by itself, where nobody says anything else."""
CANCEL_GRACE_MAX_MS = 7 * 86_400_000
"""The most of it that anybody may ask for: as long as a run may take by default."""
FETCH_TIMEOUT_S = 3_600
"""What a worker has for fetching the files of an input, where its settings say nothing else."""
FETCH_TIMEOUT_MAX_S = 86_400
"""The most of it that a worker may take; whoever registers with more is not believed."""


class Infra(StrEnum):
    """Where the caller wants the task to run."""

    CLOUD = "cloud"
    PRIVATE = "private"
    PRIVATE_FIRST = "private_first"


class LogType(StrEnum):
    """What a log line belongs to; `number` is the platform's."""

    BUILD = "build"
    RUN = "run"
    SERVE = "serve"
    SETUP = "setup"
    TASK = "task"

    @property
    def number(self) -> int:
        return list(LogType).index(self)


class GpuType(StrEnum):
    """GPU kinds of the platform's inf.yml."""

    ANY = "any"
    NONE = "none"
    NVIDIA = "nvidia"
    AMD = "amd"
    APPLE = "apple"
    INTEL = "intel"


class Needs(Struct, frozen=True, kw_only=True):
    """What an app declares that it needs. Sizes in bytes, 0 = not stated."""

    gpu_count: int = 0
    gpu_type: GpuType = GpuType.NONE
    vram_bytes: int = 0
    ram_bytes: int = 0


class TaskRequest(Struct, frozen=True, kw_only=True):
    """What an engine executes. Stored in the task hash; holds nothing that only the control plane may see."""

    id: TaskId
    app_id: str
    app: str  # namespace/name
    version_id: str  # content hash, full
    function: str
    input: Any  # a JSON value (an object, as a rule), defaults not filled: the app's model does that
    setup: dict[str, Any]  # the schema's defaults filled in
    setup_key: SetupKey
    env_key: str  # digest of requirements, Python and platform
    infra: Infra = Infra.PRIVATE
    workers: tuple[str, ...] = ()
    variant: str = "default"
    run_timeout_s: float = 0  # 0 = the engine's default
    setup_timeout_s: float = 0
    upload_timeout_s: float = 0
    retry_app_errors: bool = False  # also what the app itself raised is tried again
    run_at_ms: int = 0  # not before; 0 = at once
    retry_of: str = ""  # the task that this one is run again for
    session_id: str = ""
    opens_session: bool = False  # the session's first task: it may take a warm instance over, or load one
    session_timeout_s: float = 0  # idle time, at the first task
    webhook: str = ""
    waiter: Waiter | None = None  # who else is told of the ending
    flow: FlowRef | None = None  # no worker runs it: the flow run of the same id does
    input_files: tuple[str, ...] = ()  # JSON pointers to the files in `input`; the worker fetches them
    files_url: str = ""  # with input_files: where clients see the own store; workers may know it elsewhere
    has_secrets: bool = False  # the gateway has variables for its instance; their values are nowhere else


class TaskSpec(Struct, frozen=True, kw_only=True):
    """What the scheduler knows of a task. `key_id` is the API key it is accounted to."""

    id: TaskId
    setup_key: SetupKey
    version_id: str
    env_key: str
    app: str
    needs: Needs
    workers: tuple[str, ...] = ()  # worker ids or names; empty = any
    priority: int = 0  # higher first
    key_id: str = ""
    created_ms: int = 0
    queued_ms: int = 0  # since when it waits, where that is later; not stored
    max_attempts: int = 3
    retry_delay_s: float = 0  # pause before the second attempt; it doubles with each further one
    queue_timeout_s: float = 0  # 0 = the scheduler's setting
    no_match_timeout_s: float = 0  # 0 = the scheduler's setting
    session_id: str = ""
    opens_session: bool = False


class SecretNeed(Struct, frozen=True, kw_only=True):
    """A variable that an app wants from whoever runs it."""

    key: str
    description: str = ""
    optional: bool = False


class IntegrationNeed(Struct, frozen=True, kw_only=True):
    """A connected account that an app wants. `secrets` are its variables; empty = those of its provider."""

    key: str  # provider.capability, for instance gcp.vertex_ai
    description: str = ""
    optional: bool = False
    secrets: tuple[str, ...] = ()


class Owner(Struct, frozen=True, kw_only=True):
    """Who asked. Lives in a key that no engine may read.

    `secrets` are the variables that the task's instance may be given; what an engine could write is not asked.
    """

    user_id: str
    key_id: str
    secrets: tuple[SecretNeed, ...] = ()


class Assignment(Struct, frozen=True, kw_only=True):
    """An inbox message: run this task on that worker."""

    task: TaskRequest
    attempt: int
    token: str  # secret of this attempt; proves ownership in every later write
    worker_id: WorkerId
    evict: tuple[SetupKey, ...] = ()  # residents the scheduler counted as gone


class CancelOrder(Struct, frozen=True, kw_only=True):
    """An inbox message: stop this attempt."""

    task_id: TaskId
    attempt: int
    force: bool = False
    grace_ms: int = CANCEL_GRACE_MS


class EvictOrder(Struct, frozen=True, kw_only=True):
    """An inbox message: unload an idle instance."""

    worker_id: WorkerId
    setup_key: SetupKey
    reason: str


class DrainOrder(Struct, frozen=True, kw_only=True):
    """An inbox message: take nothing new, finish, leave. `restart`: and end, to be started anew by who supervises."""

    reason: str
    restart: bool = False


class RecallOrder(Struct, frozen=True, kw_only=True):
    """An inbox message: register again, with what this engine holds; the server may have forgotten something."""


class LoadOrder(Struct, frozen=True, kw_only=True):
    """An inbox message: load an instance for tasks to come. `task.id` is the order's; no function is run."""

    task: TaskRequest
    token: str
    worker_id: WorkerId
    evict: tuple[SetupKey, ...] = ()


class PinOrder(Struct, frozen=True, kw_only=True):
    """An inbox message: these setups make room for nothing on this worker. It replaces the one before."""

    worker_id: WorkerId
    setup_keys: tuple[SetupKey, ...]


InboxMessage = Assignment | CancelOrder | EvictOrder | DrainOrder | RecallOrder | LoadOrder | PinOrder


class LogLine(Struct, frozen=True, kw_only=True, array_like=True):
    """One line of an attempt's log. `number` counts from 1 and has gaps where lines were dropped."""

    number: int
    at_ms: int
    type: LogType
    text: str
    attempt: int = 0


class DeltaBatch(Struct, frozen=True, kw_only=True):
    """Increments of an attempt's output as kept: JSON values, numbered from `first` on."""

    id: str
    attempt: int
    first: int
    deltas: tuple[msgspec.Raw, ...]


class Outcome(Struct, frozen=True, kw_only=True):
    """How an attempt ended. `state` is COMPLETED, FAILED or CANCELLED."""

    state: TaskState
    output: msgspec.Raw = msgspec.Raw(b"null")
    output_meta: msgspec.Raw = msgspec.Raw(b"null")  # what the app says about its output: tokens, sizes ...
    error: str = ""
    error_code: str = ""  # a code of the error catalogue, for instance app_failed
    load_s: float = 0  # what this attempt spent on preparing, serving and setting up
    run_s: float = 0
    vram_bytes: int = 0  # the most that the instance was seen to take; 0 = unknown
    vram_short: int = 0  # GPU memory ran out: count the setup with so much on this type of device
    instance_ended: bool = False  # the instance is gone, or never came up
    retryable: bool = False  # of a failure: another attempt may end otherwise
    kills: bool = False  # of a failure: the app's process was killed
    at_fault: bool = False  # of a failure: the worker's or its surroundings', not the app's


class GpuInfo(Struct, frozen=True, kw_only=True):
    """A device as registered."""

    index: int
    uuid: str
    name: str
    type: GpuType
    vram_bytes: int


class WorkerInfo(Struct, frozen=True, kw_only=True):
    """A slot of an engine as registered."""

    id: WorkerId  # readable: gpubox-gpu-0, gpubox-cpu-1
    index: int
    gpus: tuple[GpuInfo, ...] = ()
    max_residents: int = 4
    ram_bytes: int = 0


class EngineInfo(Struct, frozen=True, kw_only=True):
    """What a daemon says of itself when it registers."""

    id: EngineId
    name: str
    version: str
    hostname: str
    workers: tuple[WorkerInfo, ...]
    protocol_version: int = PROTOCOL_VERSION
    protocol_oldest: int = PROTOCOL_OLDEST
    labels: dict[str, str] = {}
    pythons: tuple[str, ...] = ()
    os: str = ""
    cpu_name: str = ""
    cpu_cores: int = 0
    ram_bytes: int = 0
    driver_version: str = ""
    cuda_version: str = ""
    fetch_timeout_s: Annotated[float, Meta(ge=0, le=FETCH_TIMEOUT_MAX_S)] = FETCH_TIMEOUT_S

    @property
    def speaks(self) -> Speaks:
        """What it says of its protocol."""
        return Speaks(version=self.protocol_version, oldest=self.protocol_oldest, release=self.version)


class Resident(Struct, frozen=True, kw_only=True):
    """An instance that lives on a worker. `parks`: what makes room for another one is parked, and not ended.

    `host_bytes` are those of the machine's memory that a parked one takes.
    """

    worker_id: WorkerId
    setup_key: SetupKey
    version_id: str
    app: str
    state: ResidentState
    vram_bytes: int = 0
    load_s: float = 0
    since_ms: int = 0
    task_id: str = ""
    temperature: Temperature = Temperature.HOT
    parks: bool = False
    host_bytes: int = 0


class EngineReport(Struct, frozen=True, kw_only=True):
    """The changing part of an engine: what lives there, and whether it takes work."""

    residents: tuple[Resident, ...] = ()
    parked: tuple[Resident, ...] = ()  # apart: whoever does not know of it sees an instance that is not there
    environments: tuple[str, ...] = ()  # env keys on disk
    draining: bool = False
    vram: dict[WorkerId, VramState] = {}  # of workers that have something to say
    loads: tuple[LoadReport, ...] = ()  # orders in hand, and the last that ended
    pins: dict[WorkerId, tuple[SetupKey, ...]] = {}  # the last order of each worker, where it names any


class EngineView(Struct, frozen=True, kw_only=True):
    """An engine as read back: registration, last report, last telemetry."""

    info: EngineInfo
    status: str  # running | draining | stopped | lost | refused
    registered_ms: int
    seen_ms: int
    report: EngineReport = EngineReport()
    telemetry: Telemetry | None = None
    tasks: dict[str, int] = {}  # task id -> attempt
    drain: DrainOrder | None = None  # what this life of the daemon was told

    @property
    def drained(self) -> bool:
        """It was told to drain, and has left."""
        return self.drain is not None and self.status == "stopped"


class Quarantine(Struct, frozen=True, kw_only=True):
    """Why a worker gets no tasks: `failures` in a row, of as many tasks, none by its app. It ends by itself at `until_ms`."""

    worker_id: WorkerId
    since_ms: int
    until_ms: int
    failures: int
    reason: str  # of the last failure


class TaskView(Struct, frozen=True, kw_only=True):
    """A task as read back, before any dialect: what the gateway makes its answers from."""

    request: TaskRequest
    state: TaskState
    attempt: int
    created_ms: int
    updated_ms: int
    engine_id: str = ""
    worker_id: str = ""
    output: msgspec.Raw = msgspec.Raw(b"null")
    output_meta: msgspec.Raw = msgspec.Raw(b"null")
    error: str = ""
    error_code: str = ""
    cancel_requested: bool = False
    queue_reason: str = ""
    due_ms: int = 0  # of a queued task: it waits until then whatever is free
    log_dropped: int = 0
    history: tuple[tuple[int, int, int], ...] = ()  # (attempt, state, at_ms) in order
    logs: tuple[LogLine, ...] = ()
    cursor: str = "0-0"  # id of the last event that this view includes
    log_last: int = 0  # number of the last line of this attempt that the live tail was told
    delta_last: int = 0  # number of the last increment of the output that this attempt has written


class ApiKey(Struct, frozen=True, kw_only=True):
    """A key as stored: its hash only."""

    id: str
    name: str
    user_id: str
    sha256: str
    prefix: str  # inf_ and 4 characters, to recognise it
    scopes: tuple[str, ...] = ()  # none = everything (`stoker.core.scopes`)
    rates: dict[str, int] = {}  # run | get | upload -> per minute, 0 = unlimited
    created_ms: int = 0
    expires_ms: int = 0
    numbering: str = ""  # "" = by client; "v1" = 9/10/11; "v2" = 10/11/12

    def expired(self, now_ms: float) -> bool:
        """Whether it opens nothing any more."""
        return 0 < self.expires_ms <= now_ms


class Secret(Struct, frozen=True, kw_only=True):
    """A secret as stored. The value is encrypted; `sealed` and `sealed_by` mean something to a `Vault` alone."""

    id: str  # a secret that is made again after its end has another one
    owner_id: str
    key: str  # the variable
    version: int  # grows with each value
    revision: str  # new with each write
    sealed: str = ""
    sealed_by: str = ""  # id of the encryption key
    description: str = ""
    created_ms: int = 0
    updated_ms: int = 0


class StoredFile(Struct, frozen=True, kw_only=True):
    """A file of the store; `secret` makes its address unguessable, `upload_key` signs its upload addresses.

    `content_type` "" and `size` -1: not announced, known when the bytes have come.
    """

    id: str
    secret: str
    owner_id: str
    filename: str
    content_type: str
    size: int
    created_ms: int
    path: str = ""  # what the caller named it
    category: str = ""
    task_id: str = ""
    attempt: int = 0  # of the task whose output it is
    role: str = ""  # input | output
    uploaded: bool = False
    public: bool = False  # any key of the system may read the record
    upload_key: str = ""
    upload_until_ms: int = 0  # when the upload address expires; 0 = not known
    announced: str = ""  # size and type as they were announced: what the upload address is good for
    sha256: str = ""  # of its bytes, hexadecimal; "" = not known
