"""Rules of the house that no linter knows."""

import ast
import re
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
PARTS = ("stoker", "gateway", "scheduler", "worker", "jobs", "cli")
PRODUCT = sorted(path for part in PARTS for path in (ROOT / part).rglob("*.py"))
OURS = sorted(
    [
        *PRODUCT,
        *(path for part in ("tests", "bench", "docs", "examples") for path in (ROOT / part).rglob("*.py")),
    ]
)
RUNNER = sorted(
    path for name in ("runner", "launcher") for path in (ROOT / "worker/stoker_worker" / name).glob("*.py")
)


def name_of(path):
    return str(path.relative_to(ROOT))


def test_no_file_is_over_500_lines():
    long = [
        name_of(path)
        for path in OURS
        if len(path.read_text().splitlines()) > 500 and "node_modules" not in path.parts
    ]
    assert not long


def length(function):
    """Lines of a function without its docstring."""
    body = function.body
    if ast.get_docstring(function) is not None:
        body = body[1:]
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def test_no_function_is_over_60_lines():
    long = [
        f"{name_of(path)}:{node.name}"
        for path in PRODUCT
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and length(node) > 60
    ]
    assert not long


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("path", PRODUCT, ids=name_of)
def test_only_the_protocol_and_jobs_import_redis(path):
    allowed = path.is_relative_to(ROOT / "stoker/protocol") or path.is_relative_to(ROOT / "jobs")
    assert allowed or "redis" not in set(imported(path))


def test_the_runner_needs_the_standard_library_alone():
    assert RUNNER
    own = {path.stem for path in RUNNER}
    # An app's own packages are imported by name inside functions, where the app has them.
    optional = {"pydantic", "inferencesh"}
    foreign = {n for path in RUNNER for n in imported(path)} - own - optional - set(sys.stdlib_module_names)
    assert not foreign


def test_settings_are_read_from_the_environment_in_one_place():
    """A part may pass its environment on to a child; what a STOKER_ variable means is known to the settings."""
    readers = [p for p in PRODUCT if re.search(r"environ(?:\.get\(|\[)\s*[\"']STOKER_", p.read_text())]
    assert [name_of(p) for p in readers] == ["stoker/settings.py"]
