import io

import pytest
from rich.console import Console

from stoker_cli.chat_view import ChatView

pytestmark = pytest.mark.unit


@pytest.fixture
def shown():
    return io.StringIO()


@pytest.fixture
def view(shown):
    return ChatView(Console(file=shown, width=200, highlight=False))


def message(status, text="", *calls):
    content = [{"type": "text", "text": text}] if text else []
    return {
        "id": "c-1",
        "role": "assistant",
        "status": status,
        "content": content,
        "tool_invocations": [
            {
                "id": call,
                "status": state,
                "result": result,
                "function": {"name": "add", "arguments": {"a": 1}},
            }
            for call, state, result in calls
        ],
    }


def test_words_are_shown_once_as_they_come_and_the_rest_when_the_answer_is_whole(view, shown):
    for text in ("Hel", "lo"):
        view.take("delta", {"resource_id": "c-1", "delta": {"response": text}})
    view.take("chat_messages", message("pending", "Hello"))
    view.take("chat_messages", message("ready", "Hello [bold]you"))
    view.take("chat_messages", message("ready", "Hello [bold]you"))
    view.take("chats", {"status": "idle", "active_run": {"error": None}})
    assert shown.getvalue() == "Hello [bold]you\n"
    assert view.idle


def test_calls_of_tools_and_what_waits_for_the_person(view, shown):
    view.take("chat_messages", message("ready", "", ("k", "awaiting_approval", None)))
    assert list(view.questions) == ["k"]
    view.show_whole("add", view.questions["k"])
    view.take("chat_messages", message("ready", "", ("k", "in_progress", None)))
    assert view.questions == {}
    view.take("chat_messages", message("ready", "", ("k", "completed", "3")))
    assert shown.getvalue().splitlines() == ["add {'a': 1}", "add completed 3"]


def test_why_a_run_failed(view):
    view.take("chats", {"status": "idle", "active_run": {"error": "out of memory"}})
    assert view.error == "out of memory"
