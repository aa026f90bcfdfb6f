"""Documents with compare-and-set, and who is told of an ending."""

import pytest
from batches import Batches
from helpers import eventually
from protocol.faulty import lose_replies
from protocol_scene import OWNER, request, spec

from stoker.core.errors import DocumentChanged, NotFound, StoreUnavailable
from stoker.core.messages import Waiter
from stoker.protocol import outbox
from stoker.protocol.documents import Change
from stoker.protocol.outbox import Ending, Nudge

KIND = "flowrun"


async def put(store, body, revision=0, document="r1", **changes):
    return await store.documents.put(KIND, document, "u1", revision, Change(body=body, **changes))


async def test_a_document_is_what_the_last_writer_left(store):
    assert await put(store, b'{"n":1}', parts={"a": "1", "b": "2"}) == 1
    assert await put(store, b'{"n":2}', 1, parts={"a": "", "c": "3"}) == 2
    found = await store.documents.get(KIND, "r1")
    assert (found.body, found.revision, found.owner_id) == (b'{"n":2}', 2, "u1")
    assert await store.documents.parts(KIND, "r1") == {"b": "2", "c": "3"}


async def test_a_document_and_its_parts_are_read_in_one_round_trip_the_head_first(store, monkeypatch):
    await put(store, b'{"n":1}', parts={"a": "1", "b": "2"})
    batches = Batches(store, monkeypatch)
    document, parts = await store.documents.whole(KIND, "r1")
    assert (document.body, parts) == (b'{"n":1}', {"a": "1", "b": "2"})
    keys = store._keys.document(KIND, "r1"), store._keys.document_parts(KIND, "r1")
    assert batches == [[("HGETALL", key) for key in keys]]
    for read in (store.documents.whole, store.documents.owner):
        with pytest.raises(NotFound):
            await read(KIND, "none")


async def test_whose_a_document_is_needs_none_of_it(store, monkeypatch):
    await put(store, b'{"n":1}', parts={"a": "1"})
    batches = Batches(store, monkeypatch)
    assert await store.documents.owner(KIND, "r1") == "u1"
    assert batches.names == [["HGET"]]


async def test_of_two_writers_one_wins(store):
    await put(store, b"1")
    await put(store, b"2", 1)
    for revision in (0, 1, 3):
        with pytest.raises(DocumentChanged):
            await put(store, b"3", revision, parts={"a": "lost"})
    assert (await store.documents.get(KIND, "r1")).body == b"2"
    assert await store.documents.parts(KIND, "r1") == {}


async def test_a_script_that_is_repeated_after_a_lost_reply_writes_once(store, monkeypatch):
    original, calls = store._connection.script, []

    async def twice(*call):
        calls.append(call)
        await original(*call)
        return await original(*call)

    monkeypatch.setattr(store._connection, "script", twice)
    assert await put(store, b"1") == 1
    assert await put(store, b"2", 1) == 2


async def test_a_list_shows_the_newest_first_and_no_deleted_one(store):
    for name in ("r1", "r2", "r3"):
        await put(store, b"{}", document=name)
    await store.documents.delete(KIND, "r2", "u1")
    assert sorted((await store.documents.page(KIND, "u1"))[0]) == ["r1", "r3"]
    assert await store.documents.count(KIND, "u1") == 2
    with pytest.raises(NotFound):
        await store.documents.get(KIND, "r2")


@pytest.mark.parametrize("limit", [1, 2, 3, 10])
async def test_pages_leave_out_nothing_of_one_moment_and_repeat_nothing(store, limit):
    index = store._keys.owner_documents("u1", KIND)
    moments = {"a": 1, "b": 2, "c": 2, "d": 2, "e": 2, "f": 3, "g": 3}
    for name, moment in moments.items():
        await store._connection.command("ZADD", index, moment, name)
    ids, cursor = await store.documents.page(KIND, "u1", limit=limit)
    while cursor:
        more, cursor = await store.documents.page(KIND, "u1", cursor, limit)
        assert len(more) <= limit
        ids += more
    assert ids == ["g", "f", "e", "d", "c", "b", "a"]


async def test_an_expired_document_leaves_the_index_and_one_that_goes_on_does_not_expire(store):
    await put(store, b"{}", keep_s=0.001, parts={"a": "1"})
    await put(store, b"{}", document="r2", keep_s=60)
    await put(store, b"{}", 1, document="r2")

    async def expired():
        return not await store._connection.command("EXISTS", store._keys.document(KIND, "r1"))

    await eventually(expired, "the first one to expire")
    assert await store.documents.sweep(KIND, "u1") == 1
    assert (await store.documents.page(KIND, "u1"))[0] == ["r2"]
    assert await store._connection.command("PTTL", store._keys.document(KIND, "r2")) == -1


