"""Orphans of a part that adopts them, as the first process of a container does."""

import subprocess
import sys

from helpers import environment

PART = """
import asyncio, ctypes, os, subprocess
from stoker import log, reaper, service

log.configure("test")
ctypes.CDLL(None).prctl(36, 1)  # PR_SET_CHILD_SUBREAPER

def state(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return ""

async def until(pid, wanted):
    async with asyncio.timeout(30):
        while state(pid) != wanted:
            await asyncio.sleep(0.01)

async def main(stop):
    print("adopts", reaper.adopts())
    command = ("sh", "-c", "sleep 0 & echo $!")  # its parent ends before anybody waited for it
    orphan = int(subprocess.run(command, capture_output=True, check=True).stdout)
    own = await asyncio.create_subprocess_exec("sh", "-c", "exit 3")
    asked_late = subprocess.Popen(["sh", "-c", "exit 4"])
    await until(asked_late.pid, "Z")
    first = reaper.reap(frozenset())
    print("seen once", asked_late.pid in dict(first), asked_late.wait())
    await until(orphan, "")
    print("waited for", await own.wait())

service.reap_orphans = lambda: reaper.reap_orphans(0.05)
service.run(main)
"""


def test_an_orphan_is_reaped_and_no_status_of_ours_is_taken():
    part = subprocess.run(
        [sys.executable, "-c", PART],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert part.stdout.splitlines() == ["adopts True", "seen once True 4", "waited for 3"], part.stderr
