"""What holds for every story: random fleets, tasks and endings, then the whole queue must drain."""

from board import Board
from hypothesis import given, settings
from hypothesis import strategies as st
from scheduling import engine_info, gpu_needs

from stoker.core.messages import Needs
from stoker.core.states import TaskState
from stoker_scheduler.actions import Assign, Rules, Wait
from stoker_scheduler.matching import admits
from stoker_scheduler.residents import Phase

NEEDS = {
    "a": Needs(),
    "b": gpu_needs(6),
    "c": gpu_needs(6),
    "d": gpu_needs(14),
    "e": Needs(ram_bytes=8_000_000_000),
    "f": Needs(),
}
NAMES = ((), (), (), ("cpu",), ("gpu-gpu-0",), ("gpu", "cpu-cpu-0"))

submits = st.tuples(
    st.just("submit"),
    st.sampled_from("abcdef"),
    st.sampled_from(NAMES),
    st.integers(0, 2),
    st.sampled_from(("k1", "k2")),
)
finishes = st.tuples(
    st.just("finish"),
    st.integers(0, 30),
    st.sampled_from((TaskState.COMPLETED, TaskState.COMPLETED, TaskState.FAILED)),
    st.sampled_from((0.001, 0.001, 30.0)),
)
runs = st.tuples(st.just("run"), st.integers(0, 30))
waits = st.tuples(st.just("later"), st.floats(0.01, 100))
reports = st.tuples(st.just("report"), st.booleans())
steps = st.lists(
    st.one_of(submits, submits, submits, finishes, finishes, runs, waits, reports), min_size=10, max_size=60
)
rules = st.builds(
    Rules,
    look_ahead=st.integers(0, 3),
    age_cap_s=st.sampled_from((0.0, 5.0, 30.0)),
    churn_factor=st.just(3.0),
)
sizes = st.tuples(st.integers(1, 3), st.integers(0, 3), st.integers(1, 3))


class Story(Board):
    """A board that checks every decision before it is applied, and keeps what was decided."""

    def __init__(self, rules, size):
        super().__init__(rules)
        self.script = []
        cpus, gpus, residents = size
        self.infos = [engine_info("cpu", cpus, residents=residents, ram_gb=16)]
        if gpus:
            self.infos.append(engine_info("gpu", gpus, gpus=(16,), residents=residents, ram_gb=4))
        for info in self.infos:
            self.engine(info)
        for key in "ab":
            self.learn(key, load_s=2.0, run_s=0.001, vram_gb=6)  # short, so that tasks are queued ahead

    def held(self):
        return [h for w in self.mirror.fleet.workers.values() for h in w.held]

    def step(self, step):
        kind, *values = step
        held = self.held()
        if kind == "submit":
            key, workers, priority, key_id = values
            self.submit(key, f"t{len(self.script)}-{self.now_ms}", needs=NEEDS[key], workers=workers,
                        priority=priority, key_id=key_id)  # fmt: skip
        elif kind == "finish" and held:
            task = held[values[0] % len(held)]
            first = self.mirror.fleet.worker_of(task.task_id).held[0]
            self.finish(first.task_id, values[1], run_s=values[2], load_s=2.0 if first.load_s else 0.0)
        elif kind == "run" and held:
            self.run(held[values[0] % len(held)].task_id)
        elif kind == "later":
            self.later(values[0])
        elif kind == "report":
            self.report(draining=values[0])

    def report(self, *, draining=False):
        """Each engine reports what the mirror thinks is ready there: what was to go is gone."""
        for info in self.infos:
            ready = [
                (w.id, key)
                for w in self.mirror.fleet.engines[info.id].workers.values()
                for key, r in w.residents.items()
                if r.phase is Phase.READY
            ]
            self.engine(info, ready, draining=draining and info.id == "cpu")

    def decide(self):
        actions = self.ask()
        assert actions == self.ask()
        self.check(actions)
        self.script.append(actions)
        return super().decide()

    def check(self, actions):
        fleet, queues = self.mirror.fleet, self.mirror.queues
        given = {}
        for action in actions:
            if isinstance(action, Wait):
                assert queues.group(action.group_id)
                continue
            assert isinstance(action, Assign)
            worker, group = fleet.workers[action.worker_id], queues.group_of(action.task_id)
            assert group is not None
            assert action.task_id not in given.setdefault("tasks", set())
            given["tasks"].add(action.task_id)
            assert worker.engine.available
            assert admits(group.shape, worker)
            for key in action.evict:
                assert worker.residents[key].phase is Phase.READY
                assert key not in {h.setup_key for h in worker.held}
            keys = given.setdefault(worker.id, [h.setup_key for h in worker.held])
            keys.append(group.setup_key)
            assert len(keys) <= 1 + self.rules.look_ahead
            assert len(set(keys)) == 1, "a second task is queued at a worker only behind its own setup"

    def check_memory(self):
        for worker in self.mirror.fleet.workers.values():
            staying = [r for r in worker.residents.values() if r.phase is not Phase.STOPPING]
            assert len(staying) <= worker.max_residents
            if worker.kind.gpus:
                assert sum(r.vram_bytes for r in staying) <= worker.kind.gpus[0][1]

    def check_reasons(self):
        for group in self.mirror.queues.groups():
            assert group.reason is not None, "every waiting group was told why"
            assert self.reason_of(group.head.id)

    def possible(self):
        return [
            group
            for group in self.mirror.queues.groups()
            if any(admits(group.shape, w) for w in self.mirror.fleet.workers.values())
        ]


