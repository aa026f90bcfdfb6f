"""What the docs name exists, and what is made from code is current."""

import importlib
import importlib.util
import re
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[3]
PAGES = sorted([*ROOT.glob("docs/**/*.md"), *ROOT.glob("*.md"), *ROOT.glob("examples/**/*.md")])
_CODE = re.compile(r"`([^`\n]+)`")
_PATH = re.compile(r"^[\w.-]+(?:/[\w.-]+)*\.(?:py|lua|md|yml|ts)$")
_LINK = re.compile(r"\]\(([^)#]+?)(?:#[^)]*)?\)")


def spec_of(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", sorted(spec_of(ROOT / "docs/generate.py").PAGES))
def test_a_page_made_from_code_is_current(page):
    made = spec_of(ROOT / "docs/generate.py").PAGES[page]()
    assert (ROOT / "docs" / page).read_text() == made, "run `make generate`"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_repository_path_that_a_page_names_exists(page):
    named = {text for text in _CODE.findall(page.read_text()) if "/" in text and _PATH.match(text)}
    linked = {text for text in _LINK.findall(page.read_text()) if "://" not in text}
    ours = {n for n in named if (ROOT / n.split("/")[0]).is_dir()}  # a page may name files of the reader's
    missing = {n for n in ours if not (ROOT / n).exists() and not (page.parent / n).exists()}
    missing |= {n for n in linked if not (page.parent / n).exists()}
    assert not missing


def test_every_function_of_the_walk_exists():
    text = (ROOT / "docs/architecture.md").read_text()
    homes = {
        "Tasks": "stoker.protocol.tasks",
        "Pins": "stoker.protocol.pins",
        "Scheduling": "stoker.protocol.scheduling",
        "Engines": "stoker.protocol.engines",
        "Sessions": "stoker.protocol.sessions",
        "TaskLogs": "stoker.protocol.task_logs",
        "Workload": "stoker_worker.workload",
        "Writes": "stoker_worker.writes",
        "TaskRequest": "stoker.core.messages",
        "Origin": "stoker.runs.submit",
        "Hub": "stoker_gateway.streams",
    }
    named = [n.split(".") for n in _CODE.findall(text) if re.match(r"^[A-Z]\w+\.\w+$", n)]
    assert named
    for owner, function in named:
        assert hasattr(getattr(importlib.import_module(homes[owner]), owner), function), f"{owner}.{function}"
    assert importlib.import_module("stoker_scheduler.policy").decide
