"""What several tests share: bounded waits, and a whole running system.

Nothing here asserts a duration; every wait has a bound, after which it says what it waited for.
"""

import asyncio
import contextlib
import functools
import json
import os
import queue
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from unittest.mock import patch

import httpx
import psutil

T = TypeVar("T")

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples" / "apps"
TEST_APPS = ROOT / "tests" / "apps"
POLL_S = 0.02
UNLIMITED = {"run": 0, "get": 0, "upload": 0}
PATIENCE_S = 60.0
"""The bound of a wait: far above what it takes, on a machine that does other things too."""


def wait_until(check: Callable[[], T], what: str, timeout_s: float = PATIENCE_S) -> T:
    """Return the first truthy value of `check`; fail when none comes in time."""
    deadline = time.monotonic() + timeout_s
    while True:
        if value := check():
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain for: {what}")
        time.sleep(POLL_S)


async def eventually(check: Callable[[], T | Awaitable[T]], what: str, timeout_s: float = PATIENCE_S) -> T:
    """`wait_until` for coroutines: `check` may be a plain or an async function."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = check()
        if isinstance(value, Awaitable):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout_s:g} s in vain for: {what}")
        await asyncio.sleep(POLL_S)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    """Send a signal to one process. To os.kill, 0 and -1 are many, this test run among them.

    Zero comes from pids.json, for a part that is away; others come from what apps say of themselves.
    """
    assert isinstance(pid, int), pid
    assert pid > 1, pid
    assert pid != os.getpid(), pid
    os.kill(pid, number)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    assert pid, "no process: to psutil that is this one"
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def family(pid: int) -> set[int]:
    """A process and everything below it."""
    assert pid, "no process: to psutil that is this one"
    try:
        process = psutil.Process(pid)
        return {pid} | {child.pid for child in process.children(recursive=True)}
    except psutil.NoSuchProcess:
        return set()


def wait_gone(pids: set[int], timeout_s: float = PATIENCE_S) -> None:
    """Wait until none of these processes runs."""
    wait_until(
        lambda: not any(alive(pid) for pid in pids),
        f"the end of {sorted(pid for pid in pids if alive(pid))}",
        timeout_s,
    )


def size_of(path: Path) -> int:
    """Bytes of a file; 0 when it is gone."""
    with contextlib.suppress(OSError):
        return path.stat().st_size
    return 0


def environment(**extra: str) -> dict[str, str]:
    """This process's environment without any setting of Stoker, plus `extra`.

    Also without PYTHONDONTWRITEBYTECODE: a system is seven interpreters, and each would compile everything anew.
    """
    plain = {name: value for name, value in os.environ.items() if not name.startswith("STOKER_")}
    plain.pop("PYTHONDONTWRITEBYTECODE", None)
    return plain | {"NO_COLOR": "1"} | extra


@functools.cache
def trust(ca_file: str | None) -> ssl.SSLContext:
    """What clients verify certificates with; to read the machine's takes 20 ms."""
    return ssl.create_default_context(cafile=ca_file)


