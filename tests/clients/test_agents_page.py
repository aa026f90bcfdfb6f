"""The programs of docs/agents.md, run as written: only the address and the home are others."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from clients.sdks import JS_DIR, install_js, python_of, python_with
from helpers import EXAMPLES, ROOT, environment
from scripted_llm import ScriptedLLM, calls, says

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]  # the first test builds an environment

PAGE = (ROOT / "docs" / "agents.md").read_text()
MULTIPLY = calls("multiply", '{"a": 42, "b": 17}')


def program(heading, language):
    section = PAGE[PAGE.index(f"## {heading}\n") :]
    return re.search(rf"^```{language}\n(.*?)^```", section, re.DOTALL | re.MULTILINE)[1]


@pytest.fixture(scope="module")
def home(system_with_apps, tmp_path_factory):
    """A home directory in which the system has its data where it has it by default."""
    system_with_apps.deploy(EXAMPLES / "llm")
    folder = tmp_path_factory.mktemp("home")
    data_dir = folder / ".local" / "share" / "stoker"
    data_dir.parent.mkdir(parents=True)
    data_dir.symlink_to(system_with_apps.data_dir, target_is_directory=True)
    return folder


@pytest.fixture
def model():
    served = ScriptedLLM()
    yield served
    served.close()


@pytest.fixture
def do(system_with_apps, home, model, tmp_path):
    """Run a command with that home, once the alias stands for the example app and the script."""

    def run(command, **env):
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment(**{"HOME": str(home), **env}),
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr + system_with_apps.complaints()
        return done.stdout

    commands = program("A language model", "sh").replace("http://127.0.0.1:11434/v1", model.url)
    model.script.append(says("A script."))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    assert "A script." in run(["bash", "-ec", commands], PATH=path)
    return run


def here(code, system):
    return code.replace("http://127.0.0.1:8787", system.base_url)


def test_an_agent_in_python(do, model, system_with_apps):
    model.script += [MULTIPLY, says("It is ", "714."), says("357.")]
    code = here(program("An agent in Python", "python"), system_with_apps)
    printed = do([str(python_with("0.36.0")), "-c", code]).split("\n")
    assert [line for line in printed if line] == ["It is 714.", "357.", "idle"]


def test_an_agent_in_javascript(do, model, system_with_apps, tmp_path):
    install_js()
    (tmp_path / "node_modules").symlink_to(JS_DIR / "node_modules", target_is_directory=True)
    model.script += [MULTIPLY, says("It is ", "714.")]
    (tmp_path / "agent.mts").write_text(here(program("An agent in JavaScript", "ts"), system_with_apps))
    assert do(["npx", "tsx", "agent.mts"]).split() == ["It", "is", "714.", "idle"]


def test_an_openai_client(do, model, system_with_apps):
    model.script += [says("It is ", "714.")]
    code = here(program("Any OpenAI client", "python"), system_with_apps)
    printed = do([str(python_of("openai-2", "openai>=2,<3")), "-c", code])
    assert printed.endswith("It is 714.")
    assert "'infsh/claude-sonnet-4'" in printed
