"""What a flow run does next: a pure function of its document, what its nodes gave, and how its tasks stand."""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from msgspec import Struct, structs

from stoker.core.states import NODE_SETTLED, RUN_ENDED, NodeState, RunState, TaskState
from stoker.flows.paths import MISSING, dig
from stoker.flows.plan import Kind, Plan, PlanNode, Source
from stoker.flows.rules import PASSED, RuleFailed, compute
from stoker.flows.schema import INPUT
from stoker.flows.sizes import MAX_OUTPUT_BYTES, Sizes, check_together, encode, encoded, most_of

_FAILING = frozenset({NodeState.FAILED, NodeState.CANCELLED, NodeState.BLOCKED})


class RunNode(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node of a run. `task_id` is there from the moment at which its task is to be submitted."""

    state: NodeState = NodeState.PENDING
    task_id: str = ""
    error: str = ""
    since_ms: int = 0


class Run(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A flow run, without what never changes (plan, input) and what its nodes gave."""

    flow_id: str
    flow_version_id: str
    name: str  # namespace/name, for people
    key_id: str  # the API key that its tasks are accounted to
    state: RunState = RunState.PENDING
    nodes: dict[str, RunNode] = {}
    error: str = ""
    fail_on_error: bool = True
    cancel: bool = False  # somebody asked for it
    carried: bool = False  # a task of the same id shows this run as an app's
    depth: int = 0  # how many flows it is inside of
    files_url: str = ""
    asked: str = ""  # digest of the request, when it came with an idempotency key
    priority: int = 0
    visibility: str = "private"
    started_ms: int = 0
    ended_ms: int = 0

    @property
    def ended(self) -> bool:
        return self.state in RUN_ENDED


class Ending(Struct, frozen=True, kw_only=True):
    """How the task of a node ended."""

    state: TaskState
    output: Any = None
    error: str = ""


class Facts(Struct, frozen=True, kw_only=True):
    """What a step looks at beside the run: its plan and input, outputs of nodes, ended tasks by node.

    `sizes`: bytes of the outputs, and of the input by its name, as JSON; what is not told is counted where it is needed.
    """

    plan: Plan
    input: Any = None
    outputs: Mapping[str, Any] = {}
    sizes: Mapping[str, int] = {}
    endings: Mapping[str, Ending] = {}


class Submission(Struct, frozen=True, kw_only=True):
    """A task that a node needs."""

    node: PlanNode
    task_id: str
    input: dict[str, Any]


class Step(Struct, frozen=True, kw_only=True):
    """What a step decided. `output` is the run's, when it has completed."""

    run: Run
    outputs: dict[str, Any] = {}  # of nodes that have it now
    texts: dict[str, str] = {}  # the same as JSON
    output: Any = None
    more: bool = False  # nodes that could be computed are left to the next step


def _always() -> bool:
    return True


def decide_step(
    run: Run,
    facts: Facts,
    task_id_of: Mapping[str, str],
    now_ms: int,
    goes_on: Callable[[], bool] = _always,
) -> Step:
    """Take a run as far as it goes now. Taken again with the same facts, it changes nothing more.

    Args:
        run: as stored.
        facts: what is known.
        task_id_of: node -> the id that its task has, whoever submits it.
        now_ms: the time of what changes.
        goes_on: whether there is time to compute one more node that is no app.
    """
    if run.ended:
        return Step(run=run)
    return _Stepper(run, facts, task_id_of, now_ms, goes_on).step()


def input_of(node: PlanNode, facts: Facts, outputs: Mapping[str, Any]) -> dict[str, Any]:
    """The input of a node. What leads nowhere, or to null, is left out: the app's own defaults hold."""
    given = {}
    for key, source in node.inputs.items():
        value = value_of(source, facts, outputs)
        if value is not MISSING and value is not None:
            given[key] = value
    return given


def value_of(source: Source, facts: Facts, outputs: Mapping[str, Any]) -> Any:
    """The value that a source stands for, or MISSING."""
    if not source.node:
        return source.value
    if source.node == INPUT:
        return dig(facts.input, source.path)
    return dig(outputs[source.node], source.path) if source.node in outputs else MISSING


class _Stepper:
    def __init__(
        self,
        run: Run,
        facts: Facts,
        task_id_of: Mapping[str, str],
        now_ms: int,
        goes_on: Callable[[], bool],
    ) -> None:
        self._run = run
        self._facts = facts
        self._task_id_of = task_id_of
        self._now_ms = now_ms
        self._goes_on = goes_on
        self._more = False
        self._nodes = {node.id: run.nodes.get(node.id, RunNode()) for node in facts.plan.nodes}
        self._kinds = {node.id: node.kind for node in facts.plan.nodes}
        self._outputs = dict(facts.outputs)
        self._sizes = Sizes(facts.sizes)
        self._computed = sum(  # bytes that nodes that are no apps have given
            self._sizes.of(name, output)
            for name, output in facts.outputs.items()
            if self._kinds[name] is not Kind.APP
        )
        self._new: dict[str, Any] = {}
        self._texts: dict[str, str] = {}

    def step(self) -> Step:
        if self._run.cancel:
            return self._end(RunState.CANCELLED, "")
        self._take_endings()
        for node in self._facts.plan.nodes:
            if (failed := self._failed()) and self._run.fail_on_error:
                return self._end(RunState.FAILED, failed)
            if self._nodes[node.id].state is NodeState.PENDING:
                self._look_at(node)
        failed = self._failed()
        if failed and self._run.fail_on_error:
            return self._end(RunState.FAILED, failed)
        if all(node.state in NODE_SETTLED for node in self._nodes.values()):
            return self._completed(failed)
        return structs.replace(self._result(RunState.RUNNING, self._run.error), more=self._more)

    def _take_endings(self) -> None:
        for node_id, ending in self._facts.endings.items():
            if self._nodes[node_id].state is not NodeState.RUNNING:
                continue
            match ending.state:
                case TaskState.COMPLETED:
                    self._complete(node_id, ending.output, encode(ending.output))
                case TaskState.CANCELLED:
                    self._settle(node_id, NodeState.CANCELLED, "its task was cancelled")
                case _:
                    self._settle(node_id, NodeState.FAILED, ending.error or "its task failed")

    def _look_at(self, node: PlanNode) -> None:
        """Begin a node, or settle it without, when all that it waits for has settled."""
        before = [self._nodes[one] for one in node.after]
        if any(one.state in _FAILING for one in before):
            self._settle(node.id, NodeState.BLOCKED)
        elif any(one.state not in NODE_SETTLED for one in before):
            return
        elif self._is_skipped(node):
            self._settle(node.id, NodeState.SKIPPED)
        else:
            self._begin(node)

    def _is_skipped(self, node: PlanNode) -> bool:
        """A merge goes on with what is there; any other node wants all."""
        closed = [self._is_closed(one) for one in node.after]
        return bool(closed) and (all(closed) if node.kind is Kind.MERGE else any(closed))

    def _is_closed(self, node_id: str) -> bool:
        if self._kinds[node_id] is Kind.GATE and self._nodes[node_id].state is NodeState.COMPLETED:
            return not dig(self._outputs[node_id], PASSED)
        return self._nodes[node_id].state is NodeState.SKIPPED

    def _begin(self, node: PlanNode) -> None:
        is_app = node.kind is Kind.APP
        if not is_app and not self._goes_on():
            self._more = True
            return
        present = self._present(node)
        try:
            self._check_size(node.inputs.values(), present, most_of(node.kind))
            if not is_app:
                given = input_of(node, self._facts, present)
                output = compute(node, given, self._task_id_of[node.id])
                text = encoded(output, self._computed)
                self._complete(node.id, output, text)
                self._computed += len(text)
                return
        except RuleFailed as error:
            self._settle(node.id, NodeState.FAILED, str(error))
            return
        task_id = self._task_id_of[node.id]
        self._nodes[node.id] = RunNode(state=NodeState.RUNNING, task_id=task_id, since_ms=self._now_ms)

    def _present(self, node: PlanNode) -> dict[str, Any]:
        """Outputs without those of closed gates, which a merge does not see."""
        return {
            key: value
            for key, value in self._outputs.items()
            if key not in node.after or not self._is_closed(key)
        }

    def _check_size(self, sources: Iterable[Source], outputs: Mapping[str, Any], most: int) -> None:
        """Refuse what is too large together. The wholes that it is of need no counting, and mostly that is enough.

        Raises:
            RuleFailed: it is.
        """
        sources = list(sources)
        if sum(self._size_of_whole(source, outputs) for source in sources) > most:
            check_together((value_of(source, self._facts, outputs) for source in sources), most)

    def _size_of_whole(self, source: Source, outputs: Mapping[str, Any]) -> int:
        if not source.node:
            return len(encode(source.value))
        if source.node == INPUT:
            return self._sizes.of(INPUT, self._facts.input)
        return self._sizes.of(source.node, outputs[source.node]) if source.node in outputs else 0

    def _complete(self, node_id: str, output: Any, text: bytes) -> None:
        self._outputs[node_id] = self._new[node_id] = output
        self._texts[node_id] = text.decode()
        self._sizes.put(node_id, len(text))
        self._settle(node_id, NodeState.COMPLETED)

    def _settle(self, node_id: str, state: NodeState, error: str = "") -> None:
        node = self._nodes[node_id]
        self._nodes[node_id] = structs.replace(node, state=state, error=error, since_ms=self._now_ms)

    def _failed(self) -> str:
        """Which nodes failed and why, or ''."""
        return "; ".join(
            f"node {node_id!r}: {node.error}"
            for node_id, node in self._nodes.items()
            if node.state in {NodeState.FAILED, NodeState.CANCELLED}
        )

    def _completed(self, failed: str) -> Step:
        try:
            self._check_size(self._facts.plan.outputs.values(), self._outputs, MAX_OUTPUT_BYTES)
        except RuleFailed as error:
            return self._end(
                RunState.FAILED, "; ".join(filter(None, (failed, f"output of the flow: {error}")))
            )
        return self._end(RunState.COMPLETED, failed)

    def _end(self, state: RunState, error: str) -> Step:
        """End the run: what has not settled is blocked by what failed, or cancelled."""
        for node in self._facts.plan.nodes:
            now = self._nodes[node.id]
            if now.state in NODE_SETTLED:
                continue
            failed = any(
                self._nodes[one].state in {NodeState.FAILED, NodeState.BLOCKED} for one in node.after
            )
            waits = now.state is NodeState.PENDING
            self._settle(node.id, NodeState.BLOCKED if waits and failed else NodeState.CANCELLED)
        return structs.replace(self._result(state, error), output=self._output(state))

    def _output(self, state: RunState) -> Any:
        if state is not RunState.COMPLETED:
            return None
        values = {
            name: value_of(source, self._facts, self._outputs)
            for name, source in self._facts.plan.outputs.items()
        }
        return {name: None if value is MISSING else value for name, value in values.items()}

    def _result(self, state: RunState, error: str) -> Step:
        changes: dict[str, Any] = {"state": state, "nodes": self._nodes, "error": error}
        if not self._run.started_ms:
            changes["started_ms"] = self._now_ms
        if state in RUN_ENDED:
            changes["ended_ms"] = self._now_ms
        return Step(run=structs.replace(self._run, **changes), outputs=self._new, texts=self._texts)


def running(run: Run) -> dict[str, str]:
    """Node -> its task, of the nodes that run."""
    return {name: node.task_id for name, node in run.nodes.items() if node.state is NodeState.RUNNING}


def cancelled(run: Run) -> dict[str, str]:
    """Node -> its task, of the nodes that were cancelled."""
    return {
        name: node.task_id
        for name, node in run.nodes.items()
        if node.state is NodeState.CANCELLED and node.task_id
    }


def submissions(run: Run, facts: Facts, known: Collection[str]) -> list[Submission]:
    """The tasks that are to be there and are not: new ones, and those whose submitter died.

    Args:
        run: after a step.
        facts: with the outputs that the step added.
        known: ids of tasks that were submitted.
    """
    if run.ended:
        return []
    wanted = running(run)
    return [
        Submission(node=node, task_id=wanted[node.id], input=input_of(node, facts, facts.outputs))
        for node in facts.plan.nodes
        if wanted.get(node.id, "") not in {"", *known}
    ]
