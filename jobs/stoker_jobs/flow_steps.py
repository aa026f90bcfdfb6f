"""The step of a flow run: read, decide (`stoker.flows.run`), write, submit. See `stoker_jobs.steps` for the rules."""

import asyncio
import contextlib
import itertools
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct, structs

from stoker.core.errors import CallerError, DocumentChanged, NotFound
from stoker.core.events import Event
from stoker.core.ids import derived_id
from stoker.core.messages import Infra, Owner, TaskId, TaskRequest, TaskView, Waiter
from stoker.core.states import TERMINAL, RunState, TaskState
from stoker.core.waiting import LOOK_UNBORN_S, UNBORN_S
from stoker.flows import records
from stoker.flows.plan import AppCall, Plan
from stoker.flows.records import RUN
from stoker.flows.run import (
    Ending,
    Facts,
    Run,
    Step,
    Submission,
    cancelled,
    decide_step,
    running,
    submissions,
)
from stoker.log import get_logger
from stoker.protocol.documents import DUE_LATER_S, Change, Document
from stoker.protocol.files import document_user
from stoker.protocol.task_hash import Standing
from stoker.runs.file_uses import note_uses
from stoker.runs.submit import Origin, RunBody
from stoker_jobs.desk import Desk

ROUNDS: Final = 50
"""Of one step: it goes on while others write the same run, or what it submits fails at once."""
COMPUTE_S: Final = 5.0
"""So long after a step's beginning no further node is computed: what there is is written, and the next step goes on. With the
expression that each of the steps of a job may then still wait for, one at a time, all end within the limit of their job."""
_TASK_STATES: Final = {
    RunState.COMPLETED: TaskState.COMPLETED,
    RunState.FAILED: TaskState.FAILED,
    RunState.CANCELLED: TaskState.CANCELLED,
}

log = get_logger("jobs")

GoesOn = Callable[[], bool]
"""Whether there is time to compute one more node, see `_time_to_compute`."""


class Look(Struct, frozen=True, kw_only=True):
    """A run as it was read: its document, what it decides on, the tasks of its nodes, the task that shows it."""

    document: Document
    run: Run
    facts: Facts
    views: Mapping[str, Standing]  # by task
    outer: TaskView | None = None


async def advance_run(desk: Desk, run_id: str) -> None:
    """Take a flow run as far as it goes now.

    Raises:
        DocumentChanged: others wrote it all the time; the next step goes on.
        StoreUnavailable: no answer.
    """
    goes_on = _time_to_compute()
    for _ in range(ROUNDS):
        try:
            if await _round(desk, run_id, goes_on):
                return
        except DocumentChanged:
            continue
    raise DocumentChanged


async def _round(desk: Desk, run_id: str, goes_on: GoesOn) -> bool:
    """One look at the run, and what follows from it. Whether nothing more is to be done now."""
    try:
        document, parts = await desk.store.documents.whole(RUN, run_id)
    except NotFound:
        return not await _begin(desk, run_id)
    look = await _look(desk, document, parts)
    if look.run.ended:
        await _close(desk, look)
        return True
    wanted = (
        structs.replace(look.run, cancel=True) if look.outer and look.outer.cancel_requested else look.run
    )
    step = await _decide(desk, look, wanted, look.facts, goes_on)
    revision = document.revision
    if step.run != look.run or step.outputs or step.more:
        revision = await _write(desk, document, step)
    if step.run.ended:
        return False
    if look.outer is not None and look.outer.state is TaskState.QUEUED:
        await desk.store.carried.carry(TaskId(run_id), TaskState.RUNNING)
    facts = structs.replace(look.facts, outputs={**look.facts.outputs, **step.outputs})
    missing = submissions(step.run, facts, look.views.keys())
    failed = {
        one.node.id: failure for one in missing if (failure := await _submit(desk, look, one)) is not None
    }
    if failed:
        after = await _decide(desk, look, step.run, structs.replace(facts, endings=failed), goes_on)
        await _write(desk, structs.replace(document, revision=revision), after)
        return after.more
    # What was submitted while somebody ended the run is found, and cancelled, by the next look. For `step.more` none is
    # needed here: its write has the next step taken.
    return not missing or (await desk.store.documents.get(RUN, run_id)).revision == revision