def play(rules, size, script):
    story = Story(rules, size)
    for step in script:
        story.step(step)
        story.decide()
        story.check_memory()
        story.check_reasons()
    return story


@given(rules, sizes, steps)
@settings(max_examples=150)
def test_every_decision_keeps_the_rules_and_the_queue_drains(rules, size, script):
    story = play(rules, size, script)
    bound = 40 + 4 * len(script)
    while story.possible() and bound:
        bound -= 1
        for task in story.held():
            worker = story.mirror.fleet.worker_of(task.task_id)
            if worker.held[0] is task:
                story.finish(task.task_id, run_s=1.0)
        story.report()
        story.later(20)
        story.look_again()
        story.check_memory()
    assert not story.possible(), "tasks that some worker can run were never started"


@given(rules, sizes, steps)
@settings(max_examples=40)
def test_the_same_story_is_decided_the_same_way(rules, size, script):
    def actions(story):
        return [[a for a in decision if isinstance(a, Assign)] for decision in story.script]

    assert actions(play(rules, size, script)) == actions(play(rules, size, script))


@given(
    st.integers(1, 3), st.lists(st.sampled_from("ab"), min_size=25, max_size=40), st.sampled_from((5.0, 30.0))
)
@settings(max_examples=60)
def test_nobody_is_passed_by_younger_tasks_for_longer_than_the_age_cap(workers, arrivals, cap_s):
    """One key, one priority, models that may be evicted at once: past the cap, age alone decides."""
    board = Board(Rules(age_cap_s=cap_s, churn_factor=0, look_ahead=0)).engine(
        engine_info(workers=workers, residents=1)
    )
    board.learn("a", load_s=1.0, run_s=2.0).learn("b", load_s=1.0, run_s=2.0)
    created = {}
    for key in arrivals:
        task = board.submit(key)
        created[task] = board.now_ms
        queued = [t for t in created if t in board.mirror.queues]
        late = [t for t in queued if board.now_ms - created[t] > cap_s * 1000]
        before = len(board.order)
        board.decide()
        started = board.order[before:]
        if started and late:
            waiting = [t for t in late if t not in started]
            for task_id in started:
                assert all(created[task_id] <= created[t] for t in waiting)
        board.later(1)
        for worker in board.mirror.fleet.workers.values():
            for held in list(worker.held):
                if board.now_ms - held.assigned_ms >= 2000:
                    board.finish(held.task_id, run_s=2.0)
