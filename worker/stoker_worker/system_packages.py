"""packages.txt: the system packages that an app takes for granted. They are checked, never installed."""

import asyncio
import re
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Final

from stoker.core.errors import StokerError

FILE: Final = "packages.txt"
ALL: Final = "*"
"""In the setting: the operator promises whatever an app names."""
QUERY_TIMEOUT_S: Final = 30.0
COMMANDS: Final[dict[str, tuple[str, ...]]] = {
    "ffmpeg": ("ffmpeg", "ffprobe"),
    "chromium": ("chromium",),
    "chromium-browser": ("chromium-browser",),
    "imagemagick": ("convert",),
    "build-essential": ("gcc", "g++", "make"),
    "nodejs": ("node",),
    "ghostscript": ("gs",),
    "poppler-utils": ("pdftoppm", "pdftotext"),
    "tesseract-ocr": ("tesseract",),
    "libreoffice": ("soffice",),
    "openjdk-17-jre-headless": ("java",),
    "default-jre": ("java",),
    "p7zip-full": ("7z",),
    "graphviz": ("dot",),
    "espeak-ng": ("espeak-ng",),
    "golang-go": ("go",),
}
"""Packages that are there as well where their commands are, whoever installed them."""
_INSTALL: Final = (
    ("apt-get", "apt-get install -y"),
    ("dnf", "dnf install -y"),
    ("apk", "apk add"),
    ("pacman", "pacman -S"),
    ("zypper", "zypper install -y"),
)


class SystemPackagesMissing(StokerError):
    """The app needs system packages that this machine lacks."""

    code = "system_packages_missing"


def packages_of(app_dir: Path) -> list[str]:
    """Names in an app's packages.txt, without comments, versions and architectures; each once."""
    try:
        text = (app_dir / FILE).read_text(encoding="utf-8-sig", errors="replace")
    except OSError:
        return []
    words = " ".join(re.sub(r"#.*", "", line) for line in text.splitlines()).split()
    return list(dict.fromkeys(re.split(r"[=:]", word)[0].lower() for word in words))


async def check(app_dir: Path, app: str, promised: Collection[str]) -> list[str]:
    """Find out whether what the app needs is here.

    Args:
        app_dir: the app's folder.
        app: its name, for the error.
        promised: names that the operator vouches for; "*" = all.

    Returns:
        Names that cannot be checked here, because the machine is no Debian and they are no commands.

    Raises:
        SystemPackagesMissing: names them, with the command that installs them.
    """
    wanted = [name for name in packages_of(app_dir) if name not in promised and ALL not in promised]
    unknown = [name for name in wanted if not has_commands(name)]
    if not unknown:
        return []
    installed = await _installed()
    if installed is None:
        missing = [name for name in unknown if name in COMMANDS]
    else:
        missing = [name for name in unknown if name not in installed]
    if missing:
        raise SystemPackagesMissing(missing_text(app, missing, _manager()))
    return unknown if installed is None else []


def has_commands(package: str) -> bool:
    """Whether the commands of a package are on the PATH; of a package that is not known, one of its name."""
    return all(shutil.which(command) for command in COMMANDS.get(package, (package,)))


def missing_text(app: str, missing: Iterable[str], install: str) -> str:
    """The message of `SystemPackagesMissing`."""
    names = list(missing)
    listed = ", ".join(names)
    one = len(names) == 1
    how = (
        f"Install {'it' if one else 'them'} there with: {install} {' '.join(names)}"
        if install
        else "Install them"
    )
    return (
        f"The app {app!r} needs the system package{'' if one else 's'} {listed} ({FILE}), which "
        f"{'is' if one else 'are'} not on the worker's machine. {how}; or, where "
        f"{'it is' if one else 'they are'} there in another way, list {'it' if one else 'them'} in the setting "
        "system_packages."
    )


def parse_installed(text: str) -> frozenset[str]:
    """Installed packages and what they provide, of `dpkg-query` with `QUERY`."""
    found: set[str] = set()
    for line in text.splitlines():
        name, _, rest = line.partition("\t")
        status, _, provides = rest.partition("\t")
        if status == "installed":
            found.add(name)
            found.update(re.split(r"[\s(:]", part.strip())[0] for part in provides.split(",") if part.strip())
    return frozenset(found)


QUERY: Final = r"${Package}\t${db:Status-Status}\t${Provides}\n"


async def _installed() -> frozenset[str] | None:
    """What dpkg has installed; None on a machine without dpkg."""
    query = shutil.which("dpkg-query")
    if query is None:
        return None
    process = await asyncio.create_subprocess_exec(
        query,
        "-W",
        f"-f={QUERY}",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        async with asyncio.timeout(QUERY_TIMEOUT_S):
            out, _ = await process.communicate()
    except BaseException:  # cancelled or too slow: nobody waits for it any more
        process.kill()
        raise
    return parse_installed(out.decode(errors="replace")) if process.returncode == 0 else None


def _manager() -> str:
    return next((command for program, command in _INSTALL if shutil.which(program)), "")
