"""What goes on behind a task: who waits for its ending, and the flow that it shows."""

from msgspec import Struct


class Waiter(Struct, frozen=True, kw_only=True):
    """What goes on when a task ends: a document of the jobs, and which part of it asked for the task."""

    kind: str  # of the document: a key of `stoker_jobs.steps.STEPS`
    id: str
    part: str = ""  # a node, a tool call


class FlowRef(Struct, frozen=True, kw_only=True):
    """A version of a flow: an app of it has no code, and its tasks are flow runs."""

    flow_id: str
    version_id: str
