"""One process of an app: started in the app's own environment, set up once, run many times.

    start (process and import) > setup > run ... run > stop

The process is the leader of a session and a group of its own; whatever it starts ends with it. Messages go over
a socket that its children do not inherit; stdout and stderr are log lines only. No wait here is without a bound
but those that the caller bounds.
"""

import asyncio
import contextlib
import shutil
import signal
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import msgspec

from stoker.core.messages import LogType
from stoker_worker.instance_errors import (
    AppError,
    InputError,
    InstanceFailed,
    InstanceLost,
    InstanceNotStarted,
    RunTimeout,
    SetupTimeout,
    limit_set_by,
)
from stoker_worker.instance_spec import FILES, InstanceSpec, command_of, process_environment
from stoker_worker.link import Link, Message
from stoker_worker.logs import OnLine
from stoker_worker.procs import LinePipe, ShortPath, describe_exit, signal_group
from stoker_worker.runner.frames import FrameTooLarge
from stoker_worker.runner.shortage import says_so
from stoker_worker.strays import Namespace, end_strays

KILL_WAIT_S: Final = 5.0
"""After SIGKILL a process is gone in milliseconds, unless a driver call holds it; then nobody can help."""
CLOCK_TICK_S: Final = 0.01
"""Times of files come from the kernel's tick (10 ms at 100 Hz) and lie that much behind."""
LAST_WORDS_S: Final = 0.5
"""What a process sent before it died is in the socket; this is for reading it."""
LAST_WORDS: Final = 32
"""Lines that may tell why a process ended: libraries in C print that GPU memory ran out, and abort."""

