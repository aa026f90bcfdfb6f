"""What the daemon needs of an app's process and of this machine, as protocols: production has one of each."""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stoker.core.messages import Assignment, TaskRequest, WorkerInfo
from stoker_worker.instance import OnDelta, OnPartial, RunResult, RunSpec
from stoker_worker.instance_errors import InstanceLost
from stoker_worker.logs import OnLine
from stoker_worker.shelf import Use


class RunningInstance(Protocol):
    """A process with one setup; `stoker_worker.instance.Instance`."""

    pid: int
    pgid: int
    exited: asyncio.Event
    lost: InstanceLost | None  # how it ended, once it has
    parks: bool  # the app has hooks for leaving the devices

    async def setup(self, timeout_s: float) -> None: ...

    async def run(
        self, task: RunSpec, on_partial: OnPartial, timeout_s: float, on_delta: OnDelta | None = None
    ) -> RunResult: ...

    def remove_results(self) -> None: ...

    def tidy(self) -> None: ...

    async def park(self) -> None: ...

    async def unpark(self) -> None: ...

    async def cancel(self, grace_s: float) -> bool: ...

    async def stop(self, reason: str) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """An app version that can be started here: its code and its environment are on disk."""

    app_dir: Path
    python: Path
    env: dict[str, str]
    vram_bytes: int = 0  # what the app declares; 0 = nothing
    node_env: Path | None = None  # of a Node app: the folder with node_modules; `python` is its Node then
    notes: tuple[str, ...] = ()  # what the log of a task should say, of an interpreter that stands in
    uses: tuple[Use, ...] = ()  # code and environment stay on disk until `release`

    def release(self) -> None:
        """Nobody starts it any more; instances hold what they need by themselves."""
        for use in self.uses:
            use.close()


class AppMachine(Protocol):
    """What executions do to this machine, beside running an instance."""

    def prepared(self, request: TaskRequest) -> Prepared | None:
        """The version, when nothing needs to be fetched or built. Cheap: file checks only.

        The caller releases what it gets, here and from `prepare`.
        """

    async def prepare(self, order: Assignment, on_line: OnLine) -> Prepared:
        """Fetch the code and build the environment, as far as they are missing.

        Raises:
            StokerError: says what is missing (PreparationFailed, BuildFailed, PythonMissing, BadBundle ...).
        """

    async def start(
        self, order: Assignment, prepared: Prepared, worker: WorkerInfo, on_line: OnLine
    ) -> RunningInstance:
        """Start a process and import the app.

        Raises:
            InstanceFailed: the app's own message, or how the process ended.
        """

    def turn(
        self, instance: RunningInstance, on_wait: Callable[[], None]
    ) -> AbstractAsyncContextManager[None]:
        """The stretch in which an instance may use fixed names below /tmp; `on_wait` says that others do now."""

    async def fetch(self, order: Assignment, on_line: OnLine) -> Any:
        """The task's input with its files on this machine. May be cancelled; `discard` follows in each case.

        Raises:
            InputFileFailed: names the field, the address and the reason.
        """

    async def discard(self, order: Assignment) -> None:
        """Remove what `fetch` brought for a run."""

    def run_spec(self, order: Assignment, given: Any) -> RunSpec:
        """What an instance is told to run, on an input."""

    async def upload(self, order: Assignment, result: RunResult, on_line: OnLine) -> object:
        """Store the files of a result; the output with their addresses in it.

        Raises:
            OutputFileMissing, OutputFileUnreadable: names the field.
            UploadFailed: the gateway did not take a file.
        """
