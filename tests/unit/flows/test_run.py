"""What a flow run does next: by hand for each rule, and for graphs and orders at random."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from stoker.core.states import NODE_MOVES, NODE_SETTLED, RUN_ENDED, RUN_MOVES, NodeState, RunState, TaskState
from stoker.flows import sizes
from stoker.flows.plan import AppCall, Kind, Plan, PlanNode, Rule, Source
from stoker.flows.run import Ending, Facts, Run, cancelled, decide_step, running, submissions

CALL = AppCall(app_id="a", ref="ns/a")
START = Run(flow_id="f", flow_version_id="v", name="ns/f", key_id="k")


def app(name, *after, **inputs):
    return PlanNode(id=name, kind=Kind.APP, app=CALL, after=after, inputs=inputs)


def of(node, path="output"):
    return Source(node=node, path=path)


def gate(name, after, value=True):
    rule = Rule(operator="==", value=value)
    return PlanNode(id=name, kind=Kind.GATE, after=(after,), inputs={"x": of(after)}, rule=rule)


class Play:
    """A run with its tasks, as the jobs would drive it."""

    def __init__(self, *nodes, outputs=None, given=None, **run):
        self.plan = Plan(nodes=nodes, outputs=outputs or {})
        self.run, self.given = structs.replace(START, **run), given or {}
        self.outputs, self.tasks, self.inputs, self.ended = {}, {}, {}, {}
        self.output = None

    def step(self, **run):
        before = structs.replace(self.run, **run)
        facts = Facts(plan=self.plan, input=self.given, outputs=self.outputs, endings=self.endings())
        ids = {node.id: f"t-{node.id}" for node in self.plan.nodes}
        made = decide_step(before, facts, ids, 1)
        check_moves(before, made.run)
        assert {name: msgspec.json.decode(text) for name, text in made.texts.items()} == made.outputs
        self.run, self.outputs = made.run, self.outputs | made.outputs
        self.output = made.output if self.run.ended and made.output is not None else self.output
        for one in submissions(self.run, structs.replace(facts, outputs=self.outputs), self.tasks):
            assert one.task_id not in self.tasks
            self.tasks[one.task_id], self.inputs[one.node.id] = one.node.id, one.input
        return self

    def endings(self):
        return {self.tasks[task]: ending for task, ending in self.ended.items()}

    def end(self, node, output=None, state=TaskState.COMPLETED, error=""):
        self.ended[f"t-{node}"] = Ending(state=state, output={"output": output}, error=error)
        return self.step()

    def states(self):
        return {name: str(node.state) for name, node in self.run.nodes.items()}


def check_moves(before, after):
    assert after.state in RUN_MOVES[before.state] | {before.state}
    for name, node in after.nodes.items():
        old = before.nodes[name].state if name in before.nodes else NodeState.PENDING
        assert node.state in NODE_MOVES[old] | {old}


def test_nodes_that_wait_for_nothing_run_at_the_same_time():
    play = Play(app("a"), app("b"), app("c", "a", "b", x=of("a"), y=of("b"))).step()
    assert set(play.tasks) == {"t-a", "t-b"}
    assert play.end("a", 1).states()["c"] == "pending"
    play.end("b", 2)
    assert play.inputs["c"] == {"x": 1, "y": 2}


def test_a_run_completes_with_what_its_mappings_name():
    play = Play(
        app("a", x=Source(node="input", path="n")),
        outputs={"r": of("a"), "none": of("a", "z")},
        given={"n": 5},
    )
    assert play.step().inputs["a"] == {"x": 5}
    assert play.end("a", 9).run.state is RunState.COMPLETED
    assert play.output == {"r": 9, "none": None}


def test_what_leads_nowhere_is_left_out_of_an_input():
    play = Play(app("a"), app("b", "a", x=of("a", "missing"), y=Source(value=0))).step()
    play.end("a", 1)
    assert play.inputs["b"] == {"y": 0}


def test_a_closed_gate_skips_what_comes_after_it_and_the_run_completes():
    play = Play(app("a"), gate("g", "a"), app("b", "g"), app("c", "b")).step()
    play.end("a", False)
    assert play.states() == {"a": "completed", "g": "completed", "b": "skipped", "c": "skipped"}
    assert play.run.state is RunState.COMPLETED


def test_an_open_gate_passes_its_inputs_on():
    play = Play(app("a"), gate("g", "a"), app("b", "g", x=of("g", "x"))).step()
    assert play.end("a", True).inputs["b"] == {"x": True}


def test_a_merge_goes_on_with_the_branch_that_was_taken():
    merge = PlanNode(id="m", kind=Kind.MERGE, after=("b", "c"), inputs={"b": of("b"), "c": of("c")})
    nodes = (app("a"), gate("g", "a"), gate("h", "a", value=False), app("b", "g"), app("c", "h"), merge)
    play = Play(*nodes, outputs={"r": of("m")}).step()
    play.end("a", False)
    assert play.states()["b"] == "skipped"
    assert play.end("c", "other").output == {"r": "other"}


def test_a_merge_of_branches_none_of_which_was_taken_is_skipped():
    merge = PlanNode(id="m", kind=Kind.MERGE, after=("g",), inputs={"g": of("g")})
    play = Play(app("a"), gate("g", "a"), merge).step()
    assert play.end("a", False).states()["m"] == "skipped"


def test_a_failed_node_fails_the_run_and_ends_what_runs():
    play = Play(app("a"), app("b"), app("c", "a"), app("d", "b")).step()
    play.end("a", state=TaskState.FAILED, error="no face")
    assert (play.run.state, play.run.error) == (RunState.FAILED, "node 'a': no face")
    assert play.states() == {"a": "failed", "b": "cancelled", "c": "blocked", "d": "cancelled"}
    assert cancelled(play.run) == {"b": "t-b"}


def test_without_fail_on_error_only_what_waits_for_the_failed_one_is_blocked():
    play = Play(
        app("a"), app("b"), app("c", "a"), outputs={"b": of("b"), "c": of("c")}, fail_on_error=False
    ).step()
    play.end("a", state=TaskState.FAILED, error="no face")
    assert play.run.state is RunState.RUNNING
    play.end("b", 2)
    assert play.states() == {"a": "failed", "b": "completed", "c": "blocked"}
    assert (play.run.state, play.output) == (RunState.COMPLETED, {"b": 2, "c": None})
    assert play.run.error == "node 'a': no face"


def test_a_rule_that_cannot_be_computed_fails_its_node():
    node = PlanNode(id="e", kind=Kind.EXPRESSION, rule=Rule(expression="1 / 0"))
    play = Play(node).step()
    assert play.run.state is RunState.FAILED
    assert "division by zero" in play.run.error


def test_what_there_is_no_time_to_compute_is_left_to_the_next_step():
    nodes = [
        PlanNode(id=name, kind=Kind.EXPRESSION, after=after, rule=Rule(expression="1"))
        for name, after in (("a", ()), ("b", ("a",)), ("c", ()))
    ]
    play = Play(*nodes, app("d"))
    facts = Facts(plan=play.plan)
    run, left = START, []
    for _ in nodes:
        turns = [False, False, True]  # from its end
        made = decide_step(run, facts, {node.id: node.id for node in play.plan.nodes}, 1, turns.pop)
        run, facts = made.run, structs.replace(facts, outputs={**facts.outputs, **made.outputs})
        left.append((made.more, sorted(made.outputs), str(run.nodes["d"].state)))
    assert left == [(True, ["a"], "running"), (True, ["b"], "running"), (False, ["c"], "running")]


def merge(name, *after, path=""):
    return PlanNode(id=name, kind=Kind.MERGE, after=after, inputs={one: of(one, path) for one in after})


def constant(name, value):
    return PlanNode(id=name, kind=Kind.CONSTANT, rule=Rule(value=value))


def in_a_row(kind, length):
    """Nodes each of which has the whole output of the one before."""
    rule = Rule(operator="not_empty") if kind is Kind.GATE else None
    nodes = [constant("n0", "x" * 1000)]
    for number in range(length):
        last = nodes[-1].id
        nodes.append(
            PlanNode(id=f"n{number + 1}", kind=kind, after=(last,), inputs={"a": of(last, "")}, rule=rule)
        )
    return nodes


@pytest.mark.parametrize(("kind", "most"), [(Kind.MERGE, 40), (Kind.GATE, 60)])
@pytest.mark.parametrize("steps", ["in one step", "in a step each"])
def test_nodes_that_hold_each_other_fail_at_the_one_that_is_too_large(kind, most, steps):
    """Forty merges would make 3^40 times what they begin with."""
    nodes = in_a_row(kind, most)
    ids, facts, run = {node.id: node.id for node in nodes}, Facts(plan=Plan(nodes=tuple(nodes))), START
    while not run.ended:
        turns = [False, True]
        made = decide_step(run, facts, ids, 1, turns.pop if steps == "in a step each" else lambda: True)
        run, known = made.run, {name: len(text) for name, text in made.texts.items()}
        assert max(known.values(), default=0) <= sizes.MAX_OUTPUT_BYTES
        outputs = {**facts.outputs, **made.outputs}
        facts = structs.replace(facts, outputs=outputs, sizes={**facts.sizes, **known})
    [failed] = [name for name, node in run.nodes.items() if node.state is NodeState.FAILED]
    assert run.state is RunState.FAILED
    assert run.error.startswith(f"node {failed!r}: it g")
    assert "8388608" in run.error
    assert "Connect only the fields that are needed" in run.error


def test_small_fields_of_large_outputs_are_not_too_large():
    large = {"pixels": "x" * (sizes.MAX_OUTPUT_BYTES - 100), "n": 1}
    gated = PlanNode(
        id="g", kind=Kind.GATE, after=("a", "b"), inputs={"a": of("a", "output.n"), "b": of("b", "output.n")},
        rule=Rule(operator="==", value=1),
    )  # fmt: skip
    play = Play(
        app("a"), app("b"), gated, app("c", "g"), outputs={"a": of("a", "output.n"), "g": of("g", "b")}
    )
    play.step().end("a", large)
    assert play.end("b", large).states()["c"] == "running"
    assert play.end("c").output == {"a": 1, "g": 1}


def test_an_app_gets_no_more_than_its_runner_takes(monkeypatch):
    monkeypatch.setattr(sizes, "MAX_INPUT_BYTES", 100)
    play = Play(constant("a", "x" * 60), app("b", "a", x=of("a"), y=of("a"))).step()
    assert play.run.error.startswith("node 'b': it gets more than the 100 bytes that are allowed")


def test_an_output_of_a_flow_that_is_too_large_fails_the_run():
    half = "x" * (sizes.MAX_OUTPUT_BYTES // 2)
    play = Play(constant("a", half), outputs={"one": of("a"), "same": of("a")}).step()
    assert play.run.state is RunState.FAILED
    assert play.run.error.startswith("output of the flow: it gets more than the 8388608 bytes")
    assert Play(constant("a", half), outputs={"one": of("a")}).step().output == {"one": half}


def test_what_nodes_that_are_no_apps_give_together_is_bounded(monkeypatch):
    monkeypatch.setattr(sizes, "MAX_COMPUTED_BYTES", 1000)
    many = [merge(f"m{number}", "a") for number in range(10)]
    play = Play(app("a"), *many, fail_on_error=False).step()
    play.end("a", "x" * 100)
    states = [play.states()[node.id] for node in many]
    assert states == ["completed"] * 2 + ["failed"] * 8
    assert "1000 are allowed in a run" in play.run.error


def test_a_cancelled_run_cancels_what_runs_and_begins_nothing():
    play = Play(app("a"), app("b", "a")).step().step(cancel=True)
    assert play.run.state is RunState.CANCELLED
    assert play.states() == {"a": "cancelled", "b": "cancelled"}
    assert cancelled(play.run) == {"a": "t-a"}


def test_a_task_that_somebody_cancelled_counts_as_failed():
    play = Play(app("a"), app("b", "a")).step()
    play.end("a", state=TaskState.CANCELLED)
    assert (play.run.state, play.run.error) == (RunState.FAILED, "node 'a': its task was cancelled")


def test_a_submission_that_was_lost_is_made_up_for():
    play = Play(app("a")).step()
    play.tasks.clear()
    assert set(play.step().tasks) == {"t-a"}


@st.composite
def stories(draw):
    """A graph, and how and in which order its tasks end."""
    size = draw(st.integers(1, 7))
    nodes = []
    for number in range(size):
        names = [node.id for node in nodes]
        after = tuple(draw(st.lists(st.sampled_from(names), unique=True, max_size=3))) if names else ()
        kind = draw(st.sampled_from([Kind.APP, Kind.APP, Kind.GATE, Kind.MERGE])) if after else Kind.APP
        inputs = {name: of(name) for name in after}
        rule = Rule(operator="==", value=1) if kind is Kind.GATE else None
        call = CALL if kind is Kind.APP else None
        nodes.append(PlanNode(id=f"n{number}", kind=kind, after=after, inputs=inputs, app=call, rule=rule))
    ends = draw(st.lists(st.tuples(st.integers(0, 20), st.sampled_from([1, 1, 2, "fail"])), min_size=size))
    return nodes, ends, draw(st.booleans()), draw(st.none() | st.integers(0, size)), draw(st.booleans())


@given(stories())
@settings(max_examples=200, derandomize=True)
def test_every_story_ends_and_no_node_is_submitted_twice(story):
    nodes, ends, fail_on_error, cancel_at, twice = story
    play = Play(*nodes, fail_on_error=fail_on_error, outputs={"last": of(nodes[-1].id)}).step()
    for number, (which, how) in enumerate(ends):
        if cancel_at == number:
            play.step(cancel=True)
        waiting = sorted(running(play.run))
        if play.run.ended or not waiting:
            break
        node = waiting[which % len(waiting)]
        state = TaskState.FAILED if how == "fail" else TaskState.COMPLETED
        play.end(node, how, state)
        if twice:
            before = play.run
            assert play.step().run == before
    for node in sorted(running(play.run)):
        play.end(node, 1)
    while running(play.run):
        play.end(min(running(play.run)), 1)
    assert play.run.state in RUN_ENDED
    assert all(node.state in NODE_SETTLED for node in play.run.nodes.values())
    done = {name for name, node in play.run.nodes.items() if node.state is NodeState.COMPLETED}
    assert done == set(play.outputs)
    for node in nodes:
        state = play.run.nodes[node.id].state
        if state is NodeState.COMPLETED and node.kind is not Kind.MERGE:
            assert set(node.after) <= done