OnPartial = Callable[[bytes], None]
OnDelta = Callable[[int, bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSpec:
    """One call of a function. `input` is a JSON value."""

    task_id: str
    function: str
    input: Any
    metadata: dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class OutFile:
    """A file of a result; `pointer` (RFC 6901) is where it stands in the output.

    `path` is for us; `named` is what the app calls it, in its own /tmp.
    """

    pointer: str
    path: str
    content_type: str
    filename: str
    size: int
    named: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """What a function returned. `meta`: what it says about its output (`output_meta`), as JSON."""

    output: Any
    files: list[OutFile]
    meta: bytes = b"null"


class Instance:
    """A process with one version of an app and one setup. One call at a time.

    1. `start`  2. `setup`  3. `run` and `tidy`, again and again, `cancel` beside it
    4. `stop`, once or more often
    """

    def __init__(self, spec: InstanceSpec, on_line: OnLine) -> None:
        self.exited = asyncio.Event()
        self.pid = 0
        self.pgid = 0
        self.shared_because = ""
        """Why it has no /tmp of its own; empty when it has one."""
        self.parks = False
        """Whether the app has hooks for leaving the devices."""
        self._spec = spec
        self._on_line = on_line
        self._phase = LogType.SERVE
        self._link = Link(self._on_message)
        self._pipes: list[LinePipe] = []
        self._process: asyncio.subprocess.Process | None = None
        self._watching: asyncio.Task[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._answer: asyncio.Future[Message] | None = None
        self._on_partial: OnPartial | None = None
        self._on_delta: OnDelta | None = None
        self._task_id = ""
        self._runs = 0
        self._run = 0  # the number of the one that goes on
        self.lost: InstanceLost | None = None
        self._package = spec.work_dir / "package"
        self._short = ShortPath(spec.work_dir)
        self._tmp = spec.work_dir / "tmp"
        self._namespace = Namespace()
        self._results: list[Path] = []
        self._run_at = 0.0
        self._is_tidy = True
        self._last_words: deque[str] = deque(maxlen=LAST_WORDS)

    @classmethod
    async def start(cls, spec: InstanceSpec, on_line: OnLine) -> "Instance":
        """Start the process and import the app.

        Raises:
            InstanceFailed: the app's own message, or how the process ended.
        """
        instance = cls(spec, on_line)
        try:
            await instance._spawn()
            order = {"type": "init", "app_dir": str(spec.app_dir), "package_dir": str(instance._package)}
            ready = await instance._loading(order, "import")
            instance.shared_because, instance.parks = ready.shared_because, ready.parks
            instance._namespace = Namespace.hold(instance.pid, ready.namespace)
        except OSError as error:
            await instance.stop("it could not be started")
            raise InstanceNotStarted(f"The app's process cannot be started: {error}", "start") from error
        except BaseException:  # a cancellation too: nobody else knows of this process
            await instance.stop("it could not be started")
            raise
        return instance

    async def setup(self, timeout_s: float) -> None:
        """Run the app's setup.

        Raises:
            InstanceFailed: the app's own message, or how the process ended.
            SetupTimeout: not ready in time.
        """
        self._phase = LogType.SETUP
        order = {"type": "setup", "setup": self._spec.setup, "metadata": self._spec.metadata}
        try:
            async with asyncio.timeout(timeout_s):
                await self._loading(order, "setup")
        except TimeoutError:
            text = f"The app's setup took longer than {timeout_s:g} s ({limit_set_by('setup')})."
            raise SetupTimeout(text) from None
        self._phase = LogType.RUN

    async def run(
        self, task: RunSpec, on_partial: OnPartial, timeout_s: float, on_delta: OnDelta | None = None
    ) -> RunResult:
        """Run one function. All lines that it printed are delivered before this returns.

        Args:
            task: what to run.
            on_partial: gets each partial output, as JSON.
            timeout_s: after this the instance is of no use any more.
            on_delta: gets each increment of the output with its number, from 1, as JSON.

        Raises:
            AppError: the app's own message; the instance is usable.
            InputError: names the fields; the instance is usable.
            InstanceLost: the process ended.
            RunTimeout: it took too long.
        """
        self._runs += 1
        order = {
            "type": "run",
            "run": self._runs,
            "task_id": task.task_id,
            "function": task.function,
            "input": task.input,
            "metadata": task.metadata,
        }
        self.tidy()
        self._is_tidy, self._run_at = False, time.time() - CLOCK_TICK_S
        self._run = self._runs
        self._task_id, self._on_partial, self._on_delta = task.task_id, on_partial, on_delta
        try:
            async with asyncio.timeout(timeout_s or None):
                answer = await self._ask(order)
        except FrameTooLarge as error:
            raise InputError(f"The input is too large: {error}. Pass large data as a file.") from error
        except TimeoutError:
            text = f"The app took longer than {timeout_s:g} s for this task ({limit_set_by('run')})."
            raise RunTimeout(text) from None
        finally:
            self._run, self._task_id, self._on_partial, self._on_delta = 0, "", None, None
        self._is_tidy = not answer.files
        if answer.type == "result":
            files = [msgspec.convert(file, OutFile) for file in answer.files]
            self._results = [Path(file.path) for file in files]
            return RunResult(output=msgspec.json.decode(answer.output), files=files, meta=bytes(answer.meta))
        hidden = self._spec.redactor.text
        if answer.fault == "input":
            fields = tuple((f["loc"], hidden(f["message"])) for f in answer.fields)
            raise InputError(hidden(answer.message), fields)
        raise AppError(hidden(answer.message), vram_short=_is_short(answer))

    def tidy(self) -> None:
        """Remove what the last run left: its result is stored, and apps remove nothing.

        Nothing happens when it was done already (the runner does it by itself after a run whose answer names no file),
        or when the next run goes on, which did it first.
        """
        if self._is_tidy or self._answer is not None:
            return
        self._is_tidy = True
        self.remove_results()
        self._link.send({"type": "tidy"})

    async def park(self) -> None:
        """Have an idle app leave the devices. The caller bounds it; what was given up half-way is of no use any more.

        Raises:
            InstanceFailed: the app's own message, or how the process ended.
        """
        self.tidy()
        await self._loading({"type": "park"}, "park")

    async def unpark(self) -> None:
        """Have a parked app take the devices again; as `park`."""
        await self._loading({"type": "unpark"}, "unpark")

    async def describe(self) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        """The app's functions and the schema of its setup.

        Raises:
            InstanceFailed: the app's own message, or how the process ended.
        """
        answer = await self._loading({"type": "describe"}, "describe")
        return answer.functions, answer.setup_schema

    async def cancel(self, grace_s: float) -> bool:
        """End the run that goes on: ask the app, then SIGTERM, then SIGKILL.

        Args:
            grace_s: for the app to end by itself; 0 = kill at once.

        Returns:
            Whether the instance is still usable.
        """
        answer = self._answer
        if answer is not None and not answer.done():
            if grace_s > 0:
                self._link.send({"type": "cancel", "task_id": self._task_id, "grace_s": grace_s})
                await asyncio.wait({answer}, timeout=grace_s)
            if not answer.done() or answer.cancelled():  # the run's time was over: its function goes on
                await self._end(self._spec.stop_grace_s if grace_s > 0 else 0.0)
        return not self.exited.is_set()

    async def stop(self, reason: str) -> None:  # noqa: ARG002 - who reads the log of the caller finds it there
        """Unload the app and end the process: unload, SIGTERM, SIGKILL, each after the grace time."""
        if self._stopping is None:
            self._stopping = asyncio.ensure_future(self._stop())
        await asyncio.shield(self._stopping)

    def remove_results(self) -> None:
        """Remove the files of the result, wherever they are temporary; the runner knows its own folder alone.

        For the end of a turn below a common /tmp: the next app may write files of the same names.
        """
        for path in self._results:
            temporary = (self._tmp, self._spec.work_dir, tempfile.gettempdir())
            with contextlib.suppress(OSError):
                if (
                    any(path.is_relative_to(folder) for folder in temporary)
                    and path.stat().st_mtime >= self._run_at
                ):
                    path.unlink()
        self._results = []

    async def _spawn(self) -> None:
        spec = self._spec
        for folder in (self._tmp, self._package):
            folder.mkdir(parents=True, exist_ok=True)
        work_dir = self._short.open()
        keep = [spec.app_dir, spec.python.parent.parent, spec.work_dir, work_dir, *spec.keep]
        folders = {"work": str(spec.work_dir), "own_tmp": spec.own_tmp, "keep": [str(path) for path in keep]}
        folders["cache_bytes"] = spec.cache_bytes
        self._tmp = work_dir / "tmp"
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            for _ in range(
                2
            ):  # one by one: whoever closes them finds the first when the second cannot be had
                self._pipes.append(LinePipe(self._line, spec.redactor))
            self._process = await asyncio.create_subprocess_exec(
                *command_of(spec, theirs.fileno(), folders),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=self._pipes[0].write_fd,
                stderr=self._pipes[1].write_fd,
                cwd=spec.app_dir,
                env=process_environment(spec, work_dir),
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
            for pipe in self._pipes:
                pipe.started()
        self.pid = self.pgid = self._process.pid
        self._watching = asyncio.ensure_future(self._watch(self._process))
        await asyncio.get_running_loop().create_unix_connection(lambda: self._link, sock=ours)

    async def _watch(self, process: asyncio.subprocess.Process) -> None:
        """Wait for the end of the process, and tell who waits for it."""
        returncode = await process.wait()
        try:
            signal_group(self.pgid, signal.SIGKILL)  # what it left behind
            await asyncio.to_thread(end_strays, self._namespace.name, str(self._tmp.with_name(FILES)))
        except (
            OSError
        ) as error:  # no file descriptor is left, for instance; that it ended must be told all the same
            self._line(f"What the app left running could not be looked for: {error}")
        self._namespace.release()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._link.closed.wait()
        for pipe in self._pipes:
            pipe.close()
        self._link.close()
        text = self._link.broken or f"the app's process {describe_exit(returncode)}"
        if returncode == -signal.SIGKILL:
            text += "; often the machine ran out of memory"
        short = any(map(says_so, self._last_words))
        returncode_told = None if self._link.broken else returncode
        self.lost = InstanceLost(_sentence(text), returncode_told, vram_short=short)
        self.exited.set()
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(self.lost)

    async def _loading(self, order: dict[str, Any], phase: str) -> Message:
        """A step before the first run."""
        try:
            answer = await self._ask(order)
        except InstanceLost as lost:
            text = f"{lost.message} (while it did: {phase})"
            raise InstanceFailed(text, phase, killed=lost.killed, vram_short=lost.vram_short) from lost
        if answer.type == "failed":
            text = self._spec.redactor.text(answer.message)
            raise InstanceFailed(text, phase, vram_short=_is_short(answer))
        return answer

    async def _ask(self, order: dict[str, Any]) -> Message:
        """Send an order and wait for its last message."""
        if self.lost is not None:
            raise self.lost
        self._answer = asyncio.get_running_loop().create_future()
        try:
            self._link.send(order)
            return await self._answer
        finally:
            self._answer = None

    def _on_message(self, message: Message) -> None:
        if message.run != self._run:
            return  # of a run that was given up: its output is nobody else's
        if message.type == "partial":
            if self._on_partial is not None:
                self._on_partial(bytes(message.output))
            return
        if message.type == "delta":
            if self._on_delta is not None:
                self._on_delta(message.seq, bytes(message.output))
            return
        for pipe in self._pipes:
            pipe.drain()  # what was printed before comes first
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(message)

    def _line(self, text: str) -> None:
        self._last_words.append(text)
        self._on_line(self._phase, text)

    async def _stop(self) -> None:
        if self._process is None:
            for pipe in self._pipes:
                pipe.close()
            self._link.close()
            self.exited.set()
        else:
            grace_s = self._spec.stop_grace_s
            busy = self._answer is not None and not self._answer.done()
            if not busy and self._phase is LogType.RUN:
                self._link.send({"type": "stop"})
                await self._gone_within(grace_s)
            await self._end(grace_s)
        self._short.close()
        await asyncio.to_thread(shutil.rmtree, self._spec.work_dir, ignore_errors=True)

    async def _end(self, grace_s: float) -> None:
        """SIGTERM, SIGKILL to the group."""
        if grace_s > 0 and not self.exited.is_set():
            signal_group(self.pgid, signal.SIGTERM)
            await self._gone_within(grace_s)
        if not self.exited.is_set():
            signal_group(self.pgid, signal.SIGKILL)
            await self._gone_within(KILL_WAIT_S)

    async def _gone_within(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.exited.wait()


def _is_short(answer: Message) -> bool:
    """Whether GPU memory ran out. The Node runner leaves that to its words."""
    return answer.vram_short or says_so(answer.message)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
