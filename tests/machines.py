"""A worker machine of its own, as far as one computer can have two: its own process, data directory and identity."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

from helpers import PATIENCE_S, environment, family, wait_gone, wait_until


class Machine:
    """A daemon that joins a running system with a token."""

    def __init__(self, system, name, folder, **env):
        self.system = system
        self.name = name
        self.data_dir = Path(folder)
        self.env = env
        self.log = self.data_dir / "worker.log"
        self.process = None

    def start(self, join=""):
        """Start the daemon; with `join` it is the first time."""
        self.data_dir.mkdir(parents=True, exist_ok=True)
        extra = {
            "STOKER_DATA_DIR": str(self.data_dir),
            "STOKER_PARENT_PID": str(os.getpid()),
            "STOKER_DRAIN_GRACE_S": "1",
        } | self.env
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "stoker_cli",
                    "worker",
                    "--name",
                    self.name,
                    "--workers",
                    "1",
                    "--json",
                ],
                env=environment(**extra, **({"STOKER_JOIN": join} if join else {})),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        return self

    @property
    def identity_file(self):
        return self.data_dir / self.name / "identity.json"

    def status(self):
        """Its state in the list of workers, or ''."""
        listed = self.system.cli_json("workers", "list")
        return next((str(w["status"]) for w in listed if w["id"] == f"{self.name}-cpu-0"), "")

    def wait_until_idle(self):
        wait_until(
            lambda: self._alive() and self.status() == "idle", f"{self.name}; {self.tail()}", PATIENCE_S * 2
        )

    def _alive(self):
        assert self.process.poll() is None, self.tail()
        return True

    def tail(self):
        with contextlib.suppress(OSError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-20:])
        return ""

    def stop(self):
        if self.process is not None and self.process.poll() is None:
            everyone = family(self.process.pid)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
            wait_gone(everyone)