async def _look(desk: Desk, document: Document, parts: dict[str, str]) -> Look:
    run = records.run_of(document.body)
    nodes = cancelled(run) if run.ended else running(run)
    found, outer = await asyncio.gather(  # in one batch
        desk.store.tasks.standings([TaskId(task_id) for task_id in nodes.values()]),
        desk.store.tasks.read_many([TaskId(document.id)] if run.carried else [], with_logs=False),
    )
    views: dict[str, Standing] = {str(task_id): standing for task_id, standing in found.items()}
    facts = Facts(
        plan=records.plan_of(parts),
        input=msgspec.json.decode(parts[records.INPUT_PART]),
        outputs=records.outputs_of(parts),
        sizes=records.sizes_of(parts),
        endings={name: _ending(views[task]) for name, task in nodes.items() if _has_ended(views.get(task))},
    )
    return Look(document=document, run=run, facts=facts, views=views, outer=outer[0] if outer else None)


def _has_ended(view: Standing | None) -> bool:
    return view is not None and view.state in TERMINAL


def _ending(view: Standing | None) -> Ending:
    assert view is not None  # noqa: S101 - `_has_ended` was asked
    return Ending(state=view.state, output=msgspec.json.decode(view.output), error=view.error)


async def _decide(desk: Desk, look: Look, run: Run, facts: Facts, goes_on: GoesOn) -> Step:
    """In a thread, for it may compute for seconds: the steps of others are in the same loop, and their answers of Redis."""
    return await asyncio.to_thread(
        decide_step, run, facts, _task_ids(desk, look), _now(look.document), goes_on
    )


def _time_to_compute() -> GoesOn:
    """Whether a step has time for one more node; for the first it always has, or one that waited long would get nowhere."""
    end, asked = time.monotonic() + COMPUTE_S, itertools.count()
    return lambda: next(asked) == 0 or time.monotonic() < end


def _task_ids(desk: Desk, look: Look) -> dict[str, str]:
    """Node -> the one id that its task can have."""
    prefix = desk.store.id_prefix
    return {
        node.id: derived_id(RUN, look.document.id, node.id, prefix=prefix) for node in look.facts.plan.nodes
    }


def _now(document: Document) -> int:
    return max(int(time.time() * 1000), document.updated_ms)


async def _write(desk: Desk, document: Document, step: Step) -> int:
    """Store what a step decided. What it took over names files whose tasks may go before the node begins that needs them."""
    parts = {records.node_part(node_id): text for node_id, text in step.texts.items()}
    if step.run.ended:
        parts[records.OUTPUT_PART] = records.dumps(step.output)
        log.info(Event.FLOW_ENDED, run_id=document.id, flow=step.run.name, state=step.run.state.wire_name)
    change = Change(
        body=records.dumps(step.run).encode(),
        parts=parts,
        due_s=DUE_LATER_S,
        wake=step.more,
        keep_s=desk.settings.retention_s if step.run.ended else 0,
    )
    await note_uses(desk.store, list(parts.values()), document_user(RUN, document.id))
    return await desk.store.documents.put(RUN, document.id, document.owner_id, document.revision, change)


async def _submit(desk: Desk, look: Look, wanted: Submission) -> Ending | None:
    """Submit the task of a node; how it failed when it cannot be."""
    call = wanted.node.app
    assert call is not None  # noqa: S101 - only nodes of apps have tasks
    owner = Owner(user_id=look.document.owner_id, key_id=look.run.key_id)
    origin = Origin(
        task_id=wanted.task_id,
        waiter=Waiter(kind=RUN, id=look.document.id, part=wanted.node.id),
        files_url=look.run.files_url,
    )
    try:
        await desk.submitter.submit(_body(call, wanted.input, look.run), owner, origin=origin)
    except CallerError as error:
        # Another step may have submitted it before, when nothing was in the way yet.
        if not await desk.store.tasks.known(TaskId(wanted.task_id)):
            return Ending(state=TaskState.FAILED, error=error.message)
    return None


