"""What was answered as accepted is there after every process was killed at once, the server in the middle of writes."""

import contextlib
import os
import signal
import tempfile
import threading
from pathlib import Path

import httpx
import pytest
from helpers import EXAMPLES, PATIENCE_S, family, start_system, wait_gone, wait_until

pytestmark = pytest.mark.long

SENDERS, ENOUGH = 8, 120
ENDED = {9, 10, 11}


class Sender(threading.Thread):
    """Submits one task after the other until the system is gone; `accepted` are those that were answered."""

    def __init__(self, system):
        super().__init__(daemon=True)
        self.accepted = []
        self._system = system

    def run(self):
        body = {"app": "infsh/echo", "infra": "private", "input": {"message": "keep me"}}
        try:
            with self._system.client() as client:
                while True:
                    answer = client.post("/apps/run", json=body)
                    if answer.status_code == httpx.codes.OK:
                        self.accepted.append(answer.json()["data"]["id"])
        except httpx.TransportError:
            return


def kill_everything(system):
    """SIGKILL for all at once. The supervisor is stopped first: it starts nothing again, and nobody is told of its end."""
    up = system.process.pid
    os.kill(up, signal.SIGSTOP)
    everything = family(up) | set(system.pids.values())
    for pid in (system.pids["server"], *sorted(everything - {up}), up):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    system.process.wait(PATIENCE_S)
    wait_gone(everything)


def test_everything_that_was_accepted_survives_a_kill_of_all_processes():
    with tempfile.TemporaryDirectory(prefix="stoker-durability-", ignore_cleanup_errors=True) as folder:
        data_dir = Path(folder) / "data"
        system = start_system(data_dir, "--workers", "2", STOKER_LEASE_S="3")
        system.deploy(EXAMPLES / "echo")
        senders = [Sender(system) for _ in range(SENDERS)]
        for sender in senders:
            sender.start()
        wait_until(lambda: sum(len(sender.accepted) for sender in senders) >= ENOUGH, "enough tasks")
        kill_everything(system)
        for sender in senders:
            sender.join(PATIENCE_S)
        accepted = [task_id for sender in senders for task_id in sender.accepted]
        again = start_system(data_dir, "--workers", "2", STOKER_LEASE_S="3")
        try:
            with again.client() as client:
                found = {task_id: ended(client, task_id) for task_id in accepted}
        finally:
            again.stop()
        assert {task["status_text"] for task in found.values()} == {"completed"}
        assert len(found) == len(set(accepted)) >= ENOUGH


def ended(client, task_id):
    def end():
        answer = client.get(f"/tasks/{task_id}")
        assert answer.status_code == httpx.codes.OK, f"{task_id} was accepted and is not there: {answer.text}"
        task = answer.json()["data"]
        return task if task["status"] in ENDED else None

    return wait_until(end, f"the end of {task_id}", PATIENCE_S * 2)
