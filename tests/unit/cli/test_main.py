"""The assembly of the sub-commands."""

import json
import re
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from stoker_cli import main
from stoker_cli.main import COMMANDS, app
from stoker_cli.output import CommandFailed, ExitCode


@pytest.mark.parametrize("name", COMMANDS)
def test_every_sub_command_has_a_help_page(name):
    answer = CliRunner().invoke(app, [name, "--help"])
    assert answer.exit_code == 0, answer.output
    assert f"stoker {name}" in answer.output


@pytest.mark.parametrize("name", COMMANDS)
def test_the_first_help_page_names_every_sub_command(name):
    assert re.search(rf"^\W*{name} ", CliRunner().invoke(app, ["--help"]).output, re.MULTILINE)


def test_an_unknown_sub_command_is_a_wrong_request():
    answer = CliRunner().invoke(app, ["nonsense"])
    assert answer.exit_code == 2
    assert "No such command 'nonsense'" in answer.output


def test_a_sub_command_does_not_import_what_the_others_need():
    """A start would be twice as long; the reason of `COMMANDS` being names."""
    program = (
        "import sys\n"
        "from typer.testing import CliRunner\n"
        "from stoker_cli.main import app\n"
        "assert CliRunner().invoke(app, ['tasks', '--help']).exit_code == 0\n"
        "parts = ('stoker_worker', 'stoker_gateway', 'litestar', 'redis')\n"
        "print(sorted(set(parts) & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [(CommandFailed("no luck", ExitCode.DENIED), 4), (OSError("no luck"), 1)],
)
def test_an_error_is_json_where_json_was_asked_for(monkeypatch, capsys, error, code):
    def fail():
        raise error

    monkeypatch.setattr(main, "app", fail)
    monkeypatch.setattr(sys, "argv", ["stoker", "apps", "list", "--json"])
    with pytest.raises(SystemExit) as ended:
        main.main()
    assert ended.value.code == code
    printed = capsys.readouterr()
    assert json.loads(printed.out) == {"error": {"code": "command_failed", "message": "no luck"}}
    assert "error: no luck" in printed.err
