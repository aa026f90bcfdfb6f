"""What goes on behind a task: who waits for its ending, and the flow that it shows."""

from typing import Final

from msgspec import Struct

UNBORN_S: Final = 10.0
"""How long a task that is to end and is not there is looked for: whoever submits it may be slower than who ends it."""
LOOK_UNBORN_S: Final = 2.0
"""And how often."""


class Waiter(Struct, frozen=True, kw_only=True):
    """What goes on when a task ends: a document of the jobs, and which part of it asked for the task."""

    kind: str  # of the document: a key of `stoker_jobs.steps.STEPS`
    id: str
    part: str = ""  # a node, a tool call


class FlowRef(Struct, frozen=True, kw_only=True):
    """A version of a flow: an app of it has no code, and its tasks are flow runs."""

    flow_id: str
    version_id: str
