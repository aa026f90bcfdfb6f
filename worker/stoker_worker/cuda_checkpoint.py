"""Has the CUDA driver take a process off its GPUs, or put it back: `<python> -I -S <this file> ACTION PID PARENT LOCK_MS`.

A process of its own for each call: a driver that crashes or hangs in one takes no daemon with it. Standard library only.
What was done lasts beyond this process; it is the state of the other one. ACTION is

    probe    can the driver do it?
    park     lock, then copy its GPU memory into its own memory and give the devices back
    unpark   the way back, then unlock

The answer is one line of JSON: `{"ok": true}`, or `{"ok": false, "step": ..., "error": ...}`.
Source: CUDA driver API, 6.37 CUDA Checkpointing.
"""

import ctypes
import json
import os
import signal
import sys
from typing import Final

LIBRARY: Final = "libcuda.so.1"
PR_SET_PDEATHSIG: Final = 1
CALLS: Final = ("Lock", "Checkpoint", "Restore", "Unlock", "GetState")
STATES: Final = ("running", "locked", "checkpointed", "failed")
"""CUprocessState, from 0 on."""


class LockArgs(ctypes.Structure):
    """CUcheckpointLockArgs: 64 bytes, the reserved ones zero. `timeoutMs` 0 = no limit."""

    _fields_ = (
        ("timeoutMs", ctypes.c_uint),
        ("reserved0", ctypes.c_uint),
        ("reserved1", ctypes.c_uint64 * 7),
    )


class Failed(Exception):
    """A step that the driver did not do."""

    def __init__(self, step: str, error: str) -> None:
        super().__init__(f"{step}: {error}")
        self.step = step
        self.error = error


class Driver:
    """The driver's library, initialised."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(LIBRARY)
        except OSError as error:
            raise Failed("open", str(error)) from error
        missing = [name for name in map(_symbol, CALLS) if not hasattr(self._library, name)]
        if missing:
            raise Failed("open", f"the driver is older than release 570: it has no {missing[0]}")
        self._checked("init", self._library.cuInit(0))

    def state(self, pid: int) -> str:
        """What the driver says that a process is."""
        found = ctypes.c_int(-1)
        self.call("GetState", pid, ctypes.byref(found))
        return STATES[found.value] if 0 <= found.value < len(STATES) else f"state {found.value}"

    def call(self, name: str, pid: int, args: object = None) -> None:
        """One of `CALLS` on a process; without `args` it gets NULL."""
        self._checked(name.lower(), getattr(self._library, _symbol(name))(ctypes.c_int(pid), args))

    def _checked(self, step: str, result: int) -> None:
        if not result:
            return
        name = ctypes.c_char_p()
        self._library.cuGetErrorName(result, ctypes.byref(name))
        raise Failed(step, f"{(name.value or b'CUDA error').decode()} ({result})")


def park(driver: Driver, pid: int, lock_ms: int) -> None:
    """Take a process off its devices. What was locked and not saved is unlocked again."""
    state = driver.state(pid)
    if state != "running":
        raise Failed("getstate", f"the process is {state}")
    driver.call("Lock", pid, ctypes.byref(LockArgs(timeoutMs=lock_ms)))
    try:
        driver.call("Checkpoint", pid)
    except Failed:
        driver.call("Unlock", pid)
        raise


def unpark(driver: Driver, pid: int) -> None:
    """Put a process back on its devices."""
    driver.call("Restore", pid)
    driver.call("Unlock", pid)


def main(action: str, pid: int, parent: int, lock_ms: int) -> int:
    """Do one action and say how it went."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 1
    answer: dict[str, object] = {"ok": True}
    try:
        driver = Driver()
        if action == "park":
            park(driver, pid, lock_ms)
        elif action == "unpark":
            unpark(driver, pid)
    except Failed as failed:
        answer = {"ok": False, "step": failed.step, "error": failed.error}
    sys.stdout.write(json.dumps(answer) + "\n")
    return 0


def _symbol(name: str) -> str:
    return f"cuCheckpointProcess{name}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], *map(int, sys.argv[2:])))
