"""Tasks that no worker runs: a document carries them."""

import msgspec
import pytest
from protocol_scene import OWNER, once, request, spec

from stoker.core.errors import Conflict, NotFound, ProtocolRefusal
from stoker.core.messages import FlowRef, Waiter
from stoker.core.states import TaskState as S
from stoker.protocol.documents import Change
from stoker.protocol.outbox import Nudge

FLOW = FlowRef(flow_id="f", version_id="v")
WAITER = Waiter(kind="chat", id="c1")


async def begin(store, task_id="t1", **options):
    return await store.carried.begin(
        request(task_id, flow=FLOW, waiter=WAITER), spec(task_id), OWNER, "flowrun", **options
    )


async def state(store, task_id="t1"):
    return (await store.tasks.read(task_id)).state


async def outbox(store):
    notices = await store.outbox.read("me", 10)
    if notices:
        await store.outbox.done(notices)
    return notices


async def test_it_is_accepted_once_queued_for_nobody_and_its_document_is_looked_at(store):
    await store.outbox.open()
    assert await begin(store, repeat=once(b"1")) == "t1"
    assert await begin(store, "t2", repeat=once(b"1")) == "t1"
    with pytest.raises(Conflict):
        await begin(store, "t3", repeat=once(b"2"))
    [nudge] = await outbox(store)
    assert isinstance(nudge, Nudge)
    assert (nudge.kind, nudge.id) == ("flowrun", "t1")
    assert [due.id for due in await store.documents.take_due(everything=True)] == ["t1"]
    assert await store.scheduling.pending() == []
    assert [task_id for _, task_id in (await store.tasks.after("u1", None, 20))[0]] == ["t1"]
    assert "background work" in (await store.tasks.read("t1")).queue_reason


async def test_it_runs_and_ends_once_and_tells_who_waits(store):
    await store.outbox.open()
    await begin(store)
    for _ in range(2):
        assert await store.carried.carry("t1", S.RUNNING) is S.RUNNING
    output = msgspec.Raw(b'{"a":1}')
    assert await store.carried.carry("t1", S.COMPLETED, output=output) is S.COMPLETED
    assert await store.carried.carry("t1", S.FAILED, error="late") is S.COMPLETED
    view = await store.tasks.read("t1")
    assert (view.state, bytes(view.output), view.error) == (S.COMPLETED, b'{"a":1}', "")
    assert [entered for _, entered, _ in view.history] == [1, 2, 3, 7, 9]
    assert [notice.waiter for notice in await outbox(store) if not isinstance(notice, Nudge)] == [WAITER]


async def test_it_may_end_before_it_ran(store):
    for task_id, end in (("t1", S.COMPLETED), ("t2", S.FAILED), ("t3", S.CANCELLED)):
        await begin(store, task_id)
        assert await store.carried.carry(task_id, end) is end
        assert await state(store, task_id) is end


async def test_a_cancel_is_noted_for_its_document(store):
    await store.outbox.open()
    await begin(store)
    await outbox(store)
    assert await store.tasks.cancel("t1") is S.QUEUED
    assert (await store.tasks.read("t1")).cancel_requested
    [nudge] = await outbox(store)
    assert (nudge.kind, nudge.id) == ("flowrun", "t1")
    await store.carried.carry("t1", S.CANCELLED)
    assert await store.tasks.cancel("t1") is S.CANCELLED


async def test_a_task_of_a_worker_cannot_be_carried(store):
    await store.tasks.submit(request("t1"), spec("t1"), OWNER)
    with pytest.raises(ProtocolRefusal):
        await store.carried.carry("t1", S.COMPLETED)
    with pytest.raises(NotFound):
        await store.carried.carry("t2", S.COMPLETED)


async def test_a_document_that_is_over_is_not_due_any_more(store):
    await store.documents.put("flowrun", "r1", "u1", 0, Change(body=b"{}", due_s=0))
    await store.documents.rest("flowrun", "r1")
    assert await store.documents.take_due(everything=True) == []
