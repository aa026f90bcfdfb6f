"""`stoker chat` at the prompt, and where a chat waits for a person."""

import asyncio
import os
import pty
import select
import signal
import subprocess
import sys

import msgspec
import pytest

from stoker_cli import chat, chat_streams
from stoker_cli.answers import ApiError
from stoker_cli.chat import Talk
from stoker_cli.output import ExitCode
from stoker_cli.typed_lines import TypedLines

pytestmark = pytest.mark.unit


@pytest.fixture
def pipe():
    """Lines, and the end that they are written to."""
    reads, writes = os.pipe()
    with os.fdopen(reads) as source, os.fdopen(writes, "wb", buffering=0) as target:
        yield TypedLines(source), target


async def test_lines_come_one_by_one_and_the_last_may_lack_its_end(pipe):
    lines, target = pipe
    target.write("Grüße\ntwo\nlast".encode())
    target.close()
    assert [await lines.ask("") for _ in range(3)] == ["Grüße", "two", "last"]
    with pytest.raises(EOFError):
        await lines.ask("")


async def test_lines_of_a_file_are_read(tmp_path):
    (tmp_path / "said").write_text("one\ntwo\n")
    with (tmp_path / "said").open() as source:
        lines = TypedLines(source)
        assert [await lines.ask(""), await lines.ask("")] == ["one", "two"]


async def test_a_wait_that_was_cancelled_takes_no_line(pipe):
    lines, target = pipe
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await lines.ask("")
    target.write(b"later\n")
    assert await lines.ask("") == "later"


async def test_the_question_is_shown_as_text(pipe, capsys):
    lines, target = pipe
    target.write(b"y\n")
    await lines.ask("Allow [bold]rm :x: [/]? [y/N] ")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", "Allow [bold]rm :x: [/]? [y/N] ")


@pytest.mark.parametrize(("typed", "verb"), [(b"y\n", "invoke"), (b"n\n", "reject"), (b"", "reject")])
async def test_a_call_is_made_only_when_it_is_allowed(pipe, typed, verb):
    class Asked:
        async def post(self, path, body):
            self.path = path

    api = Asked()
    talk = Talk(api, {"chat_id": "c"}, quiet=False)
    talk.lines, target = pipe
    target.write(typed)
    target.close()
    function = {"name": "rm", "arguments": {}}
    talk.view.questions["k"] = {"status": "awaiting_approval", "function": function}
    await talk._ask()
    assert api.path == f"/tools/k/{verb}"


def test_an_interrupt_at_the_prompt_ends_the_command():
    ours, theirs = pty.openpty()
    env = os.environ | {"STOKER_URL": "http://127.0.0.1:9", "STOKER_API_KEY": "key"}
    # A shell has what it runs behind it ignore the signal.
    heeding = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
        "from stoker_cli.__main__ import start; start()"
    )
    command = [sys.executable, "-c", heeding, "chat", "a/b"]
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=env) as process:
        os.close(theirs)
        try:
            shown = b""
            while b"> " not in shown:
                assert select.select([ours], [], [], 30)[0], shown
                shown += os.read(ours, 1000)
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) == 130
        finally:
            process.kill()
            os.close(ours)


class Api:
    """A gateway whose chat has these events, and then nothing more: who reads on fails.

    `agents` are the events of the chats that work for it; while there are such, the chat goes on with what is posted.
    """

    def __init__(self, *events, **agents):
        self.events = {"/chats/c/stream": events} | {f"/chats/{k}/stream": v for k, v in agents.items()}
        self.posted = asyncio.Queue()
        self.paths = []

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    async def post(self, path, body=None):
        self.paths.append(path)
        if path.startswith("/tools/"):
            self.posted.put_nowait(path)
        return {"assistant_message": {"chat_id": "c"}}

    async def get(self, path):
        return {"id": "c"}

    async def following(self, path):
        for event in self.events[path]:
            if isinstance(event, ApiError):
                self.events[path] = self.events[path][1:]
                raise event
            yield event
        if path == "/chats/c/stream" and len(self.events) > 1:
            await self.posted.get()
            yield turn(helper="completed")
            yield IDLE
        elif path != "/chats/c/stream":
            await asyncio.Event().wait()
        raise AssertionError("the chat was followed on")


def turn(**calls):
    data = {"id": "m", "role": "assistant", "status": "ready", "content": []}
    data["tool_invocations"] = [
        {"id": name, "status": status, "function": {"name": name, "arguments": {"a": 1}}}
        for name, status in calls.items()
    ]
    return {"event": "chat_messages", "data": data}


