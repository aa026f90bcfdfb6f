"""Finds a Python of an exact version on this machine, or has uv fetch it. Finding starts no process."""

import os
import re
import shutil
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from stoker.core.errors import StokerError
from stoker.core.messages import LogType
from stoker_worker.build_errors import may_pass
from stoker_worker.installer import Step, StepFailed, run_steps
from stoker_worker.logs import OnLine

DEFAULT_VERSION: Final = "3.11"
"""For apps whose kernel is empty: all that were built with a known version were built with this one."""
SUPPORTED: Final = ("3.10", "3.11", "3.12", "3.13")
"""The runner is tested on these; others may be asked for all the same."""
_KERNEL: Final = re.compile(r"(?:python-?)?(3\.\d+)(?:\.\d+)?")


class PythonMissing(StokerError):
    """This machine has no interpreter of the version that the app wants."""

    code = "python_missing"


class PythonUnreachable(PythonMissing):
    """This machine lacks the Python, and it could not be fetched just now."""

    retryable = True


class UnknownKernel(StokerError):
    """The app wants a kernel that Stoker does not have."""

    code = "unknown_kernel"


def version_of(kernel: str) -> str:
    """`3.12` of `python-3.12`; `python-3.11`, `3.11` and the empty kernel mean 3.11.

    Raises:
        UnknownKernel: it names no Python.
    """
    if kernel.strip() in {"", "python"}:
        return DEFAULT_VERSION
    found = _KERNEL.fullmatch(kernel.strip())
    if found is None:
        raise UnknownKernel(
            f"The app's kernel is {kernel!r}; Stoker runs Python (python-3.10, python-3.11 ...) and Node "
            "(node-22) apps. Change the kernel in inf.yml."
        )
    return found[1]


def find_python(version: str) -> Path:
    """An interpreter of exactly this major.minor.

    Raises:
        PythonMissing: names what is there.
    """
    if (path := _find(version)) is not None:
        return path
    raise PythonMissing(missing_text(version, found_versions()))


def found_versions() -> tuple[str, ...]:
    """Versions that are on this machine, of the supported ones."""
    return tuple(version for version in SUPPORTED if _find(version) is not None)


async def fetch_python(version: str, uv: str, on_line: OnLine) -> Path:
    """Have uv fetch an interpreter.

    Raises:
        PythonMissing: uv could not; with its reason.
    """
    on_line(LogType.BUILD, f"Python {version} is not on this machine; uv fetches it")
    env = dict(os.environ) | {"UV_PYTHON_DOWNLOADS": "automatic", "UV_NO_PROGRESS": "1", "NO_COLOR": "1"}
    step = Step(title="uv python install", command=(uv, "python", "install", version), cwd=Path("/"), env=env)
    try:
        await run_steps([step], on_line)
    except (StepFailed, OSError) as error:
        reason = error.essential if isinstance(error, StepFailed) else str(error)
        why = f" uv could not fetch it: {reason.rstrip('.')}."
        kind = PythonUnreachable if isinstance(error, StepFailed) and may_pass(error.hint) else PythonMissing
        raise kind(missing_text(version, found_versions(), why)) from error
    return find_python(version)


def nearest(wanted: str, found: Iterable[str]) -> str | None:
    """Of the versions found the nearest one; of two equally near the newer."""
    minor = _minor(wanted)
    return min(found, key=lambda version: (abs(_minor(version) - minor), -_minor(version)), default=None)


def missing_text(version: str, found: Iterable[str], why: str = "") -> str:
    """The message of `PythonMissing`."""
    return (
        f"The app wants Python {version}, which is not on this machine (found: {', '.join(found) or 'none'}).{why} "
        f"Install it (apt-get install python{version}, pyenv install {version}, or uv python install {version}), "
        "change the kernel in inf.yml, or allow the nearest one with the setting python_fallback."
    )


def find_on_path(version: str) -> Path | None:
    """`python3.12` on the PATH; a shim of pyenv is none, it may lead nowhere."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    real = os.pathsep.join(folder for folder in folders if not folder.rstrip("/").endswith("/shims"))
    found = shutil.which(f"python{version}", path=real)
    return None if found is None else Path(found)


def _find(version: str) -> Path | None:
    """Our own interpreter, the PATH, pyenv, what uv has fetched: the first that has it."""
    own = Path(sys.base_prefix) / "bin" / f"python{version}"
    if version == f"{sys.version_info.major}.{sys.version_info.minor}" and own.exists():
        return own
    if path := find_on_path(version):
        return path
    return next((paths[-1] for paths in (_pyenv(version), _uv(version)) if paths), None)


def _pyenv(version: str) -> list[Path]:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    return _newest_last((root / "versions").glob(f"{version}.*/bin/python{version}"))


def _uv(version: str) -> list[Path]:
    """Interpreters in uv's own directory, which its environment may name."""
    data = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")
    root = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or data / "uv" / "python")
    return _newest_last(root.glob(f"cpython-{version}.*-*/bin/python{version}"))


def _newest_last(paths: Iterator[Path]) -> list[Path]:
    usable = [path for path in paths if os.access(path, os.X_OK)]
    return sorted(usable, key=lambda path: [int(part) for part in re.findall(r"\d+", path.parts[-3])])


def _minor(version: str) -> int:
    return int(version.split(".")[1])
