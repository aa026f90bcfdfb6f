"""Each state and each log line of a task is shown once."""

import io

import pytest
from rich.console import Console

from stoker_cli.output import ExitCode
from stoker_cli.task_view import TaskView, exit_code, new_lines


@pytest.fixture
def shown():
    text = io.StringIO()
    return TaskView(Console(file=text, width=200, no_color=True, highlight=False)), text


def event(status, second):
    return {"status": status, "event_time": f"2026-01-01T00:00:{second:06.3f}Z"}


def line(number, content):
    return {"id": str(number), "log_type": 1, "content": content}


def test_states_are_shown_once_with_the_time_since_the_first(shown):
    view, text = shown
    view.update({"status": 2, "events": [event(1, 0), event(2, 0)]})
    view.update({"status": 7, "events": [event(1, 0), event(2, 0), event(3, 0.25), event(7, 1.5)]})
    view.update({"status": 7, "events": [event(1, 0), event(2, 0), event(3, 0.25), event(7, 1.5)]})
    lines = [words.split() for words in text.getvalue().splitlines()]
    assert [words[0] for words in lines] == ["received", "queued", "scheduled", "running"]
    assert lines[-1][1] == "1.500"


def test_a_task_without_events_shows_its_state(shown):
    view, text = shown
    view.update({"status": 10})
    assert text.getvalue().split()[0] == "completed"


def test_log_lines_are_shown_once_also_when_old_ones_are_left_out(shown):
    view, text = shown
    view.update({"status": 7, "logs": [line(1, "one"), line(2, "two")]})
    view.update({"status": 7, "logs": [line(2, "two"), line(3, "three")]})
    rows = [row.split()[-1] for row in text.getvalue().splitlines() if "|" in row]
    assert rows == ["one", "two", "three"]


def test_states_and_log_lines_are_shown_in_the_order_of_their_times(shown):
    view, text = shown
    early = line(1, "early") | {"created_at": "2026-01-01T00:00:01.000Z"}
    view.update({"status": 10, "events": [event(7, 0), event(10, 2)], "logs": [early]})
    assert [row.split()[0] for row in text.getvalue().splitlines()] == ["running", "run", "completed"]


def test_brackets_in_a_log_are_text_and_no_markup(shown):
    view, text = shown
    view.update({"status": 7, "logs": [line(1, "[bold]x[/] [1/3]")]})
    assert "[bold]x[/] [1/3]" in text.getvalue()


def test_the_reason_for_waiting_is_shown_when_it_changes(shown):
    view, text = shown
    for reason in ("no worker", "no worker", "waits for gpubox-gpu-0"):
        view.update({"status": 2, "queue_reason": reason})
    assert text.getvalue().count("no worker") == 1
    assert "waits for gpubox-gpu-0" in text.getvalue()


def test_the_error_of_a_failed_task_is_shown(shown):
    view, text = shown
    view.finish({"status": 11, "error": "no face in the picture"})
    assert "no face in the picture" in text.getvalue()


def test_new_lines_are_those_after_the_last_one():
    lines = [line(n, str(n)) for n in (4, 5, 6)]
    assert new_lines(lines, "5") == lines[2:]
    assert new_lines(lines, "6") == []
    assert new_lines(lines, "1") == lines


@pytest.mark.parametrize(
    ("status", "code"), [(10, ExitCode.OK), (11, ExitCode.FAILED), (12, ExitCode.CANCELLED)]
)
def test_the_exit_status_says_how_the_task_ended(status, code):
    assert exit_code({"status": status}) is code
