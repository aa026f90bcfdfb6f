"""Starts a program that ends with the daemon.

    <python> -I -S <this folder> <socket fd> <pid of the daemon> <folders as JSON, or ""> <argv ...>

For programs that cannot ask the kernel themselves (Node, installers): the process becomes `argv`, gets SIGKILL
when the daemon dies, and a guard beside it ends the rest of its group. With folders it also gets a /tmp of its own,
as the runner does, one more argument that says what became of it, and the socket as descriptor 3: Node keeps its
children from the first descriptors. Standard library only.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # linux/prctl.h
SOCKET = 3
RUNNER = f"{__file__.rsplit('/', 2)[0]}/runner"

sys.path.append(RUNNER)

import guard  # noqa: E402


def isolate(text: str) -> "tuple[str, bool]":
    """A /tmp of its own where it is wanted and possible; what became of it, for the program, and whether it has one."""
    import json  # noqa: PLC0415 - an installer's start should cost little

    told = _isolate(json.loads(text))
    return json.dumps(told), bool(told["namespace"])


def _isolate(folders: dict) -> dict:
    import own_tmp  # noqa: PLC0415

    told = {"places": {}, "kept": [], "namespace": "", "shared_because": "it is switched off"}
    if not folders["own_tmp"]:
        return told
    try:
        isolation = own_tmp.isolate(folders["work"], [*folders["keep"], sys.prefix, sys.base_prefix, RUNNER])
    except own_tmp.Refused as refused:
        return told | {"shared_because": str(refused)}
    except OSError as error:
        sys.exit(f"A /tmp of its own could not be made for the app: {error}")
    os.environ["TMPDIR"] = next(iter(isolation.places))
    return {
        "places": isolation.places,
        "kept": isolation.kept,
        "namespace": os.readlink("/proc/self/ns/mnt"),
        "shared_because": "",
    }


def main() -> None:
    """Become the program."""
    fd, parent, folders, argv = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:]
    alone = False
    if folders:
        told, alone = isolate(folders)
        argv.append(told)
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)  # it died before we asked
    guard.start(fd, alone=alone)
    if folders and fd != SOCKET:
        os.dup2(fd, SOCKET)
        os.close(fd)
    try:
        os.execvp(argv[0], argv)  # noqa: S606 - no shell: the arguments are a list
    except OSError as error:
        os.write(2, f"error: '{argv[0]}' cannot be started: {error.strerror}\n".encode())
        os._exit(127)


main()