@dataclass
class System:
    """A whole `stoker up`, in its own processes and its own data directory."""

    data_dir: Path
    process: subprocess.Popen[str]
    events: "queue.Queue[dict[str, Any]]"
    env: dict[str, str]
    base_url: str = ""
    api_key: str = ""
    bench_key: str = ""
    stderr: list[str] = field(default_factory=list)
    _deployed: dict[Path, str] = field(default_factory=dict)

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by part name (`up`, `server`, `gateway`, `scheduler`, `worker`, `jobs`), as of now.

        Zero for a part that was started and was gone again at once.
        """
        return json.loads((self.data_dir / "pids.json").read_text())

    def kill(self, part: str, number: int = signal.SIGKILL) -> None:
        """Send a signal to a part; see `pids`."""
        kill(self.pids[part], number)

    def event(self, name: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
        """The next event of that name which `stoker up --json` printed."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                event = self.events.get(timeout=max(0.01, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"no event {name!r} from stoker up; {self.complaints()}") from None
            if event["event"] == name:
                return event
            if event["event"] in {"failed", "eof"}:
                raise AssertionError(f"stoker up said {event}; {self.complaints()}")

    def complaints(self) -> str:
        """What the system printed on stderr, and the ends of its logs."""
        tails = [
            f"--- {path.name}\n" + "\n".join(path.read_text(errors="replace").splitlines()[-15:])
            for path in sorted((self.data_dir / "logs").glob("*.log"))
        ]
        return "\n".join(["stderr: " + " ".join(self.stderr[-20:]), *tails])

    def cli(self, *arguments: str, check: bool = True, **env: str) -> subprocess.CompletedProcess[str]:
        """Run `stoker` against this system."""
        done = subprocess.run(
            [sys.executable, "-m", "stoker_cli", *arguments],
            env=self.env | env,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S * 5,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"stoker {' '.join(arguments)}: {done.stdout}{done.stderr}{self.complaints()}"
            )
        return done

    def cli_json(self, *arguments: str) -> Any:
        """Run `stoker ... --json` and decode what it prints."""
        return json.loads(self.cli(*arguments, "--json").stdout)

    def deploy(self, folder: Path) -> str:
        """Deploy an app once; its reference.

        By the function behind `stoker apps deploy`, which test_apps.py tests as a command: an interpreter for each
        of the many deploys would take longer than they do.
        """
        if folder not in self._deployed:
            self._deployed[folder] = asyncio.run(self._deploy(folder))
        return self._deployed[folder]

    async def _deploy(self, folder: Path) -> str:
        from stoker_cli.api import Api
        from stoker_cli.deploy import deploy_folder

        with patch.dict(os.environ, self.env, clear=True):
            async with Api.from_settings() as api:
                return (await deploy_folder(api, folder, lambda _line: None)).app

    def client(self, key: str = "", **headers: str) -> httpx.Client:
        """A plain HTTP client with a key (default: the one without limits)."""
        return httpx.Client(
            base_url=self.base_url,
            headers={"Authorization": f"Bearer {key or self.bench_key}"} | headers,
            verify=trust(self.env.get("STOKER_CA_FILE")),
            timeout=30,
            trust_env=False,
        )

    def stop(self, timeout_s: float = PATIENCE_S) -> int:
        """End it as Ctrl-C does; its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.send_signal(signal.SIGINT)
            try:
                return self.process.wait(timeout_s)
            finally:
                self.process.kill()  # what does not end must not outlive the test; nothing if it has ended


def start_system(data_dir: Path, *arguments: str, ready: bool = True, **env: str) -> System:
    """Start a whole system on its own port and directory, and wait until a task can run.

    Args:
        data_dir: its data directory.
        arguments: more flags of `stoker up`.
        ready: wait for it, and make the key without limits.
        env: settings, as environment variables.
    """
    environ = environment(**env)
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "stoker_cli",
            "up",
            "--json",
            "--port",
            "0",
            "--data-dir",
            str(data_dir),
            *arguments,
        ],
        env=environ | {"STOKER_PARENT_PID": str(os.getpid())},  # a test run that is killed leaves nothing
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    system = System(data_dir, process, queue.Queue(), environ | {"STOKER_DATA_DIR": str(data_dir)})
    threading.Thread(target=_read_events, args=(process, system.events), daemon=True).start()
    threading.Thread(target=_read_lines, args=(process, system.stderr), daemon=True).start()
    if ready:
        try:
            system.base_url = system.event("ready", timeout_s=PATIENCE_S * 2)["url"]
            system.api_key = (data_dir / "api-key").read_text().strip()
            with system.client(system.api_key) as http:
                made = http.post("/apikeys", json={"name": "bench", "rates": UNLIMITED})
            system.bench_key = made.raise_for_status().json()["data"]["key"]
        except BaseException:
            process.kill()
            raise
    return system


@contextlib.contextmanager
def running_system(data_dir: Path, *arguments: str, **env: str) -> Iterator[System]:
    """`start_system` for a block; it is stopped at the end, also when the block fails."""
    one = {"STOKER_STEP_WORKERS": "1"}  # a third of a second of a processor less, for each of many systems
    system = start_system(data_dir, *arguments, **one | env)
    try:
        yield system
    finally:
        system.stop()


def _read_events(process: subprocess.Popen[str], events: "queue.Queue[dict[str, Any]]") -> None:
    for line in process.stdout or ():
        try:
            events.put(json.loads(line))
        except ValueError:
            events.put({"event": "text", "text": line})
    events.put({"event": "eof"})


def _read_lines(process: subprocess.Popen[str], lines: list[str]) -> None:
    for line in process.stderr or ():
        lines.append(line)  # noqa: PERF402 - readers look at it while it grows
