"""How a part's process takes its signals and ends with its parent."""

import os
import signal
import subprocess
import sys

import pytest
from helpers import environment, wait_gone

PART = """
import asyncio
from stoker import log, service
log.configure("test")
async def main(stop):
    print("up", flush=True)
    {first}
    await stop.wait()
    print("stopping", flush=True)
    {then}
    print("done", flush=True)
service.run(main)
print("ended", flush=True)
"""
PARENT = """
import os, subprocess, sys
env = os.environ | {"STOKER_PARENT_PID": str(os.getpid())}
part = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=env, stdout=sys.stdout)
print(part.pid, flush=True)
part.wait()
"""


def start(code, **env):
    return subprocess.Popen(
        [sys.executable, "-c", code],
        env=environment(**{"STOKER_PARENT_PID": str(os.getpid())} | env),  # none is left of a failure
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_first_signal_asks_the_part_to_stop(number):
    part = start(PART.format(first="", then="pass"))
    assert part.stdout.readline() == "up\n"
    part.send_signal(number)
    assert part.communicate(timeout=30)[0].split() == ["stopping", "done", "ended"]
    assert part.returncode == 0


def test_a_second_signal_ends_it_now():
    part = start(PART.format(first="", then="await asyncio.Event().wait()"))
    assert part.stdout.readline() == "up\n"
    part.send_signal(signal.SIGTERM)
    assert part.stdout.readline() == "stopping\n"
    part.send_signal(signal.SIGTERM)
    assert part.communicate(timeout=30)[0].split() == ["ended"]


def test_an_error_of_the_part_is_not_hidden():
    part = start(PART.format(first="", then="raise ValueError('no such thing')"))
    assert part.stdout.readline() == "up\n"
    part.send_signal(signal.SIGTERM)
    assert "no such thing" in part.communicate(timeout=30)[1]
    assert part.returncode == 1


def test_a_part_whose_parent_is_gone_already_does_not_start():
    part = start(PART.format(first="", then="pass"), STOKER_PARENT_PID="1999999")
    out, err = part.communicate(timeout=30)
    assert out == ""
    assert "ParentGone" in err


@pytest.mark.parametrize("first", ["", "import time; time.sleep(600)"])
def test_a_part_ends_when_its_parent_is_killed_even_when_its_loop_hangs(first):
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, PART.format(first=first, then="")],
        env=environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        said = {parent.stdout.readline() for _ in range(2)}  # both write there: in either order
        [pid] = map(int, said - {"up\n"})
    finally:
        parent.kill()
        parent.wait(30)
    wait_gone({pid})
