"""The OpenAI-compatible door: every app that keeps the LLM contract as a model of that dialect.

A completion is an ordinary task of the app. Who hangs up cancels it.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any, Final

import msgspec
from litestar import Response, get, post
from litestar.params import Body
from litestar.response import Stream
from msgspec import Struct

from stoker.core.apps import App, AppVersion
from stoker.core.errors import InvalidRequest, ModelFailed, ModelNotFound, NoCapacity, NotFound, StokerError
from stoker.core.messages import TaskView
from stoker.core.scopes import Scope
from stoker.core.states import TaskState
from stoker.llm.contract import llm_function, read_output
from stoker.protocol.task_hash import Standing
from stoker.runs.registry import listed
from stoker.runs.submit import RunBody
from stoker_gateway.access import needs
from stoker_gateway.answer_feed import AnswerFeed, Quiet
from stoker_gateway.door import caller_of
from stoker_gateway.openai_answer import DONE, Completion, error_body
from stoker_gateway.openai_request import ChatRequest, llm_input
from stoker_gateway.routes.tasks import STREAM_HEADERS
from stoker_gateway.services import JSON, Answer, AnyRequest, Services, services_of
from stoker_gateway.streams import HEARTBEAT_COMMENT, SSE, StreamCut

COMPLETIONS: Final = ["/models/openai/chat/completions", "/chat/completions"]
MODELS: Final = ["/models/openai/models", "/models"]
"""Each also below /v1, which the door takes away."""

_encode = msgspec.json.Encoder().encode
_hung_up: set[asyncio.Task[TaskState]] = set()


class Completing(Struct, frozen=True, kw_only=True):
    """A completion on its way."""

    services: Services
    task: TaskView
    said: Completion
    model: str
    wants_usage: bool

    def feed(self) -> AnswerFeed:
        services = self.services
        return AnswerFeed(services.store, services.hub, services.settings.heartbeat_s, self.task.request.id)

    def hang_up(self) -> None:
        """Cancel the task: nobody waits for it any more. Does not wait, for the request is being torn down."""
        grace_ms = int(self.services.settings.cancel_grace_s * 1000)
        ending = asyncio.ensure_future(
            self.services.store.tasks.cancel(self.task.request.id, grace_ms=grace_ms)
        )
        _hung_up.add(ending)
        ending.add_done_callback(_forget)


def _forget(ending: "asyncio.Task[TaskState]") -> None:
    _hung_up.discard(ending)
    if not ending.cancelled():
        ending.exception()  # the task was deleted, or Redis went away: it ends by its own limits


@post(COMPLETIONS, status_code=200, tags=["models"], summary="Complete a chat, as OpenAI's API does")
async def complete(
    request: AnyRequest, data: Annotated[ChatRequest, Body(description="OpenAI's request")]
) -> Answer | Stream:
    """Run a language model's app on a conversation; `model` is the app's reference.

    With `stream` the answer comes as server-sent events. Tools, structured output, pictures and files are passed
    on; what no app could honour is refused by its name. `setup`, `workers` and `priority` may be given as in a run.
    """
    services, owner = services_of(request), caller_of(request).owner
    body = await run_body(services, data, owner.user_id)
    task, _ = await services.submitter.submit(body, owner)
    running = Completing(
        services=services,
        task=task,
        said=Completion(task.request.id, data.model, int(time.time())),
        model=data.model,
        wants_usage=data.wants_usage,
    )
    if data.stream:
        return Stream(streamed(running), media_type=SSE, headers=STREAM_HEADERS)
    return await whole(request, running)


async def run_body(services: Services, data: ChatRequest, user_id: str) -> RunBody:
    """The run that answers a request.

    Raises:
        InvalidRequest: a parameter is refused, or the app is no language model.
        ModelNotFound: no such app for this user.
    """
    try:
        _, app, version = await services.registry.resolve(data.model, user_id)
    except (NotFound, InvalidRequest) as error:
        raise ModelNotFound(f"The model {data.model!r} does not exist. {error.message}") from error
    function = llm_function(version)
    if function is None:
        raise InvalidRequest(
            f"{app.namespace}/{app.name} is no language model: its default function does not take text and context "
            "and give a response. GET /models lists those that do."
        )
    return RunBody(
        app=data.model,
        function=function.name,
        input=llm_input(data, function),
        setup=data.setup,
        infra="private",
        workers=data.workers,
        priority=data.priority,
    )


async def whole(request: AnyRequest, running: Completing) -> Answer:
    """Wait for the end, unless the client hangs up. A task that is not followed to its end is cancelled."""
    ending = asyncio.create_task(_ended(running))
    gone = asyncio.create_task(_disconnected(request))
    end: Standing | None = None
    try:
        await asyncio.wait({ending, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not ending.done():
            return Response(content=b"", status_code=499)
        end = await ending
    except StreamCut as error:
        raise NoCapacity("The answer could not be followed to its end. Ask again.") from error
    finally:
        for task in (ending, gone):
            task.cancel()
        if end is None:
            running.hang_up()
    body = running.said.whole(read_output(checked(running, end)))
    return Response(content=bytes(_encode(body)), media_type=JSON, status_code=200)


async def streamed(running: Completing) -> AsyncIterator[bytes]:
    """The chunks of an answer, as they come."""
    said, feed = running.said, running.feed()
    ended = False
    try:
        yield event(said.first())
        async with contextlib.aclosing(feed.parts()) as parts:
            async for part in parts:
                if isinstance(part, Quiet):
                    yield HEARTBEAT_COMMENT
                elif not isinstance(part, Standing):
                    if chunk := said.part(part):
                        yield event(chunk)
                else:
                    ended = True
                    for chunk in _last_chunks(running, part, contradicted=feed.contradicts(part)):
                        yield event(chunk)
        if not ended:
            yield event(error_body(NotFound("The task of this answer was deleted")))
        yield DONE
    finally:
        if not ended:
            running.hang_up()


def _last_chunks(running: Completing, end: Standing, *, contradicted: bool) -> list[dict[str, Any]]:
    try:
        output = read_output(checked(running, end))
        if contradicted:
            raise ModelFailed("The worker was lost, and another attempt answered otherwise. Ask again.")
    except StokerError as error:
        return [error_body(error, end.error_code)]
    return [running.said.last(output), *([running.said.usage(output)] if running.wants_usage else ())]


def checked(running: Completing, end: Standing) -> bytes:
    """The output of a task that ended well.

    Raises:
        ModelFailed: the app's own failure, or somebody cancelled it.
    """
    task_id = running.task.request.id
    if end.state is TaskState.COMPLETED:
        return end.output
    if end.state is TaskState.CANCELLED:
        raise ModelFailed(f"The task {task_id} of this answer was cancelled")
    raise ModelFailed(f"{running.model}: {end.error or 'failed'} (task {task_id})")


@get(MODELS, tags=["models"], summary="List models, as OpenAI's API does")
async def list_models(request: AnyRequest) -> Answer:
    """Every app that the caller may run and that keeps the LLM contract."""
    services, user_id = services_of(request), caller_of(request).owner.user_id
    apps = [app for app in await services.store.catalog.list_apps() if listed(app, user_id)]
    found = await asyncio.gather(*(_model(services, app, user_id) for app in apps))
    body = {"object": "list", "data": [model for model in found if model]}
    return Response(content=bytes(_encode(body)), media_type=JSON, status_code=200)


@get([f"{path}/{{model:path}}" for path in MODELS], tags=["models"], summary="Read a model")
async def read_model(request: AnyRequest, model: str) -> Answer:
    """One of them."""
    services, user_id = services_of(request), caller_of(request).owner.user_id
    name = model.strip("/")
    try:
        _, app, version = await services.registry.resolve(name, user_id)
    except (NotFound, InvalidRequest) as error:
        raise ModelNotFound(f"The model {name!r} does not exist. {error.message}") from error
    if llm_function(version) is None:
        raise ModelNotFound(f"The model {name!r} does not exist: the app of that name is no language model.")
    return Response(content=bytes(_encode(model_dto(app, version))), media_type=JSON, status_code=200)


async def _model(services: Services, app: App, user_id: str) -> dict[str, Any] | None:
    try:
        _, _, version = await services.registry.resolve(f"{app.namespace}/{app.name}", user_id)
    except (NotFound, InvalidRequest):
        return None  # it has no version, or went away meanwhile
    return model_dto(app, version) if llm_function(version) else None


def model_dto(app: App, version: AppVersion) -> dict[str, Any]:
    """An app as a model of the dialect."""
    return {
        "id": f"{app.namespace}/{app.name}",
        "object": "model",
        "created": version.created_ms // 1000,
        "owned_by": app.namespace,
    }


def event(body: dict[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: %b\n\n" % _encode(body)


async def _ended(running: Completing) -> Standing:
    async with contextlib.aclosing(running.feed().parts()) as parts:
        async for part in parts:
            if isinstance(part, Standing):
                return part
    raise NotFound("The task of this answer was deleted")


async def _disconnected(request: AnyRequest) -> None:
    """Return when the client has hung up."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


ROUTES = [*needs(Scope.APPS_EXECUTE, complete), *needs(Scope.APPS_READ, list_models, read_model)]
