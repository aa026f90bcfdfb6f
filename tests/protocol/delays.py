"""Tasks that wait for a time, as a part of the state machine in `protocol.lifecycle`."""

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from stoker.core.states import TaskState as S

MAX_TASKS = 3
"""Few enough that a story of some dozen steps gets far with each."""
pick = st.integers(0, 7)
some_tasks = precondition(lambda self: bool(self.tasks))
twice = st.booleans()


class Delays:
    """Rules that look at `tasks` of the machine."""

    @precondition(lambda self: len(self.tasks) < MAX_TASKS)
    @rule(repeat=twice)
    def submit_for_later(self, repeat):
        self.submit(repeat, run_at_ms=2**42)

    @some_tasks
    @rule(number=pick)
    def its_time_comes(self, number):
        task = self.task_of(number)
        model = self.tasks[task]
        if model.state is S.QUEUED and model.delayed:
            self.run(self.connection.command("ZADD", f"stoker:{{{self.pool}}}:delayed", 1, task))
            model.due = True

    @rule(repeat=twice)
    def release(self, repeat):
        specs, _ = self.run(self.store.scheduling.release(self.epoch, 2**41), repeat=repeat)
        due = {name: model for name, model in self.tasks.items() if model.due}
        assert {spec.id for spec in specs} == set(due)
        for model in due.values():
            model.delayed = model.due = False
