"""One instance on a worker, and what is known of it. Residency and its bay own these."""

import asyncio
from dataclasses import dataclass, field

from stoker.core.messages import LogType, Resident, SetupKey, WorkerId
from stoker.core.sessions import session_of
from stoker.core.states import ResidentState, Temperature
from stoker_worker.logs import OnLine
from stoker_worker.ports import RunningInstance


@dataclass(slots=True, eq=False, kw_only=True)
class Residence:
    """An instance and what is known of it. `instance` is None while it is being loaded."""

    setup_key: SetupKey
    version_id: str
    app: str
    state: ResidentState = ResidentState.LOADING
    instance: RunningInstance | None = None
    task_id: str = ""
    parks: bool = False  # it makes room: it is parked, if it can be
    host_bytes: int = 0  # of the machine's memory, while it is parked
    vram_bytes: int = 0  # now
    peak_bytes: int = 0  # the most since it was loaded; 0 = nothing was measured
    need_bytes: int = 0  # what it was counted with when it was admitted
    base_bytes: int = 0  # in use on the devices before it was loaded
    load_s: float = 0.0
    since_ms: int = 0
    uses: int = 0
    value: float = 0.0
    used_mono: float = 0.0
    on_line: OnLine | None = None  # where its lines go: the log of the task that it works for, or did last
    gone: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def session(self) -> str:
        """The session that has this instance for itself, or ''."""
        return session_of(self.setup_key)

    @property
    def living(self) -> bool:
        """Whether its process may hold memory for good."""
        return self.state is not ResidentState.STOPPING and not (
            self.instance is not None and self.instance.exited.is_set()
        )

    def reported(self, worker_id: WorkerId, *, parks: bool = False) -> Resident:
        """As a report has it. Args: parks: it would be parked if it made room."""
        parked = self.state is ResidentState.PARKED
        return Resident(
            worker_id=worker_id,
            setup_key=self.setup_key,
            version_id=self.version_id,
            app=self.app,
            state=self.state,
            vram_bytes=self.vram_bytes if parked else self.peak_bytes,
            load_s=self.load_s,
            since_ms=self.since_ms,
            task_id=self.task_id,
            temperature=Temperature.PARKED if parked else Temperature.HOT,
            parks=parks,
            host_bytes=self.host_bytes if parked else 0,
        )

    def emit(self, kind: LogType, text: str) -> None:
        """Lines of the process; what a child prints when the run is over belongs to the task that ran last."""
        if self.on_line is not None:
            self.on_line(kind, text)