def _body(call: AppCall, given: dict[str, Any], run: Run) -> RunBody:
    return RunBody(
        app_id=call.app_id,
        version_id=call.version_id,
        function=call.function or None,
        input=given,
        setup=call.setup,
        infra=call.infra if call.infra and call.infra != Infra.CLOUD else Infra.PRIVATE,
        workers=list(call.workers) or None,
        priority=run.priority,
    )


async def _close(desk: Desk, look: Look) -> None:
    """What follows from a run's end: tasks that still run are ended, the task that shows it ends with it.

    A task that is not there may be about to be submitted by another step, which may die before it finds the run ended: the
    run is looked at for a while longer.
    """
    run, run_id = look.run, TaskId(look.document.id)
    for task_id, view in look.views.items():
        if view.state not in TERMINAL:
            await desk.store.tasks.cancel(TaskId(task_id))
    if run.carried:
        output = (await desk.store.documents.parts(RUN, run_id, records.OUTPUT_PART))[records.OUTPUT_PART]
        await note_uses(desk.store, output, run_id)
        failed = run.state is RunState.FAILED
        with contextlib.suppress(NotFound):  # it had ended, and was deleted
            await desk.store.carried.carry(
                run_id,
                _TASK_STATES[run.state],
                output=msgspec.Raw(output.encode()),
                error=run.error if failed else "",
                error_code=records.APP_FAILED if failed else "",
            )
    unborn = len(look.views) < len(cancelled(run))
    if unborn and (now_ms := await desk.store.now_ms()) < look.document.updated_ms + UNBORN_S * 1000:
        await desk.store.documents.look_by(RUN, run_id, now_ms + int(LOOK_UNBORN_S * 1000))
    else:
        await desk.store.documents.rest(RUN, run_id)


async def _begin(desk: Desk, run_id: str) -> bool:
    """Make the run of a task that shows one; False when there is no such task, or it cannot begin."""
    store = desk.store
    try:
        view, owner = (
            await store.tasks.read(TaskId(run_id), with_logs=False),
            await store.tasks.owner(TaskId(run_id)),
        )
    except NotFound:
        view = None
    if view is None or view.request.flow is None or view.state in TERMINAL:
        await store.documents.rest(RUN, run_id)
        return False
    request, flow = view.request, view.request.flow
    part = records.plan_part(flow.version_id)
    stored = (await store.documents.parts(records.FLOW, flow.flow_id, part)).get(part)
    depth = await _depth(desk, request)
    if stored is None or depth > records.MAX_DEPTH:
        error = (
            f"The flow of {request.app} was deleted. Deploy it again."
            if stored is None
            else f"{request.app} is inside of {records.MAX_DEPTH} flows. Does it contain itself?"
        )
        await store.carried.carry(
            TaskId(run_id), TaskState.FAILED, error=error, error_code=records.APP_FAILED
        )
        await store.documents.rest(RUN, run_id)
        return False
    plan = records.loads(stored, Plan)
    run = Run(
        flow_id=flow.flow_id,
        flow_version_id=flow.version_id,
        name=request.app,
        key_id=owner.key_id,
        fail_on_error=plan.fail_on_error,
        carried=True,
        depth=depth,
        files_url=request.files_url,
        priority=(await store.tasks.spec(TaskId(run_id))).priority,
    )
    change = Change(
        body=records.dumps(run).encode(), parts=records.run_parts(plan, request.input), due_s=DUE_LATER_S
    )
    await note_uses(store, list(change.parts.values()), document_user(RUN, run_id))
    await store.documents.put(RUN, run_id, owner.user_id, 0, change)
    return True


async def _depth(desk: Desk, request: TaskRequest) -> int:
    waiter = request.waiter
    if waiter is None or waiter.kind != RUN:
        return 0
    try:
        return records.run_of((await desk.store.documents.get(RUN, waiter.id)).body).depth + 1
    except NotFound:
        return 0
