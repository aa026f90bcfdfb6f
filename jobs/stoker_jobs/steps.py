"""Durable work, one short job a step: flows, agents.

What is under way is a document (`stoker.protocol.documents`). A step reads it and what it waits for, decides what
is to be done now, writes the document, and does it. Whatever happened - a task's ending, a call of a client, a time
that came, a process that died - the same step is taken: it looks at what is, and not at what it was told. So a step
that is taken twice does nothing more, and one that was lost is made up for by the next.

What a step does beyond its document must be harmless when done again: tasks are submitted under ids that follow
from the document (`stoker.core.ids.derived_id`), and the document is written first.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from stoker.agents.chat import KIND as CHAT
from stoker.core.events import Event
from stoker.flows.records import RUN
from stoker.log import get_logger
from stoker_jobs.agent_steps import step_chat
from stoker_jobs.desk import Desk, at_desk
from stoker_jobs.flow_steps import advance_run

Step = Callable[[Desk, str], Awaitable[None]]

STEPS: Final[Mapping[str, Step]] = {
    RUN: advance_run,
    CHAT: step_chat,
}
"""Kind of document -> its step. It gets the document's id; the document may not exist yet."""


def advance(kind: str, document_id: str) -> None:
    """Take the step of a document that is under way.

    Raises:
        StokerError: it could not be taken; RQ tries again, and so does the document's time.
    """
    step = STEPS.get(kind)
    if step is None:  # a newer part wrote it: its own jobs will take it
        get_logger("jobs").warning(Event.STEP_UNKNOWN, kind=kind, document=document_id)
        return
    at_desk(lambda desk: step(desk, document_id))
