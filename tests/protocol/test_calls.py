"""Calls of addresses: asked for once, made by one."""

from helpers import eventually
from protocol.faulty import lose_replies

from stoker.protocol.calls import AddressCall, CallKind

CALL = AddressCall(kind=CallKind.TOOL, chat_id="c", part_id="c-1-0")
HOOK = AddressCall(kind=CallKind.HOOK, chat_id="c", part_id="c-1-0-tool_call-0")


async def test_calls_have_their_turn_in_the_order_in_which_they_were_asked_for(store):
    assert await store.calls.ask(CALL)
    assert await store.calls.ask(HOOK)
    assert [await store.calls.next(1), await store.calls.next(1)] == [CALL, HOOK]
    assert await store.calls.next(0.01) is None


async def test_what_waits_or_goes_on_is_not_asked_for_again(store):
    assert await store.calls.ask(CALL)
    assert not await store.calls.ask(CALL)
    assert await store.calls.next(1) == CALL
    assert not await store.calls.ask(CALL), "it was taken and will begin"
    assert await store.calls.take(CALL, 60)
    assert not await store.calls.ask(CALL)
    await store.calls.release(CALL)
    assert await store.calls.ask(CALL)
    assert await store.calls.next(1) == CALL


async def test_one_makes_a_call_though_two_took_it(store):
    assert await store.calls.take(CALL, 60)
    assert not await store.calls.take(CALL, 60)
    await store.calls.hold(CALL, 0.02)
    assert await eventually(lambda: store.calls.take(CALL, 60), "the end of the lease of one that died")


async def test_who_takes_a_call_and_loses_the_reply_makes_it(store, monkeypatch):
    assert await store.calls.ask(CALL)
    lose_replies(store, monkeypatch)
    assert await store.calls.take(CALL, 60)
    assert not await store.calls.take(CALL, 60)


async def test_a_call_whose_process_died_is_asked_for_anew(store):
    await store.calls.ask(CALL)
    await store.calls.next(1)
    await store.calls.take(CALL, 0.02)
    assert await eventually(lambda: store.calls.ask(CALL), "the end of the lease")


async def test_what_cannot_be_read_is_left_out(store):
    for text in ("", "tool c", "dance c c-1", "tool c: c-1", b"\xff tool c"):
        await store._connection.command("RPUSH", store._keys.calls, text)
    await store.calls.ask(CALL)
    found = [await store.calls.next(1) for _ in range(6)]
    assert [call for call in found if call is not None] == [CALL]
