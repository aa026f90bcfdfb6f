"""A stream that is followed goes on while the gateway is away for a moment, and ends as unreachable after that."""

import httpx
import msgspec
import pytest

from stoker_cli import api as api_module
from stoker_cli.answers import ApiError
from stoker_cli.api import RECONNECTS, Api
from stoker_cli.chat import Talk
from stoker_cli.output import CommandFailed, ExitCode

pytestmark = pytest.mark.unit

RUNNING = {"id": "t", "status": 7}
DONE = {"id": "t", "status": 10}


class Gateway:
    """Answers each request with the next of `answers`: a status, or the events before the stream ends."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.asked = []

    def __call__(self, request):
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        if isinstance(answer, int):
            return httpx.Response(answer, json={"detail": "away"})
        if isinstance(answer, dict):
            return httpx.Response(200, json=answer)
        return httpx.Response(200, content=b"".join(msgspec.json.encode(each) + b"\n" for each in answer))


@pytest.fixture
def connect(monkeypatch):
    monkeypatch.setattr(api_module, "RECONNECT_DELAY_S", 0)

    def connect(gateway):
        api = Api("http://gateway", "key")
        monkeypatch.setattr(
            api, "_http", httpx.AsyncClient(base_url=api.url, transport=httpx.MockTransport(gateway))
        )
        return api

    return connect


@pytest.mark.parametrize("away", [502, 503, 504, httpx.ConnectError("refused")])
async def test_a_task_is_followed_on_when_the_gateway_was_away(connect, away):
    async with connect(Gateway([RUNNING], away, away, [RUNNING, DONE])) as api:
        assert [task async for task in api.watch("t")] == [RUNNING, RUNNING, DONE]


async def test_each_event_gives_all_the_tries_back(connect):
    answers = [answer for _ in range(3) for answer in ([RUNNING], *[503] * (RECONNECTS - 1))]
    async with connect(Gateway(*answers, [DONE])) as api:
        assert [task async for task in api.watch("t")] == [RUNNING, RUNNING, RUNNING, DONE]


@pytest.mark.parametrize("follow", ["watch", "watch_run", "log_lines"])
async def test_a_gateway_that_stays_away_is_unreachable(connect, follow):
    gateway = Gateway(*[503] * (RECONNECTS + 2))
    async with connect(gateway) as api:
        with pytest.raises(CommandFailed, match="goes on") as failed:
            _ = [event async for event in getattr(api, follow)("t")]
    assert failed.value.exit_code is ExitCode.UNREACHABLE
    assert len(gateway.asked) >= RECONNECTS + 1


async def test_a_refusal_is_told_at_once(connect):
    gateway = Gateway(404)
    async with connect(gateway) as api:
        with pytest.raises(ApiError):
            _ = [task async for task in api.watch("t")]
    assert len(gateway.asked) == 1


async def test_a_log_is_taken_up_after_its_last_line(connect):
    gateway = Gateway([{"id": "t-5-0", "content": "one"}], 502, [{"type": "end"}])
    async with connect(gateway) as api:
        assert [line["content"] async for line in api.log_lines("t")] == ["one"]
    assert [request.url.params.get("cursor") for request in gateway.asked] == [None, "5-0", "5-0"]


async def test_a_chat_is_followed_on_when_the_gateway_was_away(connect):
    idle = {"event": "chats", "data": {"status": "idle", "active_run": {}}}
    gateway = Gateway({}, [{"event": "chats", "data": {"status": "busy"}}], 503, [idle])
    async with connect(gateway) as api:
        talk = Talk(api, {"chat_id": "c"}, quiet=True)
        await talk.say("hello")
    assert talk.view.idle
    assert gateway.answers == []
