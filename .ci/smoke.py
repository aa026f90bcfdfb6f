"""A smoke run of `make run`: ready, a first task completed, Ctrl-C, and no process left."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 400.0
"""Covers a first `make run`, which downloads the packages of the OCR app."""


def wait_for(what: str, check: Callable[[], Any]) -> Any:
    """The first truthy value of `check`; ends the run when none comes."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if value := check():
            print(f"{what}: yes", flush=True)
            return value
        time.sleep(0.1)
    raise SystemExit(f"{what}: not within {PATIENCE_S:.0f} s")


def fetch(url: str, key: str = "", body: object = None) -> Any:
    """A JSON answer, or None while there is none."""
    headers = {"Content-Type": "application/json", "X-API-Version": "2"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    try:
        request = urllib.request.Request(url, data=data, headers=headers)  # noqa: S310 - our own gateway
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return json.loads(answer.read() or b"true")
    except (OSError, ValueError, urllib.error.URLError):
        return None


def read(path: Path) -> str:
    """A small file's text, '' while it is not there."""
    return path.read_text().strip() if path.exists() else ""


def completed(url: str, key: str) -> bool:
    """Whether both first tasks of `make run` have completed."""
    page = fetch(f"{url}/tasks/list", key, {"limit": 20}) or {}
    states = [task["status"] for task in page.get("items", [])]
    if 11 in states:
        raise SystemExit(f"a first task failed: {page}")
    return states.count(10) >= 2


def smoke(data_dir: Path) -> None:
    """Run it once.

    Raises:
        SystemExit: says which step failed.
    """
    env = os.environ | {"STOKER_PORT": "0", "STOKER_DATA_DIR": str(data_dir)}
    process = subprocess.Popen(["make", "run"], cwd=ROOT, env=env, start_new_session=True)
    family: set[psutil.Process] = set()
    try:
        url = wait_for("the gateway has an address", lambda: read(data_dir / "gateway.url"))
        wait_for("GET /ready answers 200", lambda: fetch(f"{url}/ready"))
        key = wait_for("the key is in the data directory", lambda: read(data_dir / "api-key"))
        wait_for("the first tasks completed", lambda: completed(url, key))
        family = set(psutil.Process(process.pid).children(recursive=True))
        os.killpg(process.pid, signal.SIGINT)
        wait_for("make run ended at Ctrl-C", lambda: process.poll() is not None)
        wait_for("no process is left", lambda: not any(p.is_running() for p in family))
    finally:
        for left in family | ({psutil.Process(process.pid)} if process.poll() is None else set()):
            if left.is_running():
                left.kill()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="stoker smoke ", ignore_cleanup_errors=True) as folder:
        smoke(Path(folder) / "data")
    sys.exit(0)
