"""A small scheduler without Redis: a mirror, a clock and `decide`, so that a test reads as a story."""

from scheduling import engine_info, engine_view, resident, spec

from stoker.core.measures import Measures
from stoker.core.states import TaskState
from stoker_scheduler.actions import Assign, Changed, Rules, Start, Wait
from stoker_scheduler.deadlines import Limits
from stoker_scheduler.mirror import Mirror
from stoker_scheduler.policy import decide
from stoker_scheduler.reasons import sentence


class Board:
    """Facts of one story. Time is milliseconds and moves by `later`."""

    def __init__(self, rules=Rules()):  # noqa: B008 - frozen
        self.rules = rules
        self.mirror = Mirror(rules, Limits())
        self.now_ms = 1_000_000
        self.cold = []  # (worker, setup key) of every cold start
        self.evicted = []
        self.order = []  # task ids as assigned

    def engine(self, info=None, residents=(), **view):
        """An engine reports; `residents` are (worker id, setup key)."""
        info = info or engine_info()
        found = [resident(*r) if isinstance(r, tuple) else r for r in residents]
        self.mirror.on_engine(engine_view(info, residents=found, **view), self.now_ms)
        return self

    def submit(self, key="a", task="", **fields):
        task_spec = spec(key, task=task, **({"created_ms": self.now_ms} | fields))
        self.mirror.on_submitted(task_spec)
        return task_spec.id

    def learn(self, key, *, load_s=10.0, run_s=1.0, prepare_s=0.0, vram_gb=0.0):
        knowledge = self.mirror.knowledge
        knowledge.learn_load(key, f"test/{key}", load_s)
        knowledge.learn_run(key, f"test/{key}", run_s)
        knowledge.learn_prepare("env", prepare_s)
        if vram_gb:
            knowledge.learn_vram(key, int(vram_gb * 1e9))
        return self

    def later(self, seconds):
        self.now_ms += int(seconds * 1000)
        return self

    def ask(self, changed=None):
        """What would be decided now; nothing is applied."""
        m = self.mirror
        changed = m.changed if changed is None else changed
        return decide(self.now_ms, m.queues, m.fleet, m.knowledge, changed, self.rules)

    def decide(self):
        """Decide and apply; the actions."""
        actions = self.ask()
        self.mirror.take_changed()
        for action in actions:
            if isinstance(action, Assign):
                self._assign(action)
            elif isinstance(action, Wait):
                self.mirror.apply_wait(action, self.now_ms)
        return actions

    def _assign(self, action):
        group = self.mirror.queues.group_of(action.task_id)
        if action.start is Start.COLD:
            self.cold.append((action.worker_id, group.setup_key))
        self.evicted += action.evict
        self.order.append(action.task_id)
        self.mirror.apply_assign(action, 1, self.now_ms)

    def look_again(self):
        """All waiting groups are decided about."""
        self.mirror.changed = Changed(
            groups=dict.fromkeys(g.id for g in self.mirror.queues.groups()),
            workers=dict.fromkeys(self.mirror.fleet.workers),
        )
        return self.decide()

    def run(self, task_id):
        """A task has loaded its model and runs."""
        self.mirror.on_moved(task_id, TaskState.RUNNING, self.now_ms)

    def finish(self, task_id, state=TaskState.COMPLETED, run_s=0.0, load_s=0.0):
        measured = Measures(run_s=run_s, load_s=load_s)
        self.mirror.on_finished(task_id, state, measured, self.now_ms)

    def fail(self, task_id, why="no network"):
        """An attempt fails, and not by its app; the task waits for its next one."""
        self.mirror.on_delayed(task_id, 1, Measures(at_fault=why, instance_ended=True), self.now_ms)

    def worker_of(self, task_id):
        worker = self.mirror.fleet.worker_of(task_id)
        return worker.id if worker else None

    def reason_of(self, task_id):
        group = self.mirror.queues.group_of(task_id)
        return sentence(group.reason) if group and group.reason else None
