"""Pages and streams of a log, from chunks in a file store and a live tail."""

import gzip

import pytest

from stoker.core.errors import InvalidRequest, NotFound
from stoker.core.logs import CHUNK_LIMIT_BYTES, BadChunk, Chunk, encode_gap, encode_lines, tail_gap_text
from stoker.core.messages import LogLine, LogType
from stoker.files.logs import log_key
from stoker.protocol.task_logs import LogState
from stoker_gateway.log_reader import LogReader, Position, Wanted, unpack
from stoker_gateway.routes.logs import parse_cursor, wanted_types

RUN = LogType.RUN


def line(number, attempt=1, kind=RUN, text=""):
    return LogLine(number=number, at_ms=5, type=kind, text=text or f"{attempt}:{number}", attempt=attempt)


class Files:
    """Chunks by key."""

    def __init__(self):
        self.data = {}

    async def get(self, key, start=0, length=None):
        if key not in self.data:
            raise NotFound
        yield self.data[key]


class Scene:
    def __init__(self):
        self.files = Files()
        self.chunks = {}
        self.tail = ()
        self.attempt = self.last = 0

    def keep(self, first, last, attempt=1, kind=RUN, gap=0):
        data = encode_lines(first, kind, "\n".join(f"{attempt}:{n}" for n in range(first, last + 1)), 5)
        if gap:
            data += encode_gap(last + 1, gap, gap * 10, 5)
        self.files.data[log_key("task", attempt, first)] = gzip.compress(data)
        chunk = Chunk(first=first, last=last + gap, dropped=gap)
        self.chunks[attempt] = (*self.chunks.get(attempt, ()), chunk)

    def state(self):
        return LogState(chunks=self.chunks, tail=self.tail, attempt=self.attempt, last=self.last)

    def reader(self, position=None, **wanted):
        reader = LogReader(None, self.files, "task", Wanted(**wanted))
        reader.start_at(position or Position())
        return reader

    async def read(self, reader=None, *, patient=False, **options):
        reader = reader or self.reader(**options)
        return [one async for batch in reader.lines(self.state(), patient=patient) for one in batch]


@pytest.fixture
def scene():
    return Scene()


def texts(lines):
    return [one.text for one in lines]


async def test_attempts_come_one_after_the_other(scene):
    scene.keep(1, 2)
    scene.keep(1, 1, attempt=2)
    scene.tail = (line(2, attempt=2), line(1, attempt=3))
    assert texts(await scene.read()) == ["1:1", "1:2", "2:1", "2:2", "3:1"]
    assert texts(await scene.read(attempt=2)) == ["2:1", "2:2"]


async def test_a_position_leads_on_wherever_it_is(scene):
    scene.keep(1, 3)
    scene.tail = (line(3), line(4), line(1, attempt=2))
    whole = await scene.read()
    for index, one in enumerate(whole):
        rest = await scene.read(position=Position(one.attempt, one.number))
        assert rest == whole[index + 1 :]
    assert await scene.read(position=Position(9, 9)) == []


async def test_types_are_chosen_and_marks_of_gaps_stay(scene):
    scene.keep(1, 1, kind=LogType.BUILD)
    scene.keep(2, 3, gap=4)
    found = texts(await scene.read(types=frozenset({LogType.BUILD})))
    assert found[0] == "1:1"
    assert found[1].startswith("... 4 lines (40 bytes) were dropped")
    assert len(found) == 2


async def test_a_patient_reader_waits_for_what_is_missing(scene):
    scene.keep(1, 2)
    scene.tail = (line(2), line(3), line(7, text=tail_gap_text(4)), line(8))
    reader = scene.reader()
    assert texts(await scene.read(reader, patient=True)) == ["1:1", "1:2", "1:3"]
    assert not reader.complete(scene.state())
    scene.keep(3, 7)
    assert texts(await scene.read(reader, patient=True)) == ["1:4", "1:5", "1:6", "1:7", "1:8"]
    assert reader.complete(scene.state())


async def test_an_impatient_reader_counts_what_is_missing(scene):
    scene.tail = (line(2), line(5))
    scene.attempt, scene.last = 1, 9
    found = await scene.read()
    assert [one.number for one in found] == [1, 2, 4, 5, 9]
    assert [text[:13] for text in texts(found)] == [
        "... 1 lines a",
        "1:2",
        "... 2 lines a",
        "1:5",
        "... 4 lines a",
    ]


async def test_a_chunk_that_is_gone_or_damaged_counts_as_missing(scene):
    scene.keep(1, 2)
    scene.keep(3, 4)
    scene.keep(5, 6)
    del scene.files.data[log_key("task", 1, 1)]
    scene.files.data[log_key("task", 1, 3)] = b"noise"
    found = await scene.read()
    assert [one.number for one in found] == [4, 5, 6]
    assert found[0].text.startswith("... 4 lines are missing")


async def test_a_log_that_only_the_task_knows_of_is_told(scene):
    scene.attempt, scene.last = 2, 5
    reader = scene.reader()
    assert not reader.complete(scene.state())
    [only] = await scene.read(reader)
    assert (only.attempt, only.number) == (2, 5)
    assert reader.complete(scene.state())


@pytest.mark.parametrize("wanted", [{}, {"attempt": 4}])
async def test_no_log_is_complete(scene, wanted):
    if wanted:
        scene.keep(1, 1)
    reader = scene.reader(**wanted)
    assert await scene.read(reader) == []
    assert reader.complete(scene.state())


@pytest.mark.parametrize(
    "packed",
    [b"", b"no gzip", gzip.compress(b"x" * 1000)[:-9], gzip.compress(b"\0" * (CHUNK_LIMIT_BYTES + 1))],
    ids=["empty", "text", "cut", "too large"],
)
def test_only_whole_chunks_of_bounded_size_are_unpacked(packed):
    with pytest.raises(BadChunk):
        unpack(packed)


def test_a_chunk_of_the_largest_size_is_unpacked():
    assert unpack(gzip.compress(b"\0" * CHUNK_LIMIT_BYTES)) == b"\0" * CHUNK_LIMIT_BYTES


@pytest.mark.parametrize("cursor", ["x", "1", "1-", "-1", "1-2-3", "1-x"])
def test_a_cursor_of_somebody_else_is_refused(cursor):
    with pytest.raises(InvalidRequest, match="next_cursor"):
        parse_cursor(cursor)


def test_types_are_named_or_numbered():
    assert wanted_types("run, 3") == {LogType.RUN, LogType.SETUP}
    assert wanted_types("") == frozenset()
