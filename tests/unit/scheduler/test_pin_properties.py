"""What holds of pins in every story: random tasks, pins, failures and losses; then all that can be loaded is."""

from hypothesis import given, settings
from hypothesis import strategies as st
from pin_board import PinBoard, pin
from scheduling import engine_info, gpu_needs, resident

from stoker.core.loads import LoadState
from stoker.core.messages import Needs
from stoker.core.pins import PinState
from stoker_scheduler.actions import Assign
from stoker_scheduler.residents import Phase

NEEDS = {"a": Needs(), "b": gpu_needs(6), "c": gpu_needs(6), "d": gpu_needs(14)}
PLACES = ({}, {}, {"copies": 2}, {"workers": ("cpu",)}, {"workers": ("gpu-gpu-0", "nowhere")})

steps = st.lists(
    st.one_of(
        st.tuples(st.just("submit"), st.sampled_from("abcd")),
        st.tuples(st.just("finish"), st.integers(0, 9)),
        st.tuples(st.just("pin"), st.sampled_from("abcd"), st.sampled_from(PLACES), st.booleans()),
        st.tuples(st.just("unpin"), st.sampled_from("abcd")),
        st.tuples(st.just("loads end"), st.sampled_from((LoadState.LOADED, LoadState.LOADED, LoadState.FAILED))),
        st.tuples(st.just("lose"), st.integers(0, 9)),
        st.tuples(st.just("later"), st.floats(0.01, 400)),
    ),
    min_size=5,
    max_size=40,
)  # fmt: skip


class Story(PinBoard):
    """Checks every decision before it is applied."""

    def __init__(self, residents):
        super().__init__()
        self.infos = [
            engine_info("cpu", 2, residents=residents),
            engine_info("gpu", 1, gpus=(16,), residents=residents),
        ]
        for info in self.infos:
            self.engine(info)

    def step(self, kind, *values):
        held = [h for w in self.mirror.fleet.workers.values() for h in w.held if h.attempt]
        if kind == "submit":
            self.submit(*values, needs=NEEDS[values[0]])
        elif kind == "finish" and held:
            task = held[values[0] % len(held)]
            self.finish(self.mirror.fleet.worker_of(task.task_id).held[0].task_id, run_s=1.0, load_s=2.0)
        elif kind == "pin":
            key, place, once = values
            times = {"created_ms": self.now_ms, "until_ms": self.now_ms + 900_000} if once else {}
            name = f"{'once' if once else 'pin'}-{key}"
            self.book.states.pop(name, None)
            self.wants(pin(key, pin_id=name, needs=NEEDS[key], once=once, **place, **times))
        elif kind == "unpin":
            self.book.pins.pop(f"pin-{values[0]}", None)
        elif kind == "loads end":
            self.report(values[0])
        elif kind == "lose":
            self.report(lost=values[0])
        elif kind == "later":
            self.later(values[0])
        self.decide_all()

    def report(self, state=LoadState.LOADED, lost=None):
        """Engines tell what the mirror thinks is ready, and that loads have ended, where no instance was lost."""
        for info in self.infos:
            workers = self.mirror.fleet.engines[info.id].workers.values()
            ready = [
                resident(w.id, key, vram_gb=found.vram_bytes / 1e9)
                for w in workers
                for key, found in w.residents.items()
                if found.phase is Phase.READY
            ]
            if lost is not None:
                self.engine(info, [r for n, r in enumerate(ready) if n % 10 != lost])
                continue
            ended = [
                self.ended(order, state) for order in self.book.orders.values() if order.engine_id == info.id
            ]
            new = [resident(e.worker_id, e.setup_key) for e in ended if state is LoadState.LOADED]
            self.told(info, *ended, residents=[*ready, *new])

    def decide_all(self):
        self.plan = self.look()
        self.check_loads()
        for action in self.ask():
            if isinstance(action, Assign):
                self.check_evict(action.worker_id, action.evict)
        self.decide()
        for worker in self.mirror.fleet.workers.values():
            staying = [r for r in worker.residents.values() if r.phase is not Phase.STOPPING]
            assert len(staying) <= worker.max_residents

    def check_loads(self):
        seats = [load.worker.id for load in self.plan.loads]
        assert len(seats) == len(set(seats))
        for load in self.plan.loads:
            assert [held.setup_key for held in load.worker.held] == [load.pin.setup_key]
            self.check_evict(load.worker.id, load.evict)
        for pin_id, status in self.plan.states.items():
            lacking = status.wanted - len(status.workers) - len(status.loading)
            assert lacking <= 0 or status.reason, pin_id

    def check_evict(self, worker_id, evict):
        assert not self.book.pinned.get(worker_id, frozenset()).intersection(evict)


@settings(max_examples=150)
@given(steps, st.integers(1, 3))
def test_a_pinned_instance_never_makes_room_and_what_can_be_loaded_is(story, residents):
    board = Story(residents)
    for step in story:
        board.step(*step)
    for _ in range(40):  # everything ends well from here on
        for held in [h for w in board.mirror.fleet.workers.values() for h in w.held if h.attempt]:
            board.finish(held.task_id, run_s=1.0, load_s=2.0)
        board.report()
        board.later(60)
        board.decide_all()
    assert not len(board.mirror.queues) or board.book.pinned  # pins alone may take all the room for good
    for pin_id, status in board.plan.states.items():
        assert status.state in (PinState.LOADED, PinState.FAILED) or status.reason, pin_id
