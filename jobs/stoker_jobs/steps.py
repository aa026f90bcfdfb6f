"""Durable work in short steps, of which a job takes some: flows, agents.

What is under way is a document (`stoker.protocol.documents`). A step reads it and what it waits for, decides what
is to be done now, writes the document, and does it. Whatever happened - a task's ending, a call of a client, a time
that came, a process that died - the same step is taken: it looks at what is, and not at what it was told. So a step
that is taken twice does nothing more, and one that was lost is made up for by the next.

What a step does beyond its document must be harmless when done again: tasks are submitted under ids that follow
from the document (`stoker.core.ids.derived_id`), and the document is written first.
"""

import asyncio
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
Document = tuple[str, str]
"""Kind and id."""

STEPS: Final[Mapping[str, Step]] = {
    RUN: advance_run,
    CHAT: step_chat,
}
"""Kind of document -> its step. It gets the document's id; the document may not exist yet."""


def advance(*documents: Document) -> None:
    """Take the steps of documents that are under way, at the same time.

    Raises:
        ExceptionGroup: of some it could not be taken; RQ tries again, and so do the documents' times.
        TimeoutError: some took too long.
    """
    at_desk(lambda desk: _advance(desk, documents))


async def _advance(desk: Desk, documents: tuple[Document, ...]) -> None:
    ends = await asyncio.gather(*(_step(desk, *each) for each in documents), return_exceptions=True)
    if failed := [end for end in ends if isinstance(end, BaseException)]:
        raise BaseExceptionGroup("steps that could not be taken", failed)


async def _step(desk: Desk, kind: str, document_id: str) -> None:
    step = STEPS.get(kind)
    if step is None:  # a newer part wrote it: its own jobs will take it
        get_logger("jobs").warning(Event.STEP_UNKNOWN, kind=kind, document=document_id)
        return
    try:
        await step(desk, document_id)
    except Exception as error:
        error.add_note(f"in the step of {kind} {document_id}")
        raise
