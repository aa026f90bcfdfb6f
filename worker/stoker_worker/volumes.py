"""The file systems that the daemon keeps something on. A network disk may hang: call from a thread that may."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from stoker.core.telemetry import Volume


def read_volumes(folders: Iterable[Path]) -> tuple[Volume, ...]:
    """Each file system once, by the first folder that lies on it; one that cannot be read is left out."""
    found: dict[int, Volume] = {}
    for folder in folders:
        try:
            there = _existing(folder)
            device, usage = there.stat().st_dev, shutil.disk_usage(there)
        except OSError:
            continue
        volume = Volume(name=str(folder), used_bytes=usage.total - usage.free, total_bytes=usage.total)
        found.setdefault(device, volume)
    return tuple(found.values())


def _existing(folder: Path) -> Path:
    """The folder, or the nearest one above it: it may not have been made yet."""
    return next(path for path in (folder, *folder.parents) if path.exists())