async def times(store):
    """When each document is due."""
    return await store._connection.command("ZRANGE", store._keys.due_documents, 0, -1, "WITHSCORES")


async def test_a_document_whose_time_has_come_is_taken_once_and_comes_again_later(store):
    await put(store, b"{}", due_s=0)
    await put(store, b"{}", document="r2", due_s=1000)
    await put(store, b"{}", document="r3")
    [due] = await store.documents.take_due()
    assert (due.kind, due.id) == (KIND, "r1")
    assert due.at_ms > 0
    assert await store.documents.take_due() == []
    when = await times(store)
    assert {due.id for due in await store.documents.take_due(everything=True)} == {"r1", "r2"}
    assert await times(store) == when  # who looks early puts nothing off
    await put(store, b"{}", 1)
    assert {due.id for due in await store.documents.take_due(everything=True)} == {"r2"}


async def test_who_takes_what_is_due_and_loses_the_reply_hears_of_it(store, monkeypatch):
    await put(store, b"{}", due_s=0)
    await store.documents.take_due(everything=True)  # the server knows the script from here on
    await store.documents.look_by(KIND, "r1", 1)
    with monkeypatch.context() as patched:
        lose_replies(store, patched)
        with pytest.raises(StoreUnavailable):
            await store.documents.take_due()
    assert await store.documents.take_due() == []
    assert [due.id for due in await store.documents.take_due(everything=True)] == ["r1"]


async def test_a_document_that_goes_on_is_in_the_outbox(store):
    await store.outbox.open()
    await put(store, b"{}", wake=True)
    await put(store, b"{}", 1)
    [nudge] = await store.outbox.read("me", 10)
    assert isinstance(nudge, Nudge)
    assert (nudge.kind, nudge.id) == (KIND, "r1")
    await store.outbox.done([nudge])
    assert await store.outbox.read("me", 10) == []


async def test_what_a_reader_took_and_has_not_acknowledged_is_told_to_it_again(store):
    await store.outbox.open()
    await put(store, b"{}", wake=True)
    assert await store.outbox.left("me") == []
    taken = await store.outbox.read("me", 10)
    assert await store.outbox.left("another") == []
    assert await store.outbox.left("me") == taken
    await store.outbox.done(taken)
    assert await store.outbox.left("me") == []


async def test_what_was_handed_on_leaves_in_one_round_trip(store, monkeypatch):
    await store.outbox.open()
    for number in range(3):
        await put(store, b"{}", document=f"r{number}", wake=True)
    found = await store.outbox.read("me", 10)
    batches = Batches(store, monkeypatch)
    await store.outbox.done(found)
    assert batches.names == [["XACK", "XDEL"]]
    group = await store._connection.command("XPENDING", store._keys.outbox, outbox.GROUP)
    assert (group[0], await store._connection.command("XLEN", store._keys.outbox)) == (0, 0)


async def test_what_a_dead_reader_took_is_looked_for_now_and_then_and_until_none_is_left(store, monkeypatch):
    monkeypatch.setattr(outbox, "CLAIM_AFTER_MS", 0)
    monkeypatch.setattr(outbox, "BATCH", 1)
    await store.outbox.open()
    for number in range(2):
        await put(store, b"{}", document=f"r{number}", wake=True)
        assert await store.outbox.read("dead", 10) != []
    batches, living = Batches(store, monkeypatch), outbox.Outbox(store._connection, store._keys)
    for number in range(2):
        [found] = await living.read("me", 10)
        assert found.id == f"r{number}"
        await living.done([found])
    for _ in range(3):
        assert await living.read("me", 10) == []
    claims = [names for names in batches.names if "XAUTOCLAIM" in names]
    assert len(claims) == 3


async def test_an_ending_names_all_who_wait_for_it(store):
    await store.outbox.open()
    waiter = Waiter(kind=KIND, id="r1", part="resize")
    await store.tasks.submit(request("t1", waiter=waiter, webhook="http://x/"), spec("t1"), OWNER)
    await store.tasks.submit(request("t2", waiter=waiter), spec("t2"), OWNER)
    await store.tasks.submit(request("t3"), spec("t3"), OWNER)
    for task in ("t1", "t2", "t3"):
        await store.tasks.cancel(task)
    first, second = await store.outbox.read("me", 10)
    assert isinstance(first, Ending)
    assert (first.task_id, first.notify, first.waiter) == ("t1", "http://x/", waiter)
    assert (second.task_id, second.notify, second.waiter) == ("t2", "", waiter)
