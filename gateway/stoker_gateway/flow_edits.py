"""Single edits of a flow's draft: read it, change it as asked, write it if nobody else has changed it meanwhile."""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from stoker.core.errors import Conflict, DocumentChanged, InvalidRequest
from stoker.core.messages import Owner
from stoker.flows.edits import MAX_ACTIONS, REDO, UNDO, Action, ActionError, edit
from stoker.flows.history import changed, moved, step_wanted
from stoker.flows.records import FLOW
from stoker.protocol import Store
from stoker_gateway.flows import Flow, Flows

TRIES: Final = 5
"""Of a request whose draft somebody else changes at the same time."""
_HISTORY: Final = frozenset({UNDO, REDO})


class Acted(Struct, frozen=True, kw_only=True):
    """What became of a request: the draft's version, what was done, why nothing was."""

    version: int
    actions: Sequence[Action] = ()
    errors: Sequence[ActionError] = ()


async def act(flows: Flows, store: Store, ref: str, owner: Owner, actions: Sequence[Action]) -> Acted:
    """Do actions on the draft of a flow: all of them, or none.

    Raises:
        NotFound: no such flow of this user.
        InvalidRequest: too many, or `undo` and `redo` beside others.
        Conflict: there is nothing to undo, or the draft changes all the time.
    """
    if len(actions) > MAX_ACTIONS:
        raise InvalidRequest(
            f"Input validation failed: actions: {len(actions)} are more than the {MAX_ACTIONS} of one request"
        )
    if _HISTORY & {action.type for action in actions}:
        return await _move(flows, store, await flows.find(ref, owner), actions)
    for _ in range(TRIES):
        flow = await flows.find(ref, owner)
        edited = edit(flow.body.graph, actions)
        if edited.errors:
            return Acted(version=flow.body.history.version, errors=edited.errors)
        body, parts = changed(flow.body, edited.graph)
        if body != flow.body:
            try:
                await flows.put(flow.document.id, owner.user_id, flow.document.revision, body, parts)
            except DocumentChanged:  # edits are small: they are done on what the other one left
                continue
        return Acted(version=body.history.version, actions=actions)
    raise Conflict("The flow changes all the time just now. Send this again.")


async def _move(flows: Flows, store: Store, flow: Flow, actions: Sequence[Action]) -> Acted:
    """Take one change back, or do it again. What others change at the same time is not taken back unseen."""
    if len(actions) != 1:
        raise InvalidRequest(
            f"Input validation failed: actions: {UNDO} and {REDO} are of a whole request; send each in one of its own"
        )
    back = actions[0].type == UNDO
    wanted = step_wanted(flow.body, back=back)
    parts = await store.documents.parts(FLOW, flow.document.id, wanted)
    if wanted not in parts:  # changed between the two reads
        raise DocumentChanged
    body = moved(flow.body, parts[wanted], back=back)
    await flows.put(flow.document.id, flow.document.owner_id, flow.document.revision, body)
    return Acted(version=body.history.version, actions=actions)
