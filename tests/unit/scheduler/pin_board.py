"""A board that also decides about pins, with engines that tell of their loads."""

from board import Board
from scheduling import OWNER, engine_view, request, resident, spec

from stoker.core.loads import LoadReport, LoadState
from stoker.core.messages import EngineReport, Needs
from stoker.core.pins import Pin
from stoker_scheduler.eviction import Facts
from stoker_scheduler.pin_book import Order
from stoker_scheduler.pins import decide_pins


def pin(key="a", *, pin_id="", needs=None, **fields):
    """A pin of the setup `key`."""
    return Pin(
        id=pin_id or f"pin-{key}",
        request=request(spec(key)),
        needs=needs or Needs(),
        owner=OWNER,
        **fields,
    )


class PinBoard(Board):
    """A board that also decides about pins, and engines that tell of loads."""

    def wants(self, *pins):
        self.book.pins |= {each.id: each for each in pins}
        return self

    @property
    def book(self):
        return self.mirror.pins

    @property
    def facts(self):
        m = self.mirror
        return Facts(self.now_ms, m.queues, m.fleet, m.knowledge, m.rules)

    def look(self):
        """Decide about pins and apply; the plan."""
        plan = decide_pins(self.book, self.facts)
        for load in plan.loads:
            name = f"load_{load.pin.id}_{load.worker.id}_{self.now_ms}"
            order = Order(
                name, load.worker.engine.id, load.worker.id, load.pin.setup_key, "test/a", self.now_ms
            )
            self.book.begin(order, self.mirror.fleet, load.load_s, load.evict)
        self.mirror.changed.workers.update(dict.fromkeys(self.book.mark(plan.pinned, self.mirror.fleet)))
        self.book.states = plan.states
        return plan

    def status(self, pin_id="pin-a"):
        return self.look().states[pin_id]

    def told(self, info, *reports, residents=(), pins=None, registered_ms=0):
        """An engine reports its loads."""
        view = engine_view(info, residents=residents)
        report = EngineReport(
            residents=view.report.residents, environments=("env",), loads=reports, pins=pins or {}
        )
        seen = {"report": report, "registered_ms": registered_ms}
        self.mirror.on_engine(type(view)(info=info, status="running", seen_ms=0, **seen), self.now_ms)

    def ends(self, info, state=LoadState.LOADED, **fields):
        """Each load under way ends."""
        reports = [self.ended(order, state, **fields) for order in self.book.orders.values()]
        loaded = reports if state is LoadState.LOADED else ()
        self.told(info, *reports, residents=[resident(each.worker_id, each.setup_key) for each in loaded])

    def ended(self, order, state, **fields):
        """What an engine tells of an order that has ended."""
        named = {"id": order.id, "worker_id": order.worker_id, "setup_key": order.setup_key}
        return LoadReport(**named, state=state, **fields)


def loads(plan):
    """Where a plan loads what."""
    return [(load.worker.id, load.pin.setup_key) for load in plan.loads]
