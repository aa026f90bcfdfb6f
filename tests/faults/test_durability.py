"""What was answered as accepted is there after every process was killed at once, the server in the middle of writes."""

import contextlib
import signal
import tempfile
import threading
from pathlib import Path

import httpx
import pytest
from helpers import EXAMPLES, PATIENCE_S, family, kill, running_system, wait_gone, wait_until

pytestmark = pytest.mark.long

SENDERS, ENOUGH = 8, 120
REFUSED_S = 0.2
"""Until the next try of who was refused."""
ENDED = {9, 10, 11}


class Sender(threading.Thread):
    """Submits one task after the other until the system is gone or all is over; `accepted` are those that were answered."""

    def __init__(self, system, over):
        super().__init__(daemon=True)
        self.accepted = []
        self._system = system
        self._over = over

    def run(self):
        body = {"app": "infsh/echo", "infra": "private", "input": {"message": "keep me"}}
        try:
            with self._system.client() as client:
                while not self._over.is_set():
                    answer = client.post("/apps/run", json=body)
                    if answer.status_code == httpx.codes.OK:
                        self.accepted.append(answer.json()["data"]["id"])
                    else:
                        self._over.wait(REFUSED_S)
        except httpx.TransportError:
            return


def kill_everything(system):
    """SIGKILL for all at once. The supervisor is stopped first: it starts nothing again, and nobody is told of its end."""
    up = system.process.pid
    kill(up, signal.SIGSTOP)
    everything = family(up) | set(system.pids.values())
    for pid in (system.pids["server"], *sorted(everything - {up}), up):
        with contextlib.suppress(ProcessLookupError):
            kill(pid)
    system.process.wait(PATIENCE_S)
    wait_gone(everything)


def accepted_until_the_kill(system):
    over = threading.Event()
    senders = [Sender(system, over) for _ in range(SENDERS)]
    try:
        for sender in senders:
            sender.start()
        wait_until(lambda: sum(len(sender.accepted) for sender in senders) >= ENOUGH, "enough tasks")
        kill_everything(system)
    finally:
        over.set()
        for sender in senders:
            sender.join(PATIENCE_S)
    return [task_id for sender in senders for task_id in sender.accepted]


def test_everything_that_was_accepted_survives_a_kill_of_all_processes():
    with tempfile.TemporaryDirectory(prefix="stoker-durability-", ignore_cleanup_errors=True) as folder:
        data_dir = Path(folder) / "data"
        with running_system(data_dir, "--workers", "2", STOKER_LEASE_S="3") as system:
            system.deploy(EXAMPLES / "echo")
            accepted = accepted_until_the_kill(system)
        with (
            running_system(data_dir, "--workers", "2", STOKER_LEASE_S="3") as again,
            again.client() as client,
        ):
            found = {task_id: ended(client, task_id) for task_id in accepted}
        assert {task["status_text"] for task in found.values()} == {"completed"}
        assert len(found) == len(set(accepted)) >= ENOUGH


def ended(client, task_id):
    def end():
        answer = client.get(f"/tasks/{task_id}")
        assert answer.status_code == httpx.codes.OK, f"{task_id} was accepted and is not there: {answer.text}"
        task = answer.json()["data"]
        return task if task["status"] in ENDED else None

    return wait_until(end, f"the end of {task_id}", PATIENCE_S * 2)
