"""How apps are imported, described and set up in processes, and what is told when that fails."""

import asyncio
import contextlib
import errno
import os
import sys
from pathlib import Path

import pytest
from helpers import kill
from instances import APPS, LIMIT_S, is_gone, needs_own_tmp

from stoker_worker.instance import Instance
from stoker_worker.instance_errors import AppError, InputError, InstanceFailed, InstanceTimeout
from stoker_worker.instance_spec import InstanceSpec


async def test_a_failed_setup_says_why(start):
    with pytest.raises(InstanceFailed, match="the weights are gone"):
        await start(setup={"fail": True})


async def test_a_slow_setup_is_told(start):
    app = await start(setup={"block": True}, ready=False)
    with pytest.raises(
        InstanceTimeout, match=r"setup took longer than 0\.2 s \(timeouts\.setup .*STOKER_SETUP_TIMEOUT_S"
    ):
        await app.instance.setup(0.2)
    await app.instance.stop("too slow")
    assert await is_gone(app.instance.pid)


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import nosuchmodule", "No module named 'nosuchmodule'"),
        ("raise SystemExit('no licence')", "called exit"),
        ("import os; os._exit(4)", "exit code 4"),
        ("raise RuntimeError('half of a pair: \\ud83d')", r"half of a pair: \?"),
        ("x = 1", "no class App"),
        ("class App:\n    def __init__(self, needed): pass", "needed"),
        ("class App(", "'\\(' was never closed"),
    ],
)
async def test_an_app_that_cannot_be_imported_says_why(tmp_path, code, words):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "inference.py").write_text(code)
    spec = InstanceSpec(python=Path(sys.executable), app_dir=tmp_path / "app", work_dir=tmp_path / "work")
    with pytest.raises(InstanceFailed, match=words):
        await Instance.start(spec, lambda kind, text: None)


async def test_an_interpreter_that_is_missing_is_told(tmp_path):
    spec = InstanceSpec(python=tmp_path / "python", app_dir=APPS / "odd", work_dir=tmp_path / "work")
    with pytest.raises(InstanceFailed, match="cannot be started"):
        await Instance.start(spec, lambda kind, text: None)


def open_pipes():
    """The pipes that this process has open."""
    found = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists the folder
            found.add(str(entry.readlink()))
    return {name for name in found if name.startswith("pipe:")}


async def test_a_start_without_a_free_file_descriptor_leaves_none_behind(tmp_path, monkeypatch):
    make, before, made = os.pipe, open_pipes(), []

    def pipe():
        if made:
            raise OSError(errno.EMFILE, "Too many open files")
        made.extend(make())
        return tuple(made)

    monkeypatch.setattr(os, "pipe", pipe)
    spec = InstanceSpec(python=Path(sys.executable), app_dir=APPS / "odd", work_dir=tmp_path / "work")
    with pytest.raises(InstanceFailed, match="Too many open files"):
        await Instance.start(spec, lambda kind, text: None)
    assert open_pipes() == before


async def test_a_start_that_is_cancelled_leaves_no_process(tmp_path):
    (tmp_path / "inference.py").write_text("import time, os\nprint(os.getpid(), flush=True)\ntime.sleep(60)")
    spec = InstanceSpec(
        python=Path(sys.executable), app_dir=tmp_path, work_dir=tmp_path / "work", stop_grace_s=0.5
    )
    lines = asyncio.Queue()
    start = asyncio.ensure_future(Instance.start(spec, lambda kind, text: lines.put_nowait(text)))
    pid = int(await asyncio.wait_for(lines.get(), LIMIT_S))
    start.cancel()
    with pytest.raises(asyncio.CancelledError):
        await start
    assert await is_gone(pid)


DAEMON = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"], start_new_session=True)
print(child.pid, flush=True)
{ending}
"""


async def first_number(printed):
    """What is printed on stdout may come behind what is printed on stderr after it."""
    while True:
        for line in (await printed.get()).splitlines():
            if line.isdigit():
                return int(line)


@pytest.mark.parametrize("own_tmp", [pytest.param(True, marks=needs_own_tmp), False])
@pytest.mark.parametrize(
    "ending", ["raise ImportError('no licence')", "import os; os._exit(4)", "time.sleep(60)"]
)
async def test_a_daemon_of_an_app_that_never_started_ends_with_it(tmp_path, own_tmp, ending):
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "inference.py").write_text(DAEMON.format(ending=ending))
    spec = InstanceSpec(
        python=Path(sys.executable),
        app_dir=tmp_path / "app",
        work_dir=tmp_path / "work",
        own_tmp=own_tmp,
        stop_grace_s=0.5,
    )
    lines = asyncio.Queue()
    start = asyncio.ensure_future(Instance.start(spec, lambda kind, text: lines.put_nowait(text)))
    child = await asyncio.wait_for(first_number(lines), LIMIT_S)
    if "sleep" in ending:
        start.cancel()
    with pytest.raises((InstanceFailed, asyncio.CancelledError)):
        await start
    try:
        assert await is_gone(child)
    except TimeoutError:  # else the number may be another's by now
        with contextlib.suppress(ProcessLookupError):
            kill(child)
        raise


async def test_models_are_built_and_dumped(start):
    app = await start("models", setup={"size": "large"}, env={"GREETING": "hello"})
    result = await app.run({"name": "Ada", "unknown": True})
    assert result.output == {
        "text": "hello Ada task",
        "size": "large",
        "file": {"content_type": "text/plain", "size": 3, "filename": "greeting.txt"},
        "files": [
            {"uri": "https://example.org/a.png"},
            {"content_type": "application/octet-stream", "size": 0, "filename": "missing.bin"},
        ],
    }
    assert [(file.pointer, file.path) for file in result.files] == [
        ("/file", str(app.spec.work_dir / "tmp" / "greeting.txt")),
        ("/files/1", str(APPS / "models" / "missing.bin")),
    ]
    assert (await app.run({"name": "x", "times": 2}, "stream")).output["text"] == "xx"


async def test_a_bad_input_names_its_fields(start):
    app = await start("models")
    with pytest.raises(InputError) as caught:
        await app.run({"times": "many"})
    assert caught.value.message.startswith("The input is not valid: name: Field required; times: ")
    assert [field for field, _ in caught.value.input_fields] == ["name", "times"]
    with pytest.raises(AppError, match="no function 'helper'; it has run, stream"):
        await app.run({}, "helper")
    assert (await app.run({"name": "x"}, "stream")).output["text"] == "x"


async def test_bad_setup_values_name_their_fields(start):
    with pytest.raises(InstanceFailed, match=r"The setup is not valid: size: .*; steps: "):
        await start("models", setup={"size": "huge", "steps": 0})


async def test_describe_tells_functions_and_schemas(start):
    app = await start("models", ready=False)
    functions, setup_schema = await app.instance.describe()
    assert sorted(functions) == ["run", "stream"]
    assert functions["run"]["description"] == "Greet.\n\nWith files."
    assert list(functions["run"]["input_schema"]["properties"]) == ["name", "times"]
    assert list(functions["stream"]["output_schema"]["properties"])[:2] == ["text", "size"]
    assert setup_schema["properties"]["steps"]["minimum"] == 1
