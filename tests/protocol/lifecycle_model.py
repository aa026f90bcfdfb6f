"""What the state machine of the protocol knows: what every task must look like, and what every engine believes."""

from dataclasses import dataclass, field

from stoker.core.messages import Assignment
from stoker.core.states import TaskState as S

MAX_ATTEMPTS = 3
UNTAKEN = 6
"""So many engines may be lost with a task before they take it; also in lua/requeue.lua."""
OF_THE_POOL = {
    "wake",
    "leases",
    "engines",
    "leader",
    "epoch",
    "protocol",
    "history",
    "reasons",
    "outbox",
    "owners",
}
"""Keys that belong to no task and stay. Owners are forgotten by the jobs."""


async def keys_of(connection, pool):
    """The keys of a pool, without their prefix; not the marks of removals, which go by themselves."""
    prefix = f"stoker:{{{pool}}}:"
    cursor, found = 0, set()
    while True:
        cursor, keys = await connection.command("SCAN", cursor, "MATCH", f"{prefix}*", "COUNT", 1000)
        names = {key.decode().removeprefix(prefix) for key in keys}
        found |= {name for name in names if not name.startswith("removal:")}
        if not int(cursor):
            return found


@dataclass
class Model:
    """What one task must look like."""

    state: S = S.QUEUED
    attempt: int = 0
    max_attempts: int = MAX_ATTEMPTS
    spent: int = 0
    untaken: int = 0
    delayed: bool = False  # while it is queued: it waits for a time
    due: bool = False  # that time has come
    engine: str = ""
    cancel: bool = False
    ended_by: str = ""
    lines: dict[int, set[int]] = field(default_factory=dict)  # attempt -> numbers of the lines written

    def lost(self):
        """Its engine was lost. An attempt that the engine had not taken is not spent."""
        taken = self.state is not S.SCHEDULED
        self.untaken += not taken
        self.taken_back(spend=taken, last=not taken and self.untaken >= UNTAKEN)

    def handed_back(self):
        """No attempt is spent, but for an only one whose function may have begun."""
        self.taken_back(spend=self.max_attempts == 1 and self.state in {S.RUNNING, S.UPLOADING})

    def taken_back(self, *, spend, pause=False, last=False):
        """The first loss of a machine was pause enough."""
        self.spent += spend
        self.engine = ""
        if self.cancel:
            self.state = S.CANCELLED
        else:
            over = last or (spend and self.spent >= self.max_attempts)
            self.state = S.FAILED if over else S.QUEUED
            self.delayed = self.state is S.QUEUED and (pause or (spend and self.spent > 1))


@dataclass
class Order:
    """An assignment that an engine read, however long ago."""

    engine: str
    message: Assignment
    entry: str

    @property
    def task(self):
        return self.message.task.id
