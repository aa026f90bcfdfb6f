"""The checks before a deploy: all forms that apps use pass, and everything that is wrong has its file and line."""

import pytest

from stoker_cli.checks import Severity, check_folder

GOOD = """\
class AppInput(BaseAppInput):
    text: str


class App(BaseApp):
    async def setup(self, config):
        pass

    async def run(self, input_data: AppInput, metadata=None) -> AppOutput:
        return input_data

    async def other(self, input_data: AppInput) -> AppOutput:
        return input_data

    def helper(self, name: str) -> str:
        return name
"""
MANIFEST = """\
name: words
namespace: tests
description: Says words.
category: text
kernel: python-3.11
resources:
  gpu:
    count: 0
    vram: 0
    type: none
  ram: 0
"""


def found(tmp_path, manifest=MANIFEST, code=GOOD, **files):
    """(severity, file:line, message) of each finding."""
    (tmp_path / "inf.yml").write_text(manifest)
    if code is not None:
        (tmp_path / "inference.py").write_text(code)
    for name, text in files.items():
        (tmp_path / f"{name}.py").write_text(text)
    report = check_folder(tmp_path)
    return [(f.severity, f"{f.file}:{f.line}", f.message) for f in report.findings]


def changed(line, new):
    assert line in MANIFEST
    return MANIFEST.replace(line, new)


def test_a_good_app_has_no_findings(tmp_path):
    assert found(tmp_path) == []


@pytest.mark.parametrize(
    "more",
    [
        "env: {}",
        "images: {card: '', thumbnail: '', banner: 'https://x/y'}",
        "metadata: {tags: [a, b], deep: {x: 1}}",
        "secrets:\n- key: API_KEY\n  description: d\n- key: HF_TOKEN\n  optional: true",
        "secrets: []",
        "functions:\n- name: run\n  description: d\n- name: other",
        "default_function: other",
        "title: Words",
        "env:",
    ],
)
def test_every_form_of_the_contract_passes(tmp_path, more):
    assert found(tmp_path, MANIFEST + more + "\n") == []


@pytest.mark.parametrize("kernel", ["", "''", "python-3.12", "3.11", "'3.10'", "python-3.10"])
def test_kernels_in_use_pass(tmp_path, kernel):
    assert found(tmp_path, changed("kernel: python-3.11", f"kernel: {kernel}")) == []


@pytest.mark.parametrize(
    ("manifest", "severity", "place", "words"),
    [
        (changed("name: words\n", ""), "error", "inf.yml:0", "name is missing"),
        (changed("name: words", "name: a/b"), "error", "inf.yml:1", "must not hold"),
        (changed("name: words", "name: -x"), "error", "inf.yml:1", "cannot stand in a reference"),
        (changed("name: words", "name: 12"), "warning", "inf.yml:1", "write it in quotes"),
        (changed("python-3.11", "ruby-3"), "error", "inf.yml:5", "'ruby-3'"),
        (changed("python-3.11", "3.10"), "warning", "inf.yml:5", "read as 3.10"),
        (changed("category: text", "category: fun"), "warning", "inf.yml:4", "'fun' is none of"),
        (changed("Says words.", "x" * 201), "warning", "inf.yml:3", "201 characters"),
        (changed("  ram: 0", "  ram: lots"), "error", "inf.yml:11", "resources.ram must be a number"),
        (changed("  ram: 0", "  ram: -1"), "error", "inf.yml:11", "must not be negative"),
        (changed("  ram: 0", "  ram: 4"), "warning", "inf.yml:11", "read as 4 GB"),
        (changed("  ram: 0", "  ram: 512"), "warning", "inf.yml:11", "read as 0.512 GB (the platform"),
        (changed("count: 0", "count: some"), "error", "inf.yml:8", "resources.gpu.count must be a number"),
        (changed("vram: 0", "vrm: 8"), "warning", "inf.yml:9", "did you mean 'vram'?"),
        (changed("type: none", "type: nvida"), "warning", "inf.yml:10", "'nvida' is read as any"),
        (changed("count: 0", "count: 1"), "warning", "inf.yml:7", "decides, although type says none"),
        (MANIFEST + "kernl: x\n", "warning", "inf.yml:12", "did you mean 'kernel'?"),
        (MANIFEST + "name: again\n", "warning", "inf.yml:12", "'name' is written twice"),
        (MANIFEST + "env:\n  OK: '1'\n  a-b: x\n", "error", "inf.yml:14", "'a-b' cannot be the name"),
        (MANIFEST + "env:\n  A: [1]\n", "error", "inf.yml:13", "A must be a text"),
        (MANIFEST + "env:\n  A: true\n", "warning", "inf.yml:13", "read as 'true'"),
        (MANIFEST + "env: x\n", "error", "inf.yml:12", "env must map names"),
        (MANIFEST + "images: x\n", "error", "inf.yml:12", "images must be a mapping"),
        (MANIFEST + "secrets: KEY\n", "error", "inf.yml:12", "secrets must be a list"),
        (MANIFEST + "secrets:\n- key: A\n- {}\n", "error", "inf.yml:14", "secrets[1] needs a key"),
        (MANIFEST + "secrets:\n- key: A\n- key: A\n", "warning", "inf.yml:14", "A is named twice"),
        (MANIFEST + "secrets:\n- key: LD_PRELOAD\n", "error", "inf.yml:13", "LD_PRELOAD"),
        (MANIFEST + "secrets:\n- key: A\n  optinal: 1\n", "warning", "inf.yml:14", "'optional'"),
        (MANIFEST + "integrations:\n- key: x.tweet\n", "warning", "inf.yml:12", "no accounts are connected"),
        (MANIFEST + "requirements:\n  secrets:\n  - key: A B\n", "error", "inf.yml:14", "'A B'"),
        (MANIFEST + "variants:\n  default: {}\n", "warning", "inf.yml:12", "variants are not used"),
        (MANIFEST + "functions:\n- name: run\n- name: sing\n", "error", "inf.yml:14", "it has other, run"),
        (MANIFEST + "functions: run\n", "error", "inf.yml:12", "functions must be a list"),
        (MANIFEST + "default_function: sing\n", "error", "inf.yml:12", "no function of App"),
        (MANIFEST + "x: [\n", "error", "inf.yml:13", "no valid YAML"),
        ("- a\n", "error", "inf.yml:1", "must hold a mapping"),
        ("", "error", "inf.yml:1", "found nothing"),
        ("name: &a [*a]\n", "error", "inf.yml:0", "more than 20000 values"),
    ],
)
def test_what_is_wrong_in_the_manifest_has_its_line(tmp_path, manifest, severity, place, words):
    findings = found(tmp_path, manifest)
    assert [f for f in findings if (f[0], f[1]) == (severity, place) and words in f[2]], findings


