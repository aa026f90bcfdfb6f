"""The README and the guide to a first app, done as they say: only the address and the home are others."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from clients.sdks import JS_DIR, install_js, python_with
from helpers import EXAMPLES, ROOT, environment

pytestmark = pytest.mark.timeout(240)  # the command line's part runs the OCR app

README = ROOT / "README.md"
GUIDE = EXAMPLES / "README.md"
DOCUMENTED_URL = "http://127.0.0.1:8787"


def snippet(page, heading, language):
    """The first block of that language below a heading."""
    text = page.read_text()
    section = text[text.index(f"# {heading}\n") :]
    found = re.search(rf"^```{language}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)
    assert found, f"no {language} block below {heading!r} in {page.name}"
    return found[1]


@pytest.fixture(scope="module")
def home(system_with_ocr, tmp_path_factory):
    """A home directory in which the system has its data where it has it by default."""
    folder = tmp_path_factory.mktemp("home")
    data_dir = folder / ".local" / "share" / "stoker"
    data_dir.parent.mkdir(parents=True)
    data_dir.symlink_to(system_with_ocr.data_dir, target_is_directory=True)
    return folder


@pytest.fixture
def do(system_with_ocr, home):
    """Run a command with that home; what it printed."""

    def run(command, cwd, **env):
        extra = {"HOME": str(home), **env}
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment(**extra),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr + system_with_ocr.complaints()
        return done.stdout

    return run


def test_python_as_written(do, system_with_ocr, tmp_path):
    code = snippet(README, "Python", "python").replace(DOCUMENTED_URL, system_with_ocr.base_url)
    out = do([str(python_with("0.36.0")), "-c", code], tmp_path)
    assert out.startswith("{'message': 'hello'}\n")
    assert "10 {'lines': 4, 'total': 4, 'done': True}" in out


def test_javascript_as_written(do, system_with_ocr, tmp_path):
    install_js()
    (tmp_path / "node_modules").symlink_to(JS_DIR / "node_modules", target_is_directory=True)
    code = snippet(README, "JavaScript", "ts").replace(DOCUMENTED_URL, system_with_ocr.base_url)
    (tmp_path / "first.mts").write_text(code)
    out = do(["npx", "tsx", "first.mts"], tmp_path)
    assert "{ message: 'hello' }" in out


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_as_written(do, system_with_ocr, tmp_path):
    code = snippet(README, "curl", "sh").replace(DOCUMENTED_URL, system_with_ocr.base_url)
    lines = do(["bash", "-c", code], tmp_path).splitlines()
    assert '"output":{"message":"hello"}' in lines[-1]


def test_the_command_line_as_written(do):
    commands = snippet(README, "The command line", "sh").splitlines()
    assert len(commands) >= 3
    for command in commands:
        assert command.startswith(".venv/bin/stoker ")
        # `doctor` speaks about the machine; what it finds there is its own tests' business.
        if "doctor" not in command:
            do(["bash", "-c", command.replace(".venv/bin/stoker", stoker())], ROOT)


def test_an_own_app_as_written(do, tmp_path):
    commands = snippet(README, "Your own app", "sh").splitlines()
    assert len(commands) >= 3
    for command in commands:
        assert command.startswith(".venv/bin/stoker ")
        do(["bash", "-c", command.replace(".venv/bin/stoker", stoker())], tmp_path)


def test_a_first_app_as_written(do, tmp_path):
    folder = tmp_path / "hello"
    folder.mkdir()
    (folder / "inf.yml").write_text(snippet(GUIDE, "A first app in 20 lines", "yaml"))
    code = snippet(GUIDE, "A first app in 20 lines", "python")
    (folder / "inference.py").write_text(code)
    assert len([line for line in code.splitlines() if line]) <= 20
    out = do(
        ["bash", "-c", "set -e\n" + snippet(GUIDE, "A first app in 20 lines", "sh")], tmp_path, PATH=path()
    )
    assert "Hello, Ada!" in out


def stoker():
    return f"'{Path(sys.executable).with_name('stoker')}'"


def path():
    return f"{Path(sys.executable).parent}:{os.environ['PATH']}"
