"""The official clients as test dependencies: where they are installed, and how a test drives one.

Each version of the Python package gets an environment of its own below the test run's virtual environment
(else below the user's cache), built once under a lock; the JavaScript package is installed by `npm ci` from
the lock file beside its driver. Both need the package index once, and nothing afterwards.
"""

import contextlib
import dataclasses
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uv

HERE = Path(__file__).parent
PY_DRIVER = HERE / "drivers" / "py_client.py"
JS_DIR = HERE / "js"
INSTALL_S = 110  # a bound on one installation; below pytest's own limit for a test
DRIVE_S = 100  # a bound on one plan; the drivers bound each of their steps

NEW_NUMBERS = (10, 11, 12)  # completed, failed, cancelled as newer clients count
OLD_NUMBERS = (9, 10, 11)  # as the documented REST contract and clients up to 0.6.0 do


@dataclasses.dataclass(frozen=True)
class Sdk:
    """One official client: `python` or `js`, its version, and for Python the sync or the async class."""

    language: str
    version: str
    mode: str = "sync"
    numbers: tuple[int, int, int] = NEW_NUMBERS

    def __str__(self) -> str:
        return f"{self.language}-{self.version}" + ("-async" if self.mode == "async" else "")

    def drive(
        self, steps: list[dict[str, Any]], base_url: str, key: str, timeout_s: float = DRIVE_S
    ) -> dict[str, Any]:
        """Run the steps in a process of their own; tell the facts of each by its name."""
        plan = {"mode": self.mode, "base_url": base_url, "key": key, "steps": steps}
        if self.language == "js":
            install_js()
            command = ["node", "--import", "tsx", "js_client.ts"]
        else:
            command = [str(python_with(self.version)), str(PY_DRIVER)]
        return run_plan(command, plan, timeout_s)


def run_plan(command: list[str], plan: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """Give a driver its plan; its JSON answer, or an AssertionError with what it wrote instead."""
    done = subprocess.run(
        command,
        cwd=JS_DIR,
        input=json.dumps(plan).encode(),
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-4000:]
    return json.loads(done.stdout)


def python_with(version: str) -> Path:
    """The interpreter of an environment that holds this version of `inferencesh`."""
    return python_of(f"inferencesh-{version}", f"inferencesh=={version}", "aiohttp", "aiofiles")


def python_of(name: str, *wanted: str) -> Path:
    """The interpreter of the environment of that name, which holds these packages."""
    made_for = f"{list(wanted)} {sys.version}"
    folder = cache_dir() / name
    python, ready = folder / "bin" / "python", folder / "ready"
    with locked(folder):
        if not ready.is_file() or ready.read_text() != made_for:
            shutil.rmtree(folder, ignore_errors=True)
            find_uv = uv.find_uv_bin()
            install([find_uv, "venv", "--quiet", "--python", sys.executable, str(folder)])
            install([find_uv, "pip", "install", "--quiet", "--python", str(python), *wanted])
            ready.write_text(made_for)
    return python


def install_js() -> None:
    """Install `@inferencesh/sdk` and tsx as the lock file says; nothing when that was done already.

    Without Node its tests are skipped, but never in CI.
    """
    if shutil.which("npm") is None and not os.environ.get("CI"):
        pytest.skip("Node and npm are not installed")
    lock = hashlib.sha256((JS_DIR / "package-lock.json").read_bytes()).hexdigest()
    ready = JS_DIR / "node_modules" / ".ready"
    with locked(cache_dir() / "js"):
        if not ready.is_file() or ready.read_text() != lock:
            # esbuild comes as a package for each platform; its install script would only check that.
            install(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], cwd=JS_DIR)
            ready.write_text(lock)


def cache_dir() -> Path:
    if sys.prefix != sys.base_prefix:
        return Path(sys.prefix) / "clients"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stoker-tests" / "clients"


@contextlib.contextmanager
def locked(thing: Path) -> Iterator[None]:
    """Hold a lock beside `thing`, so that two test runs do not build it at once."""
    thing.parent.mkdir(parents=True, exist_ok=True)
    with thing.with_name(f"{thing.name}.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def install(command: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=INSTALL_S, check=False)
    assert done.returncode == 0, f"{command[:3]} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
