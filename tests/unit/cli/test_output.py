"""What others wrote is shown as text, and nothing of it reaches the terminal as an order."""

import io

import pytest
from rich.console import Console

from stoker_cli import chat_view, local_apps, output, tasks
from stoker_cli.output import CommandFailed, plain, print_error, print_table, safe
from stoker_cli.task_view import TaskView
from stoker_cli.up import command, greeting
from stoker_cli.up.greeting import Greeting

pytestmark = pytest.mark.unit

EVIL = "a\x1b]52;c;bHM=\x07b\x1b[2J\x1b[1;31mc\x9b2Jd\r\x08\u202ee"
SHOWN = "a]52;c;bHM=bc2Jde"


@pytest.fixture
def terminal(monkeypatch):
    text = io.StringIO()
    console = Console(file=text, width=200, no_color=True, highlight=False)
    for module in (output, tasks, local_apps, greeting):
        monkeypatch.setattr(module, "out", console)
    for module in (output, command):
        monkeypatch.setattr(module, "err", console)
    return console, text


def test_a_text_loses_what_a_terminal_would_act_upon_and_keeps_lines_tabs_and_letters():
    assert plain(EVIL) == SHOWN
    assert plain("Grüße\t✓\n日本 👩‍🔬") == "Grüße\t✓\n日本 👩‍🔬"


def test_a_sequence_within_a_sequence_leaves_no_third():
    assert "\x1b" not in plain("\x1b\x1b[0m[2J\x1b[\x1b[0m2J")


def test_markup_of_others_is_text():
    assert Console(width=80).render_str(safe("\x1b[31m[bold]x[/] [1/3]")).plain == "[bold]x[/] [1/3]"


def test_a_log_line_on_the_terminal_is_only_text(terminal):
    console, text = terminal
    TaskView(console).update({"status": 7, "logs": [{"id": "1", "log_type": 1, "content": EVIL}]})
    tasks._print_line({"log_type": 1, "content": EVIL})
    assert text.getvalue().count(f"run | {SHOWN}\n") == 2


def test_the_error_of_a_task_and_of_a_command_is_only_text(terminal):
    console, text = terminal
    TaskView(console).finish({"status": 11, "error": EVIL})
    print_error(CommandFailed(EVIL, hint=EVIL))
    assert text.getvalue() == f"failed: {SHOWN}\nerror: {SHOWN}\n{SHOWN}\n"


def test_the_title_and_a_cell_of_a_table_are_only_text(terminal):
    _, text = terminal
    print_table(f"[red]{EVIL}", ("name",), [(f"a-longer-{EVIL}",)], empty="none")
    assert text.getvalue().split() == [f"[red]{SHOWN}", "name", f"a-longer-{SHOWN}"]


def test_words_of_a_model_and_results_of_tools_are_only_text(terminal):
    console, text = terminal
    view = chat_view.ChatView(console)
    view.take("delta", {"resource_id": "m", "delta": {"response": EVIL + "\n"}})
    function = {"name": EVIL, "arguments": {}}
    call = {"id": "k", "status": "completed", "function": function, "result": EVIL}
    message = {"id": "m", "role": "assistant", "status": "pending", "tool_invocations": [call]}
    view.take("chat_messages", message)
    assert text.getvalue().splitlines() == [SHOWN, f"{SHOWN} {{}}", f"{SHOWN} completed {SHOWN[:-1]} e"]


def test_what_up_shows_of_parts_builds_and_failures_is_only_text(terminal):
    _, text = terminal
    command.print_warning("worker", {"event": EVIL, "level": "warning", "reason": EVIL})
    greet = Greeting(None, None, [], json=False)
    greet._line(EVIL)
    greet._failed(EVIL, CommandFailed(EVIL, hint=EVIL))
    assert text.getvalue().splitlines() == [
        f"worker {SHOWN} reason={SHOWN}",
        f"  {SHOWN}",
        f"{SHOWN} failed: {SHOWN} {SHOWN}",
    ]


@pytest.mark.parametrize("console", [output.out, output.err])
def test_the_name_of_an_emoji_stays_the_text_that_it_is(console):
    assert console.render_str(safe("a:x:b")).plain == "a:x:b"


def test_a_cell_may_hold_any_value(terminal):
    _, text = terminal
    print_table("", ("type", "more"), [(["string", "null"], None), ({}, ""), (0, False)], empty="none")
    rows = [line.split() for line in text.getvalue().splitlines()[1:]]
    assert rows == [["['string',", "'null']", "-"], ["{}", "-"], ["0", "False"]]