def asks(**chats):
    """A turn that waits for agents: tool -> chat."""
    made = turn(**dict.fromkeys(chats, "in_progress"))
    for call in made["data"]["tool_invocations"]:
        call |= {"type": "agent", "execution_id": chats[call["id"]]}
    return made


IDLE = {"event": "chats", "data": {"status": "idle", "active_run": {}}}
NOT_BEGUN = ApiError(404, "not_found", "Chat not found")


@pytest.mark.parametrize(
    ("events", "code", "names"),
    [
        ([turn(rm="awaiting_approval")], ExitCode.FAILED, ["rm"]),
        ([turn(mine="awaiting_input")], ExitCode.FAILED, ["mine"]),
        (
            [turn(rm="awaiting_approval", add="in_progress"), turn(rm="awaiting_approval", add="completed")],
            ExitCode.FAILED,
            ["rm"],
        ),
        ([turn(add="in_progress"), turn(add="completed"), IDLE], ExitCode.OK, []),
    ],
    ids=["approval", "a result", "one of two", "none"],
)
async def test_a_chat_for_programs_ends_when_it_waits_for_a_person(monkeypatch, capsys, events, code, names):
    monkeypatch.setattr(chat, "connected", lambda: Api(*events))
    assert await chat._chat({"agent": "a/b"}, "hello", json=True) is code
    shown = capsys.readouterr()
    printed = msgspec.json.decode(shown.out)
    assert printed["id"] == "c"
    assert [call["function"]["name"] for call in printed["open_calls"]] == names
    assert all(name in shown.err for name in names)


@pytest.mark.parametrize("before", [[], ["pending"]], ids=["at once", "after it was told"])
async def test_who_is_asked_sees_all_arguments_just_before_the_question(capsys, before):
    events = [turn(**dict.fromkeys("xy", status)) for status in (*before, "awaiting_approval")]
    for event in events:
        for call in event["data"]["tool_invocations"]:
            call["function"] = {"name": "sh", "arguments": {"run": f"{'a  ' * 200}; {call['id']}!"}}
    talk = Talk(Api(*events, IDLE), {"agent": "a/b"}, quiet=False)
    asked = []

    async def ask(question):
        asked.append((capsys.readouterr().out.splitlines()[-1], question))
        return ""

    talk.lines.ask = ask
    await talk.say("hello")
    expected = [f"sh {{'run': '{'a  ' * 200}; {name}!'}}" for name in "xy"]
    assert asked == [(line, "Allow sh? [y/N] ") for line in expected]


@pytest.mark.parametrize(
    ("events", "agents", "names"),
    [
        ([asks(helper="k")], {"k": [turn(rm="awaiting_approval")]}, {"rm": "rm for helper"}),
        (
            [asks(helper="k")],
            {"k": [asks(inner="l")], "l": [NOT_BEGUN, turn(rm="awaiting_approval")]},
            {"rm": "rm for helper/inner"},
        ),
        (
            [asks(one="k", two="l")],
            {
                "k": [turn(rm="awaiting_approval")],
                "l": [turn(add="in_progress"), turn(mine="awaiting_input")],
            },
            {"rm": "rm for one", "mine": "mine for two"},
        ),
    ],
    ids=["an agent's", "an agent's agent's, which has not begun", "two agents'"],
)
async def test_a_chat_for_programs_tells_which_calls_of_its_agents_wait(
    monkeypatch, capsys, events, agents, names
):
    monkeypatch.setattr(chat_streams, "RECONNECT_DELAY_S", 0)
    monkeypatch.setattr(chat, "connected", lambda: Api(*events, **agents))
    async with asyncio.timeout(60):
        assert await chat._chat({"agent": "a/b"}, "hello", json=True) is ExitCode.FAILED
    shown = capsys.readouterr()
    assert {call["id"] for call in msgspec.json.decode(shown.out)["open_calls"]} == set(names)
    assert all(name in shown.err for name in names.values())


async def test_who_is_asked_for_a_call_of_an_agent_sees_whose_it_is(capsys):
    api = Api(asks(helper="k"), k=[turn(rm="awaiting_approval")])
    talk = Talk(api, {"agent": "a/b"}, quiet=False)
    asked = []

    async def ask(question):
        asked.append((capsys.readouterr().out.splitlines()[-1], question))
        return "y"

    talk.lines.ask = ask
    async with asyncio.timeout(60):
        await talk.say("hello")
    assert asked == [("rm for helper {'a': 1}", "Allow rm for helper? [y/N] ")]
    assert api.paths == ["/agents/run", "/tools/rm/invoke"]
    assert talk.view.idle
