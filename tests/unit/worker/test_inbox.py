"""The inbox loop."""

import asyncio

import pytest
from recorders import order, until

from stoker.core.errors import StoreUnavailable
from stoker.core.messages import CancelOrder, DrainOrder, EvictOrder
from stoker_worker.inbox import Inbox

CANCEL = CancelOrder(task_id="t1", attempt=1)
EVICT = EvictOrder(worker_id="w", setup_key="s", reason="r")
DRAIN = DrainOrder(reason="r")


class Stream:
    """An inbox that gives what is queued up; then blocks."""

    def __init__(self, *reads):
        self.reads = list(reads)
        self.asked = []

    async def inbox(self, engine_id, last_id, block_ms, count=100):
        self.asked.append(last_id)
        if not self.reads:
            await asyncio.Event().wait()
        read = self.reads.pop(0)
        if isinstance(read, Exception):
            raise read
        if callable(read):
            read = read()
        return (read[-1][0] if read else last_id), read


class Orders:
    def __init__(self):
        self.seen = []

    def on_assign(self, entry, order):
        self.seen.append((entry, order))

    def on_cancel(self, order):
        self.seen.append(order)

    on_evict = on_drain = on_cancel

    def on_recall(self):
        self.seen.append("recall")


@pytest.fixture
async def read():
    loops = []

    def begin(*reads):
        stream, orders = Stream(*reads), Orders()
        inbox = Inbox(stream, "box", orders, block_s=5)
        stream.inbox_loop = inbox
        loops.append(asyncio.ensure_future(inbox.read_loop()))
        return stream, orders

    yield begin
    for loop in loops:
        loop.cancel()


async def test_each_order_goes_to_its_handler_in_order(read):
    assignment = order()
    _, orders = read([("1-0", assignment), ("2-0", CANCEL)], [("3-0", EVICT), ("4-0", DRAIN)])
    await until(lambda: len(orders.seen) == 4)
    assert orders.seen == [("1-0", assignment), CANCEL, EVICT, DRAIN]


async def test_reading_goes_on_behind_the_last_entry(read):
    stream, _ = read([("1-0", CANCEL)], [], [("5-0", CANCEL)])
    await until(lambda: len(stream.asked) == 4)
    assert stream.asked == ["0", "1-0", "1-0", "5-0"]


async def test_an_outage_loses_no_order(read):
    stream, orders = read([("1-0", CANCEL)], StoreUnavailable(), StoreUnavailable(), [("2-0", EVICT)])
    await until(lambda: len(orders.seen) == 2)
    assert stream.asked[:4] == ["0", "1-0", "1-0", "1-0"]


async def test_a_registration_during_a_read_starts_from_the_beginning(read):
    def rewound():
        stream.inbox_loop.rewind()
        return [("7-0", CANCEL)]

    stream, _ = read([("3-0", CANCEL)], rewound)
    await until(lambda: len(stream.asked) == 3)
    assert stream.asked == ["0", "3-0", "0"]


async def test_a_useful_read_is_noted_also_when_it_is_empty(read):
    stream, _ = read(StoreUnavailable(), [])
    before = stream.inbox_loop.useful_mono
    await until(lambda: len(stream.asked) == 3)
    assert stream.inbox_loop.useful_mono > before
