"""Finds a Python of an exact version on this machine. Starts no process unless a name alone does not tell."""

import os
import re
import shutil
import sys
from pathlib import Path
from typing import Final

from stoker.core.errors import StokerError

DEFAULT_VERSION: Final = "3.11"
"""For apps whose kernel is empty: all that were built with a known version were built with this one."""
_KERNEL: Final = re.compile(r"(?:python-?)?(3\.\d+)(?:\.\d+)?")


class PythonMissing(StokerError):
    """This machine has no interpreter of the version that the app wants."""

    code = "python_missing"


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
            f"The app's kernel is {kernel!r}; Stoker runs Python apps only (python-3.10, python-3.11 ...)"
        )
    return found[1]


def find_python(version: str) -> Path:
    """An interpreter of exactly this major.minor.

    Raises:
        PythonMissing: names what is there.
    """
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    if version == own:
        return Path(sys.base_prefix) / "bin" / f"python{own}"
    if path := find_on_path(version):
        return path
    if paths := _pyenv(version):
        return paths[-1]
    known = sorted({own, *(v for v in ("3.10", "3.11", "3.12", "3.13") if find_on_path(v) or _pyenv(v))})
    raise PythonMissing(
        f"The app wants Python {version}, which is not on this machine (found: {', '.join(known)}). "
        f"Install python{version}, or change the kernel in inf.yml."
    )


def find_on_path(version: str) -> Path | None:
    """`python3.12` on the PATH; a shim of pyenv is none, it may lead nowhere."""
    folders = os.environ.get("PATH", os.defpath).split(os.pathsep)
    real = os.pathsep.join(folder for folder in folders if not folder.rstrip("/").endswith("/shims"))
    found = shutil.which(f"python{version}", path=real)
    return None if found is None else Path(found)


def _pyenv(version: str) -> list[Path]:
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = (root / "versions").glob(f"{version}.*/bin/python{version}")
    return sorted(found, key=lambda path: [int(part) for part in re.findall(r"\d+", path.parts[-3])])