@pytest.mark.parametrize(
    ("code", "severity", "line", "words"),
    [
        ("class App(\n", "error", 1, "no valid Python"),
        ("\nclass Other: ...\n", "error", 0, "no class App"),
        ("class App:\n    pass\n", "error", 1, "has no function"),
        ("class App:\n    def helper(self, name: str): ...\n", "error", 1, "has no function"),
        (GOOD.replace("setup(self, config)", "__init__(self, config)"), "error", 6, "must need no arguments"),
        (GOOD.replace(": AppInput, metadata", ", metadata"), "warning", 9, "input_data has no type"),
        (GOOD.replace(" -> AppOutput", "", 1), "warning", 9, "its output has no schema"),
        (GOOD + "class App:\n    async def run(self, i: I) -> O: ...\n", "warning", 17, "second class App"),
        ("from .nowhere import x\n" + GOOD, "error", 1, "imports .nowhere"),
        ("from . import nowhere\n" + GOOD, "error", 1, "imports .nowhere"),
        ("from ..beside import x\n" + GOOD, "error", 1, "from above the app's folder"),
        ("x = '\0'\n" + GOOD, "error", 0, "no valid Python"),
    ],
)
def test_what_is_wrong_in_the_code_has_its_line(tmp_path, code, severity, line, words):
    findings = found(tmp_path, code=code)
    assert [f for f in findings if f[0] == severity and f[1] == f"inference.py:{line}" and words in f[2]], (
        findings
    )


@pytest.mark.parametrize(
    "code",
    [
        "from .helper import App\n",
        "from .helper import *\n",
        "from .helper import Base\n\n\nclass App(Base):\n    pass\n",
        "try:\n    from .helper import x\nexcept ImportError:\n    x = 1\n\n\n" + GOOD,
        GOOD.replace("input_data: AppInput", 'input_data: "AppInput"'),
        GOOD.replace("input_data: AppInput", "input_data: Optional[AppInput] = None"),
        GOOD.replace("class App(BaseApp)", "class App"),
        GOOD.replace("setup(self, config)", "__init__(self, model='x', *, deep=1)"),
    ],
)
def test_code_that_only_running_would_judge_passes(tmp_path, code):
    assert found(tmp_path, code=code, helper="") == []


def test_syntax_of_a_newer_python_is_no_error(tmp_path):
    code = "type Words = list[str]\n" + GOOD
    [(severity, place, message)] = found(tmp_path, changed("python-3.11", "python-3.99"), code)
    assert (severity, place) == (Severity.WARNING, "inference.py:1")
    assert "it is for 3.99" in message


def test_findings_of_all_files_come_together(tmp_path):
    (tmp_path / "gone.py").symlink_to("nowhere")
    findings = found(tmp_path, changed("python-3.11", "perl"), "class Apps: ...\n")
    assert {(f[0], f[1]) for f in findings} == {("error", "gone.py:0"), ("error", "inf.yml:5")}
    findings = found(tmp_path, changed("name: words\n", ""), "class Apps: ...\n")
    assert {f[1] for f in findings} == {"gone.py:0", "inf.yml:0", "inference.py:0"}


def test_a_folder_without_code_is_told(tmp_path):
    assert found(tmp_path, code=None) == [
        ("error", "inference.py:0", "cannot be read: No such file or directory")
    ]
    (tmp_path / "inference.js").write_text("")
    assert found(tmp_path, changed("python-3.11", "node-22"), code=None) == []


def test_bytes_that_are_no_text_are_told_with_their_line(tmp_path):
    (tmp_path / "inf.yml").write_bytes(b"name: x\ntitle: \xff\n")
    [finding] = [f for f in check_folder(tmp_path).findings if f.file == "inf.yml"]
    assert (finding.line, finding.message) == (2, "is not UTF-8")
