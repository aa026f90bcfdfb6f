"""Runs the steps of a build. Every line is a log line; a failure becomes one error with its essential line."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from stoker.core.errors import StokerError
from stoker.core.messages import LogType
from stoker_worker.build_errors import explain, killed
from stoker_worker.logs import OnLine
from stoker_worker.procs import LinePipe, signal_group

LAUNCHER: Final = Path(__file__).parent / "launcher"
KEPT_LINES: Final = 400
"""Of a step's output, as many as the search for the essential line looks at."""


class StepFailed(StokerError):
    """A step of a build failed. `essential` is the line that says why, `hint` what to do; it may be empty."""

    code = "environment_failed"

    def __init__(self, title: str, essential: str, hint: str) -> None:
        super().__init__(f"{title}: {essential}")
        self.step = title
        self.essential = essential
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A program to run. `title` names it in an error: the requirement file, as a rule."""

    title: str
    command: Sequence[str | Path]
    cwd: Path
    env: Mapping[str, str]


def guarded(fd: int, *command: str | Path, folders: str = "") -> tuple[str, ...]:
    """`command`, wrapped so that it ends with this process: its whole group, at once.

    Args:
        fd: its end of a socket whose other end this process holds.
        command: the program and its arguments.
        folders: what `runner/__main__.py` takes as its folders; "" = no /tmp of its own is asked for.
    """
    own = (sys.executable, "-I", "-S", LAUNCHER, fd, os.getpid(), folders)
    return tuple(str(part) for part in (*own, *command))


async def run_steps(steps: Sequence[Step], on_line: OnLine, lock: int = -1) -> None:
    """Run programs one after the other, each in a process group that ends with it and with us.

    Args:
        steps: what to run.
        on_line: gets each line as it is printed.
        lock: a descriptor that all of them inherit; -1 = none.

    Raises:
        StepFailed: the title of the one that failed, its essential line and a hint.
        OSError: a program could not be started.
    """
    ours, theirs = socket.socketpair()  # its end tells the guards that we are gone
    with ours, theirs:
        for step in steps:
            await _run(step, on_line, theirs.fileno(), lock)


async def _run(step: Step, on_line: OnLine, fd: int, lock: int) -> None:
    lines: list[str] = []

    def take(printed: str) -> None:
        for line in printed.split("\n"):  # one by one: those who wait for this build read them from its log
            lines.append(line)
            on_line(LogType.BUILD, line)
        del lines[:-KEPT_LINES]

    pipe = LinePipe(take)
    try:
        try:
            process = await asyncio.create_subprocess_exec(
                *guarded(fd, *step.command),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=pipe.write_fd,
                stderr=pipe.write_fd,
                cwd=step.cwd,
                env=dict(step.env),
                pass_fds=(fd,) if lock < 0 else (fd, lock),
                start_new_session=True,
            )
        finally:
            pipe.started()
        try:
            returncode = await process.wait()
        finally:
            signal_group(process.pid, signal.SIGKILL)  # compilers too, when the build is cancelled
    finally:
        pipe.close()
    if returncode:
        found = explain(lines) if returncode > 0 else killed(signal.Signals(-returncode).name)
        said = found.essential or f"it printed nothing, exit status {returncode}"
        raise StepFailed(step.title, said, found.hint)
