"""Every Redis key name. Nothing else spells one.

A key is ``stoker:{<pool>}:<kind>[:<id>]``: the braces are the cluster's hash tag, so that all keys of a pool,
and with them all keys of one script, lie in one slot. Ids cannot hold ``:`` (`stoker.core.ids.check_name`).
"""

from stoker.core.ids import check_name
from stoker.core.messages import EngineId, TaskId


class Keys:
    """The key names of one pool."""

    def __init__(self, pool: str) -> None:
        self.pool = check_name("pool", pool)
        self.prefix = f"stoker:{{{pool}}}"
        self.pending = f"{self.prefix}:pending"
        self.queued = f"{self.prefix}:queued"
        self.quarantine = f"{self.prefix}:quarantine"
        self.delayed = f"{self.prefix}:delayed"
        self.wake = f"{self.prefix}:wake"
        self.outbox = f"{self.prefix}:outbox"
        self.leases = f"{self.prefix}:leases"
        self.engines = f"{self.prefix}:engines"
        self.leader = f"{self.prefix}:leader"
        self.protocol = f"{self.prefix}:protocol"
        self.history = f"{self.prefix}:history"
        self.epoch = f"{self.prefix}:epoch"
        self.reasons = f"{self.prefix}:reasons"
        self.channel = f"{self.prefix}:events"
        self.apps = f"{self.prefix}:apps"
        self.retired_versions = f"{self.prefix}:retired-versions"
        self.app_names = f"{self.prefix}:app-names"
        self.api_keys = f"{self.prefix}:api-keys"
        self.api_key_ids = f"{self.prefix}:api-key-ids"
        self.owners = f"{self.prefix}:owners"
        self.files = f"{self.prefix}:files"
        self.sessions = f"{self.prefix}:sessions"
        self.secret_owners = f"{self.prefix}:secret-owners"
        self.retired_setups = f"{self.prefix}:retired-setups"
        self.logged = f"{self.prefix}:logged"
        self.pulses = f"{self.prefix}:pulses"
        self.enrolments = f"{self.prefix}:enrolments"
        self.audit = f"{self.prefix}:audit"
        self.due_documents = f"{self.prefix}:due-documents"
        self.audit_refused = f"{self.prefix}:audit-refused"
        self.signing_secrets = f"{self.prefix}:signing-secrets"
        self.calls = f"{self.prefix}:calls"
        self.lanes = f"{self.prefix}:webhook-lanes"
        self.busy_lanes = f"{self.prefix}:webhook-lanes-busy"
        self.pins = f"{self.prefix}:pins"
        self.pin_states = f"{self.prefix}:pin-states"
        self.keep_alives = f"{self.prefix}:keep-alives"

    def call(self, part_id: str) -> str:
        return f"{self.prefix}:call:{part_id}"

    def task(self, task_id: TaskId) -> str:
        return f"{self.prefix}:task:{task_id}"

    def task_events(self, task_id: TaskId) -> str:
        return f"{self.prefix}:task:{task_id}:events"

    def task_logs(self, task_id: TaskId) -> str:
        return f"{self.prefix}:logs:{task_id}"

    def task_deltas(self, task_id: TaskId) -> str:
        return f"{self.prefix}:task:{task_id}:deltas"

    def control(self, task_id: TaskId) -> str:
        """What only the control plane may see of a task: spec and owner."""
        return f"{self.prefix}:control:{task_id}"

    def owner_tasks(self, owner_id: str) -> str:
        return f"{self.prefix}:owner:{owner_id}:tasks"

    def owner_files(self, owner_id: str) -> str:
        return f"{self.prefix}:owner:{owner_id}:files"

    def secrets(self, owner_id: str) -> str:
        """Of the control plane, as is the next one: no engine reads them."""
        return f"{self.prefix}:secrets:{owner_id}"

    def secret_uses(self, owner_id: str, name: str) -> str:
        return f"{self.prefix}:secret-uses:{owner_id}:{name}"

    def idempotency(self, owner_id: str, key: str) -> str:
        return f"{self.prefix}:idempotency:{owner_id}:{key}"

    def engine(self, engine_id: EngineId) -> str:
        return f"{self.prefix}:engine:{engine_id}"

    def inbox(self, engine_id: EngineId) -> str:
        return f"{self.prefix}:engine:{engine_id}:inbox"

    def engine_tasks(self, engine_id: EngineId) -> str:
        return f"{self.prefix}:engine:{engine_id}:tasks"

    def enrolment(self, engine_id: EngineId) -> str:
        """Of the control plane, and not under the engine's own prefix."""
        return f"{self.prefix}:enrolment:{engine_id}"

    def refused(self, who: str) -> str:
        """Of the control plane: that somebody's refused attempt was recorded a moment ago."""
        return f"{self.prefix}:refused:{who}"

    def removal(self, mark: str) -> str:
        """Of the control plane: that a removal was made, for whoever repeats it after a lost reply."""
        return f"{self.prefix}:removal:{mark}"

    def load(self, load_id: str) -> str:
        """Of the control plane: whose order to load this is, and what its engine may be given."""
        return f"{self.prefix}:load:{load_id}"

    def rate(self, key_id: str, kind: str) -> str:
        return f"{self.prefix}:rate:{key_id}:{kind}"

    def session(self, session_id: str) -> str:
        return f"{self.prefix}:session:{session_id}"

    def session_tasks(self, session_id: str) -> str:
        """Those of a session's tasks that have not ended."""
        return f"{self.prefix}:session:{session_id}:tasks"

    def app_versions(self, app_id: str) -> str:
        return f"{self.prefix}:app:{app_id}:versions"

    def document(self, kind: str, document_id: str) -> str:
        """Of the control plane, as are its parts: no engine reads them."""
        return f"{self.prefix}:document:{kind}:{document_id}"

    def document_parts(self, kind: str, document_id: str) -> str:
        return f"{self.prefix}:document-parts:{kind}:{document_id}"

    def owner_documents(self, owner_id: str, kind: str) -> str:
        return f"{self.prefix}:owner:{owner_id}:{kind}s"

    def file(self, file_id: str) -> str:
        return f"{self.prefix}:file:{file_id}"

    def file_users(self, file_id: str) -> str:
        """The tasks that name a file in their input."""
        return f"{self.prefix}:file:{file_id}:users"

    def delivery(self, delivery_id: str) -> str:
        """Of the control plane, as are the next three: no engine reads where endings are told, or writes it."""
        return f"{self.prefix}:delivery:{delivery_id}"

    def delivery_tries(self, delivery_id: str) -> str:
        return f"{self.prefix}:delivery:{delivery_id}:tries"

    def owner_deliveries(self, owner_id: str, state: str) -> str:
        return f"{self.prefix}:owner:{owner_id}:deliveries:{state}"

    def lane(self, lane_id: str) -> str:
        return f"{self.prefix}:webhook-lane:{lane_id}"
