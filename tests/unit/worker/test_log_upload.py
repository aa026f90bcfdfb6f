"""Segments on their way to the gateway: retried while it is away, dropped when it does not want them."""

import asyncio
import errno

import pytest
from helpers import eventually
from recorders import LogTaker, log_spool, order

from stoker.core.logs import blocks
from stoker.core.messages import LogType
from stoker_worker.attempt_log import Segment
from stoker_worker.files import GatewayRefused
from stoker_worker.log_upload import PARALLEL, LogUploader

RUN = LogType.RUN


class Scene:
    def __init__(self, folder):
        self.spool = log_spool(folder)
        self.taker = LogTaker()
        self.uploader = LogUploader(self.spool, self.taker)

    def write(self, task_id, *texts):
        log = self.spool.open(order(task_id))
        for text in texts:
            log.add(RUN, text, 1)
        log.seal()

    def stored(self):
        return {
            (task_id, attempt, token, first): [block.data for block in blocks(data)]
            for task_id, attempt, token, first, data in self.taker.chunks
        }


@pytest.fixture
async def scene(tmp_path):
    scene = Scene(tmp_path)
    running = asyncio.ensure_future(scene.uploader.run())
    yield scene
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_segment_arrives_with_its_owner_and_leaves_the_disk(scene, tmp_path):
    scene.write("t1", "a\nb", "c")
    await eventually(lambda: not scene.spool.bytes, "the upload")
    assert scene.stored() == {("t1", 1, "secret1", 1): [b"a\nb\n", b"c\n"]}
    assert list((tmp_path / "logs").iterdir()) == []


@pytest.mark.parametrize(
    "failure",
    [GatewayRefused("away"), GatewayRefused("busy", 503), GatewayRefused("slow", 429), ValueError("ours")],
)
async def test_a_gateway_that_is_away_is_asked_again_until_it_has_all(scene, failure):
    scene.taker.fails = failure
    for number in range(PARALLEL + 2):
        scene.write(f"t{number}", "a")
    await eventually(lambda: scene.taker.refused > 2 * PARALLEL, "some tries")
    assert scene.taker.chunks == []
    scene.taker.fails = None
    await eventually(lambda: not scene.spool.bytes, "the upload")
    assert len(scene.stored()) == PARALLEL + 2


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413])
async def test_a_log_that_nobody_wants_is_dropped(scene, status):
    scene.taker.fails = GatewayRefused("no", status, "no such task")
    scene.write("t1", "a")
    await eventually(lambda: not scene.spool.bytes, "the upload")
    scene.taker.fails = None
    scene.write("t2", "b")
    await eventually(lambda: scene.taker.chunks, "a chunk")
    assert [task_id for task_id, *_ in scene.taker.chunks] == ["t2"]


async def test_a_file_that_is_gone_holds_nothing_up(scene, tmp_path):
    scene.taker.fails = GatewayRefused("away")
    scene.write("t1", "a")
    scene.write("t2", "b")
    (tmp_path / "logs" / "t1.1.1.log").unlink()
    scene.taker.fails = None
    await eventually(lambda: scene.taker.chunks, "a chunk")
    assert [task_id for task_id, *_ in scene.taker.chunks] == ["t2"]


async def test_a_file_that_cannot_be_read_now_is_kept_and_read_again(scene, monkeypatch):
    failures, read = (
        [OSError(errno.EMFILE, "Too many open files"), OSError(errno.EIO, "I/O error")],
        Segment.read,
    )

    def hindered(segment):
        if failures:
            raise failures.pop()
        return read(segment)

    monkeypatch.setattr(Segment, "read", hindered)
    scene.write("t1", "a")
    await eventually(lambda: not scene.spool.bytes, "the upload")
    assert scene.stored() == {("t1", 1, "secret1", 1): [b"a\n"]}


async def test_the_end_of_the_daemon_brings_what_is_open(tmp_path):
    scene = Scene(tmp_path)
    scene.spool.open(order("t1")).add(RUN, "open", 1)
    await scene.uploader.flush(5)
    assert [task_id for task_id, *_ in scene.taker.chunks] == ["t1"]


async def test_the_end_of_the_daemon_leaves_what_cannot_be_brought(tmp_path):
    scene = Scene(tmp_path)
    scene.taker.fails = GatewayRefused("away")
    scene.spool.open(order("t1")).add(RUN, "open", 1)
    await scene.uploader.flush(5)
    assert log_spool(tmp_path).recover() == 1
