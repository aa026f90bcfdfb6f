"""What `stoker run` makes of its options."""

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from stoker_cli.main import app
from stoker_cli.options import with_options
from stoker_cli.output import CommandFailed
from stoker_cli.run import RunOptions, parse_run_at

pytestmark = pytest.mark.unit

NOW_S = 1000.0


@dataclass(kw_only=True)
class Group:
    colour: Annotated[str, typer.Option(help="Which colour.")] = "red"
    size: Annotated[list[int] | None, typer.Option("--size", "-n", help="Which sizes.")] = None


@pytest.fixture
def ran():
    """A function that runs a command with grouped options; what the command got, or its exit status."""
    got = []

    @with_options
    def paint(what: Annotated[str, typer.Argument()], options: Group, fast: bool = False) -> None:
        """Paint it."""
        got.append((what, options, fast))

    def run(*arguments):
        alone = typer.Typer(add_completion=False)
        alone.command()(paint)
        answer = CliRunner().invoke(alone, arguments)
        return got.pop() if got else (answer.exit_code, answer.output)

    return run


def test_each_field_of_a_group_is_an_option(ran):
    assert ran("door") == ("door", Group(), False)
    assert ran("door", "--colour", "blue", "-n", "1", "--size", "2", "--fast") == (
        "door",
        Group(colour="blue", size=[1, 2]),
        True,
    )
    assert ran("door", "--size", "large")[0] == 2
    status, page = ran("--help")
    assert status == 0
    assert "Which colour." in page
    assert "Paint it." in page


def test_a_run_names_what_was_asked_for_and_nothing_else():
    assert RunOptions().body("a/b", NOW_S) == {"app": "a/b", "infra": "private"}
    options = RunOptions(
        function="f", worker=["w"], session="new:30", run_at="+1m", webhook="https://a.example/"
    )
    assert options.body("a/b", NOW_S) == {
        "app": "a/b",
        "infra": "private",
        "function": "f",
        "workers": ["w"],
        "session": "new",
        "session_timeout": 30,
        "run_at": 1060.0,
        "webhook": "https://a.example/",
    }


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        ("+30s", 1030.0),
        ("+10m", 1600.0),
        ("+2h", 8200.0),
        ("+1d", 87_400.0),
        ("1700000000", 1_700_000_000.0),
        ("2030-01-31T12:00:00Z", "2030-01-31T12:00:00Z"),
        ("tomorrow", "tomorrow"),
    ],
)
def test_a_time_is_from_now_or_as_it_was_said(text, expected):
    assert parse_run_at(text, NOW_S) == expected


@pytest.mark.parametrize("text", ["+", "+m", "+1", "+1w", "+-1m", "+1.5h", "+9999999999d"])
def test_a_span_that_is_none_is_refused_with_those_that_are(text):
    with pytest.raises(CommandFailed, match="is not understood"):
        parse_run_at(text, NOW_S)


def test_the_help_page_of_run_has_all_of_them():
    page = CliRunner().invoke(app, ["run", "--help"], env={"COLUMNS": "200"}).output
    for option in ("--input", "--setup", "--function", "--worker", "--session", "--run-at", "--webhook"):
        assert option in page
