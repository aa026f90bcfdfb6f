"""An app's environment against bare uv: the same 16 pinned packages, the same warm cache, in turns.

`python bench/environments.py [runs]`. Needs a package index once, to fill the cache of uv that both sides use.
"""

import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from stoker.core.messages import LogType
from stoker.manifest import Manifest
from stoker_worker.environment import Environments
from stoker_worker.main import find_uv

PACKAGES = """\
annotated-types==0.7.0
attrs==24.2.0
blinker==1.8.2
certifi==2024.8.30
click==8.1.7
colorama==0.4.6
filelock==3.16.1
idna==3.10
iniconfig==2.0.0
itsdangerous==2.2.0
mypy-extensions==1.0.0
packaging==24.1
pluggy==1.5.0
six==1.16.0
toolz==1.0.0
zipp==3.20.2
"""
SDK = ("inferencesh", "pydantic")
"""What an environment of ours has besides the list."""
RUNS = 15
APP = Manifest(name="bench", kernel=f"python-{sys.version_info.major}.{sys.version_info.minor}")


def no_line(_kind: LogType, _text: str) -> None:
    """Nobody reads the log."""


async def ours(app_dir: Path, cache: Path) -> tuple[float, float]:
    """Seconds of a build, and of a second version that has the same requirements."""
    environments = Environments(cache, find_uv())
    begun = time.perf_counter()
    (await environments.ensure(app_dir, APP, no_line)).close()
    built = time.perf_counter()
    second = app_dir.with_name("second")
    shutil.copytree(app_dir, second, dirs_exist_ok=True)
    (second / "inference.py").write_text("class App: ...\n")
    lines: list[str] = []
    again = time.perf_counter()
    (await environments.ensure(second, APP, lambda _kind, text: lines.append(text))).close()
    found = time.perf_counter()
    if lines or len(environments.keys()) != 1:
        sys.exit(f"a second version with the same requirements built something: {lines}")
    return built - begun, found - again


def bare(app_dir: Path, venv: Path, *more: str) -> tuple[float, float]:
    """Seconds of `uv venv`, and of `uv pip install` with the list and `more`."""
    uv = find_uv()
    begun = time.perf_counter()
    subprocess.run([uv, "venv", "--quiet", "--no-project", "--python", sys.executable, venv], check=True)
    made = time.perf_counter()
    install = [uv, "pip", "install", "--quiet", "--python", venv / "bin/python", "-r", "requirements.txt"]
    options = ["--prerelease", "allow", "--index-strategy", "unsafe-best-match"]
    subprocess.run([*install, *options, *more], cwd=app_dir, check=True)
    return made - begun, time.perf_counter() - made


def main() -> None:
    """Print the medians, their ratio, and what a second version costs."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    with tempfile.TemporaryDirectory(prefix="stoker-bench-") as folder:
        base = Path(folder)
        os.environ["UV_CACHE_DIR"] = str(base / "uv")
        app_dir = base / "app"
        app_dir.mkdir()
        (app_dir / "requirements.txt").write_text(PACKAGES)
        bare(app_dir, base / "warm", *SDK)
        asyncio.run(ours(app_dir, base / "warm-cache"))
        theirs, plain, built, found = [], [], [], []
        for number in range(runs):
            theirs.append(sum(bare(app_dir, base / f"venv{number}", *SDK)))
            plain.append(bare(app_dir, base / f"plain{number}")[1])
            one, two = asyncio.run(ours(app_dir, base / f"cache{number}"))
            built.append(one)
            found.append(two)
    ratio, strict = (statistics.median(built) / statistics.median(times) for times in (theirs, plain))
    print(f"{runs} runs each, in turns; medians in ms (smallest to largest)")
    rows = {
        "uv venv + uv pip install": theirs,
        "the list alone, no venv": plain,
        "Stoker": built,
        "second version": found,
    }
    for name, times in rows.items():
        low, middle, high = (1000 * f(times) for f in (min, statistics.median, max))
        print(f"  {name:<25} {middle:8.1f}  ({low:.1f} to {high:.1f})")
    print(f"ratio of medians {ratio:.2f} ({strict:.2f} of the list alone); the second version built nothing")


if __name__ == "__main__":
    main()
