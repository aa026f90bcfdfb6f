"""Gives this process a /tmp and a /var/tmp of its own, which nobody else sees: a mount namespace.

Many apps write to fixed names below /tmp; two of their processes must not meet there. What the process needs and
which itself lies below /tmp (the app, its environment, the work folder ...) is mounted again at its place.
Call it before any thread is started and before anything of the app is imported.

As a program (`own_tmp.py <an empty folder>`) it tries all this and says on stdout why it cannot be done here.
"""

import ctypes
import os
import struct
import sys
from pathlib import Path

CLONE_NEWNS = 0x00020000  # linux/sched.h
CLONE_NEWUSER = 0x10000000
MS_BIND = 0x1000  # linux/mount.h
MS_REC = 0x4000
MS_SLAVE = 0x80000
CAPABILITY_VERSION_3 = 0x20080522  # linux/capability.h
SHARED = ("/tmp", "/var/tmp")  # noqa: S108 - the folders that are replaced
MODE = 0o1777


class Refused(Exception):
    """The kernel does not allow it. Nothing has changed."""


class Isolation:
    """What was replaced by what. `places`: folder -> what stands there, as the rest of the machine names it."""

    def __init__(self, places: "dict[str, str]", kept: "list[str]") -> None:
        self.places = places
        self.kept = kept

    def outside(self, path: str) -> str:
        """A path of this process as the rest of the machine names it."""
        real = os.path.realpath(path)
        if any(real == kept or _below(real, kept) for kept in self.kept):
            return real
        for place, own in self.places.items():
            if _below(real, place):
                return own + real[len(place) :]
        return path


def isolate(folder: str, keep: "list[str]") -> Isolation:
    """Put `folder`/tmp and `folder`/var-tmp in the place of /tmp and /var/tmp, for this process alone.

    Args:
        folder: the instance's own.
        keep: paths that must stay what they are, also below /tmp.

    Raises:
        Refused: not allowed here; nothing was changed.
        OSError: it failed half-way: this process must end.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    _unshare(libc)
    _mount(libc, "none", "/", MS_REC | MS_SLAVE)
    places = _places(folder)
    held = _hold(keep, list(places))
    work = os.getcwd()
    sources = {place: os.open(source, os.O_PATH) for place, source in places.items()}
    for place, source in sources.items():
        _mount(libc, f"/proc/self/fd/{source}", place, MS_BIND | MS_REC)
        os.close(source)
    for path, (descriptor, target) in held.items():
        _restore(libc, path, descriptor, target)
    os.chdir(work)  # else it lies below the folder that was replaced
    if os.geteuid() != 0:
        _drop_capabilities(libc)
    return Isolation(places, list(held))


def _places(folder: str) -> "dict[str, str]":
    """What there is of `SHARED` -> the folder for each, made here."""
    found = {}
    for shared in SHARED:
        place = os.path.realpath(shared)
        if place in found or not os.path.isdir(place):
            continue
        own = os.path.join(os.path.realpath(folder), shared.strip("/").replace("/", "-"))
        os.makedirs(own, exist_ok=True)
        os.chmod(own, MODE)
        found[place] = own
    return found


def _unshare(libc: ctypes.CDLL) -> None:
    """A mount namespace: as root plainly, else inside a user namespace where every id means itself."""
    uid, gid = os.geteuid(), os.getegid()
    flags = CLONE_NEWNS if uid == 0 else CLONE_NEWNS | CLONE_NEWUSER
    if libc.unshare(flags) != 0:
        raise Refused(f"unshare: {os.strerror(ctypes.get_errno())}")
    if uid != 0:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{uid} {uid} 1")
        Path("/proc/self/gid_map").write_text(f"{gid} {gid} 1")


def _mount(libc: ctypes.CDLL, source: str, target: str, flags: int) -> None:
    if libc.mount(os.fsencode(source), os.fsencode(target), None, ctypes.c_ulong(flags), None) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount on {target}: {os.strerror(number)}")


def _hold(keep: "list[str]", places: "list[str]") -> "dict[str, tuple[int, str]]":
    """What lies below a place -> (a descriptor, ""), or (-1, where a link there leads); outer paths first."""
    held: dict[str, tuple[int, str]] = {}
    wanted = sorted({real for path in keep for real in _names(path, places)})
    for path in wanted:
        if any(_below(path, other) for other, (descriptor, _) in held.items() if descriptor >= 0):
            continue
        if os.path.islink(path):
            held[path] = (-1, os.readlink(path))
        elif os.path.exists(path) and path not in places:
            held[path] = (os.open(path, os.O_PATH), "")
    return held


def _names(path: str, places: "list[str]") -> "list[str]":
    """The names that a path needs below the places: itself resolved, and links on its way."""
    names = []
    real = os.path.realpath(path)
    if any(_below(real, place) for place in places):
        names.append(real)
    here = os.path.abspath(path)
    while here not in ("/", ""):
        parent = os.path.realpath(os.path.dirname(here))
        entry = os.path.join(parent, os.path.basename(here))
        if os.path.islink(entry) and any(_below(entry, place) for place in places):
            names.append(entry)
        here = os.path.dirname(here)
    return names


def _below(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def _restore(libc: ctypes.CDLL, path: str, descriptor: int, target: str) -> None:
    """Put a held thing at its place in the new folder."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    if descriptor < 0:
        os.symlink(target, path)
        return
    source = f"/proc/self/fd/{descriptor}"
    if os.path.isdir(source):
        os.makedirs(path, exist_ok=True)
    else:
        Path(path).touch()
    _mount(libc, source, path, MS_BIND | MS_REC)
    os.close(descriptor)


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """The rights that came with the user namespace were for the mounts alone."""
    libc.capset(struct.pack("=Ii", CAPABILITY_VERSION_3, 0), bytes(24))


def main() -> None:
    """Try it; print the reason if it does not work."""
    os.chdir("/")  # the daemon's folder may lie below /tmp, and is not kept here
    try:
        isolation = isolate(sys.argv[1], [sys.prefix, sys.base_prefix])
        probe = Path(next(iter(isolation.places)), "probe")
        probe.touch(exist_ok=False)
    except (Refused, OSError) as error:
        print(error)  # noqa: T201 - its result


if __name__ == "__main__":
    main()
