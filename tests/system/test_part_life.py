"""A supervised part over its lives, with tiny real processes."""

import asyncio
import contextlib
import os
import sys

import structlog
from helpers import eventually
from structlog.testing import capture_logs

from stoker_cli.up.part import Part, PartSpec
from stoker_cli.up.part_log import PartLog


def make_part(tmp_path, code, grace_s=5.0):
    pids = []
    spec = PartSpec(name="x", argv=(sys.executable, "-c", code), env=os.environ, stop_grace_s=grace_s)
    output = PartLog("x", tmp_path / "x.log", lambda _name, _fields: None)
    part = Part(
        spec=spec, output=output, log=structlog.get_logger(), on_pid=lambda _name, pid: pids.append(pid)
    )
    return part, pids


@contextlib.asynccontextmanager
async def running(part):
    """Its lives, for a block; none is left of one that fails."""
    lives = asyncio.create_task(part.run())
    try:
        yield
    finally:
        await part.stop()
        await lives


async def test_a_part_that_ends_is_started_again_and_its_last_words_are_logged(tmp_path):
    part, pids = make_part(tmp_path, "import sys; sys.exit('out of paper')")
    with capture_logs() as logs:
        async with running(part):
            await eventually(lambda: len(pids) >= 2, "a second life")
    died = next(entry for entry in logs if entry["event"] == "part.died")
    assert (died["status"], died["last_words"]) == ("status 1", "out of paper")
    assert part.restarts >= 1


async def test_stop_ends_a_part_and_it_stays_ended(tmp_path):
    part, pids = make_part(tmp_path, "import signal; print('up', flush=True); signal.pause()")
    async with running(part):
        await eventually(lambda: "up" in (tmp_path / "x.log").read_text(), "its first line")
        await part.stop()
    assert len(pids) == 1


async def test_a_part_that_ignores_sigterm_is_killed_after_its_grace(tmp_path):
    code = "import signal; signal.signal(15, signal.SIG_IGN); print('up', flush=True); signal.pause()"
    part, _ = make_part(tmp_path, code, grace_s=0.05)
    async with running(part):
        await eventually(lambda: "up" in (tmp_path / "x.log").read_text(), "its first line")


async def test_a_program_that_does_not_exist_is_tried_again(tmp_path):
    part, _ = make_part(tmp_path, "")
    part.spec = PartSpec(name="x", argv=("/nowhere/program",), env={}, stop_grace_s=1)
    with capture_logs() as logs:
        async with running(part):
            await eventually(lambda: part.restarts >= 1, "a second try")
    assert "part.failed" in [entry["event"] for entry in logs]
