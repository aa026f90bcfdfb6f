"""What is broken, and how the tasks that it hits may end. Written before the run; the run is held to it.

An ending beside `completed` needs a reason from the row of the fault that hit the task, or of a fault that hit its
machine at the same time. A task that no fault of an app's process hit ends completed.
"""

import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Victim(StrEnum):
    """Whose process is hit."""

    DAEMON = "worker daemon"
    SECOND = "second daemon"
    INSTANCE = "app process"
    CHILD = "child of an app"
    SCHEDULER = "scheduler"
    GATEWAY = "gateway"
    JOBS = "jobs"
    SERVER = "server"


@dataclass(frozen=True)
class Fault:
    """One way to break a victim. `stop_s`: seconds until SIGCONT, after SIGSTOP."""

    victim: Victim
    how: signal.Signals
    weight: int = 2
    stop_s: float = 0.0

    @property
    def name(self) -> str:
        held = f" for {self.stop_s:g} s" if self.stop_s else ""
        return f"{self.how.name}{held}: {self.victim}"


LEASE_S: Final = 3
SHORT_S, LONG_S = 1.0, LEASE_S + 2.0

FAULTS: Final = (
    Fault(Victim.DAEMON, signal.SIGKILL),
    Fault(Victim.DAEMON, signal.SIGSTOP, stop_s=SHORT_S),
    Fault(Victim.DAEMON, signal.SIGSTOP, stop_s=LONG_S),
    Fault(Victim.SECOND, signal.SIGKILL),
    Fault(Victim.SECOND, signal.SIGTERM),
    Fault(Victim.INSTANCE, signal.SIGKILL, weight=3),
    Fault(Victim.INSTANCE, signal.SIGSTOP, stop_s=SHORT_S),
    Fault(Victim.CHILD, signal.SIGKILL),
    Fault(Victim.SCHEDULER, signal.SIGKILL),
    Fault(Victim.SCHEDULER, signal.SIGSTOP, stop_s=LONG_S),
    Fault(Victim.GATEWAY, signal.SIGKILL),
    Fault(Victim.GATEWAY, signal.SIGSTOP, stop_s=SHORT_S),
    Fault(Victim.JOBS, signal.SIGKILL, weight=1),
    Fault(Victim.SERVER, signal.SIGKILL, weight=1),
    Fault(Victim.SERVER, signal.SIGSTOP, stop_s=SHORT_S, weight=1),
)

DAEMON_KILLS: Final = tuple(
    fault
    for fault in FAULTS
    if fault.victim in {Victim.DAEMON, Victim.SECOND} and fault.how is signal.SIGKILL
)
"""For the time until a task runs elsewhere, with nothing else in the way."""

REASONS: Final = {
    "the child is gone": "its app's child was killed",
    "is not run again": "its app's process or its worker was killed three times",
    "in each of its": "each of its attempts met another fault",
}
"""What an error of a failed task may hold -> what that means. Any other failure is a defect."""
