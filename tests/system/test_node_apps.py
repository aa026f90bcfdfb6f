"""Apps for Node: their environment from the npm registry, and their processes, also those that behave badly."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from instances import APPS, LIMIT_S, is_gone

from stoker import manifest
from stoker.core.messages import LogType
from stoker_worker.describe import describe
from stoker_worker.environment import BuildFailed, Environments, Policy
from stoker_worker.instance_errors import AppError, InputError, InstanceFailed, InstanceLost, RunTimeout
from stoker_worker.nodes import NodeMissing, choose, find_nodes, npm_of

FOLDER = APPS / "node"
APP = manifest.load(FOLDER)
POLICY = Policy(node_fallback=True)


def lacking():
    """Why this machine cannot run Node apps; empty where it can."""
    try:
        npm_of(choose(22, asyncio.run(find_nodes()), older=True).path)
    except NodeMissing as missing:
        return missing.message
    return ""


REASON = lacking()
pytestmark = pytest.mark.skipif(bool(REASON) and not os.environ.get("CI"), reason=REASON)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache that holds the environment of the app."""
    path = tmp_path_factory.mktemp("node")
    lines = []
    ensuring = Environments(path, "uv", POLICY).ensure(FOLDER, APP, lambda _kind, text: lines.append(text))
    asyncio.run(ensuring).close()
    assert lines[-1] == "the environment is ready"
    return path


@pytest.fixture
async def environment(cache):
    held = await Environments(cache, "uv", POLICY).ensure(FOLDER, APP, lambda _kind, _text: None)
    yield held
    held.close()


@pytest.fixture
def begin(start, environment):
    """Start the app, or another folder with its packages."""

    async def begin(app="node", **more):
        return await start(app, python=environment.python, node_env=environment.node_env, **more)

    return begin


def content_of(path):
    return Path(path).read_bytes() if Path(path).exists() else None


async def test_functions_and_schemas_come_from_zod(cache):
    found = await describe(FOLDER, APP, Environments(cache, "uv", POLICY), lambda _text: None)
    assert sorted(found.functions) == ["run", "shout"]
    run = found.functions["run"]
    assert run.description == "Do a thing."
    assert run.input_schema["required"] == ["do"]
    assert run.input_schema["properties"]["text"] == {
        "type": "string",
        "default": "",
        "description": "What to say.",
    }
    assert run.input_schema["properties"]["image"] == {"type": "string", "format": "file"}
    assert run.output_schema["properties"]["got"] == {"type": ["string", "null"]}
    assert found.setup_schema["properties"] == {"model": {"type": "string", "default": "small"}}


def module(folder, code):
    """A folder with an app of one ES module."""
    folder.mkdir()
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "inference.js").write_text(code)
    return folder


async def test_a_second_version_with_the_same_packages_builds_nothing(cache, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(FOLDER, other)
    (other / "inference.js").write_text("export class App { run() { return 'other'; } }\n")
    lines = []
    environments = Environments(cache, "/no/uv", POLICY)
    built = await environments.ensure(other, APP, lambda _kind, text: lines.append(text))
    built.close()
    assert (lines, environments.keys()) == ([], (built.key,))


async def test_an_older_node_needs_the_operators_leave_and_the_log_says_so(cache, environment):
    newest = (await find_nodes())[0]
    if newest.version[0] >= 22:
        assert environment.notes == () or str(newest.version[0]) in environment.notes[0]
        return
    assert f"the app wants Node 22; it gets {newest.text}" in environment.notes[0]
    with pytest.raises(NodeMissing, match="node_fallback"):
        await Environments(cache, "uv").ensure(FOLDER, APP, lambda _kind, _text: None)


async def test_a_package_that_does_not_exist_is_named(cache, tmp_path):
    (tmp_path / "package.json").write_text('{"dependencies": {"zod": "99.99.99"}}')
    environments = Environments(cache, "uv", POLICY)
    with pytest.raises(
        BuildFailed, match=r"No matching version found for zod@99\.99\.99\. This version does not"
    ):
        await environments.ensure(tmp_path, APP, lambda _kind, _text: None)
    assert environments.find(tmp_path, APP) is None


async def test_setup_and_runs_use_one_object_with_defaults_filled_in(begin):
    app = await begin()
    expected = {"got": "ä€😀", "runs": 1, "word": "helped", "model": "small", "variant": "default"}
    assert await app.do("echo", text="ä€😀") == expected
    assert (await app.do("echo"))["runs"] == 2
    assert await app.do("nothing") is None
    assert (await app.run({"text": "loud"}, function="shout")).output == {"text": "LOUD"}
    await app.instance.stop("enough")
    assert app.lines == [(LogType.SETUP, "setup prints"), (LogType.RUN, "unload prints")]


async def test_setup_values_reach_the_app_and_wrong_ones_are_told(begin):
    app = await begin(setup={"model": "large"})
    assert (await app.do("echo"))["model"] == "large"
    with pytest.raises(InstanceFailed, match="The setup is not valid: model: "):
        await begin(setup={"model": 3})


async def test_the_process_sees_only_what_is_its_own(begin, monkeypatch):
    monkeypatch.setenv("STOKER_SECRET", "not yours")
    app = await begin(env={"MODE": "test"})
    known = await app.do("know")
    assert known["env"]["MODE"] == "test"
    assert not [name for name in known["env"] if name.startswith("STOKER_")]
    assert (known["cwd"], known["stdin"], known["task"]) == (str(FOLDER), "", "task")
    assert known["childFds"] == 4, "the three streams and the folder that ls reads"
    assert known["argv"][1:] == [str(FOLDER / "inference.js")]


async def test_the_working_directory_is_restored_after_a_run_that_removed_its_own(begin):
    app = await begin()
    await app.do("moveAndRemove")
    assert (await app.do("know"))["cwd"] == str(FOLDER)


async def test_wrong_input_names_the_field_and_keeps_the_instance(begin):
    app = await begin()
    with pytest.raises(InputError) as caught:
        await app.run({"do": "echo", "count": "many"})
    assert caught.value.input_fields[0][0] == "count"
    assert "The input is not valid: count: " in caught.value.message
    assert (await app.do("echo"))["runs"] == 1


async def test_errors_carry_the_apps_words_and_keep_the_instance(begin):
    app = await begin()
    with pytest.raises(AppError, match="No credits left"):
        await app.do("raise", text="No credits left.")
    assert "Error: No credits left." in app.printed()[0]
    with pytest.raises(AppError, match=r"called exit\(3\)"):
        await app.do("exit")
    with pytest.raises(AppError, match="no function 'other'; it has run, shout"):
        await app.run({}, function="other")
    assert await app.do("reject") == "left"
    assert (await app.do("echo"))["runs"] == 4


@pytest.mark.parametrize(
    ("thrown", "words"),
    [
        ("bare", r"threw \[Object: null prototype\] \{\}"),
        ("noText", "threw {"),
        ("unreadable", "threw a value that cannot be read"),
        ("proxy", "threw Error: inside"),
        ("revoked", "threw <Revoked Proxy>"),
        ("symbol", r"threw Symbol\(s\)"),
        ("object", "threw { code: 3n }"),
        ("noWords", "^Error$"),
        ("half", "half of a pair: \ufffd"),
        ("long", "^long long "),
        ("nothing", "threw undefined"),
    ],
)
async def test_whatever_an_app_throws_is_an_answer_and_keeps_the_instance(begin, thrown, words):
    app = await begin()
    for what in ("throw", "rejects", "yieldsAndThrows", "returns"):
        with pytest.raises(AppError, match=words):
            await app.do(what, text=thrown)
    assert await app.do("leavesRejected", text=thrown) == "left"
    assert (await app.do("echo"))["runs"] == 6


@pytest.mark.parametrize(
    "place",
    [
        "throw bad();",
        "export class App { constructor() { throw bad(); } }",
        "export class App { setup() { throw bad(); } }",
        "export class App { park() { throw bad(); } unpark() {} }",
    ],
)
async def test_a_value_that_cannot_be_read_fails_what_comes_before_runs_too(begin, tmp_path, place):
    bad = "const bad = () => new Proxy({}, { get() { throw bad(); }, getPrototypeOf() { throw bad(); } });\n"
    folder = module(tmp_path / "app", bad + place)
    with pytest.raises(InstanceFailed, match=r"The app threw \{\}"):
        await (await begin(folder, keep=(folder,))).instance.park()


async def test_a_refusal_of_the_apps_schema_is_told_whatever_it_throws(begin, tmp_path):
    folder = module(
        tmp_path / "app",
        "import { z } from 'zod';\n"
        "export const RunInput = z.object({\n"
        "  text: z.string().default('').refine((text) => { if (text) throw null; return true; }),\n"
        "});\n"
        "export class App { run() { return 'ran'; } }\n",
    )
    app = await begin(folder, keep=(folder,))
    with pytest.raises(InputError, match="The input is not valid: The app threw null"):
        await app.run({"text": "x"})
    assert (await app.run({})).output == "ran"


async def test_a_partial_output_that_cannot_be_read_is_left_out(begin):
    app = await begin()
    assert await app.do("passesTheUnreadable", text="bare") == {"number": 2}
    assert app.partials == [b'{"number":1}']


async def test_a_text_that_is_cut_in_the_middle_of_a_character_is_sent_with_a_mark_for_it(begin):
    app = await begin()
    assert await app.do("cuts") == {"\ufffd": ["\ufffd"]}
    assert app.partials[0] == '"ab\ufffd"'.encode()


async def test_a_run_whose_app_throws_when_it_is_asked_to_cancel_is_cancelled(begin, tmp_path):
    folder = module(
        tmp_path / "app",
        "export class App {\n"
        "  get onCancel() { throw Object.create(null); }\n"
        "  run(_input, { signal }) {\n"
        "    console.log('waiting');\n"
        "    return new Promise((done) => signal.addEventListener('abort', () => done('left')));\n"
        "  }\n"
        "}\n",
    )
    app = await begin(folder, keep=(folder,))
    run = asyncio.ensure_future(app.run({}))
    await app.until_printed("waiting")
    assert await app.instance.cancel(LIMIT_S) is True
    assert (await run).output == "left"


async def test_a_folder_as_a_file_of_the_output_holds_up_no_later_run(begin):
    app = await begin()
    await app.do("folder")
    app.instance.tidy()
    assert (await app.do("echo"))["runs"] == 2


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("nan", r"output 'scores\.1' is NaN"),
        ("circle", "contains itself"),
        ("binary", r"output 'data' is binary data"),
    ],
)
async def test_an_output_that_is_no_json_is_the_apps_error(begin, what, words):
    app = await begin()
    with pytest.raises(AppError, match=words):
        await app.do(what)
    assert (await app.do("echo"))["runs"] == 2


async def test_usage_stays_in_the_output(begin):
    app = await begin()
    assert (await app.do("meta"))["output_meta"]["outputs"][0]["tokens"] == 3


async def test_files_are_reported_where_they_stand_and_removed_after_use(begin):
    app = await begin()
    result = await app.run({"do": "file"})
    first, fixed, missing = result.files
    assert (first.pointer, first.content_type, first.size, first.filename) == (
        "/files/0",
        "text/plain",
        5,
        "a.txt",
    )
    assert (fixed.pointer, fixed.named) == ("/files/1", "/tmp/fixed.png")  # noqa: S108 - the app's own
    assert (missing.pointer, missing.size) == ("/a~1b", 0)
    assert result.output["far"] == {"content_type": "image/png", "uri": "https://example.org/x.png"}
    assert (content_of(first.path), content_of(fixed.path)) == (b"hello", b"png")
    app.instance.tidy()
    await app.do("nothing")
    assert (content_of(first.path), content_of(fixed.path)) == (None, None)


async def test_files_of_the_input_are_the_sdks(begin, tmp_path):
    picture = tmp_path / "picture.png"
    picture.write_bytes(b"png")
    app = await begin(keep=(tmp_path,))
    assert await app.run({"do": "given", "image": str(picture)})
    assert (await app.do("given", image=str(picture))) == {"got": "picture.png", "path": str(picture)}


async def test_partials_come_in_order_and_the_last_is_the_result(begin):
    app = await begin()
    assert await app.do("partials", count=5000) == {"number": 4999}
    assert app.partials[0] == b'{"number":0}'
    assert len(app.partials) < 500


async def test_an_app_that_listens_stops_by_itself(begin):
    app = await begin()
    run = asyncio.ensure_future(app.do("listen"))
    await app.until_printed("waiting")
    assert await app.instance.cancel(LIMIT_S) is True
    assert await run == "heard"
    assert app.printed() == ["waiting", "onCancel was called"]


@pytest.mark.parametrize("what", ["signal", "stream"])
async def test_a_signal_and_the_end_of_a_generator_cancel_a_run(begin, what):
    app = await begin()
    run = asyncio.ensure_future(app.do(what))
    await app.until_printed("waiting")
    assert await app.instance.cancel(LIMIT_S) is True
    with pytest.raises(AppError):
        await run
    assert (await app.do("echo"))["runs"] == 2


async def test_a_run_that_blocks_is_killed(begin):
    app = await begin()
    run = asyncio.ensure_future(app.do("block"))
    await app.until_printed("waiting")
    assert await app.instance.cancel(0.3) is False
    with pytest.raises(InstanceLost):
        await run
    assert await is_gone(app.instance.pid)


async def test_nothing_of_a_run_that_was_given_up_comes_to_the_next_one(begin, tmp_path):
    folder = module(
        tmp_path / "app",
        "export class App {\n"
        "  async *run({ pause }) {\n"
        "    if (!pause) return 'next';\n"
        "    for (let number = 0; number < 4; number += 1) {\n"
        "      yield number;\n"
        "      await new Promise((done) => setTimeout(done, pause));\n"
        "    }\n"
        "  }\n"
        "}\n",
    )
    app = await begin(folder, keep=(folder,))
    with pytest.raises(RunTimeout):
        await app.run({"pause": 100}, timeout_s=0.05)
    app.partials.clear()
    assert (await app.run({})).output == "next"
    assert app.partials == []


async def test_a_lost_process_is_told_and_what_it_started_ends(begin):
    app = await begin()
    child = await app.do("leave")
    with pytest.raises(InstanceLost, match="SIGKILL"):
        await app.do("die")
    assert await is_gone(child)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"inference.js": "export class Other {}"}, "exports no class App"),
        ({"inference.js": "import 'no-such-package'; export class App {}"}, "no-such-package"),
        (
            {"inference.js": "export class App { constructor() { throw new Error('not today') } }"},
            "not today",
        ),
        ({}, r"has no inference\.js"),
    ],
)
async def test_an_app_that_cannot_be_loaded_says_why(begin, tmp_path, files, words):
    for name, text in ({"package.json": '{"type": "module"}'} | files).items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InstanceFailed, match=words):
        await begin(tmp_path, keep=(tmp_path,), work_dir=tmp_path / "work")


async def test_code_may_lie_in_src_and_load_packages_either_way(begin, tmp_path):
    folder = tmp_path / "app"
    (folder / "src").mkdir(parents=True)
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "src" / "old.cjs").write_text("module.exports = require('zod').z.string().parse('required');\n")
    (folder / "src" / "inference.js").write_text(
        "import { z } from 'zod'; import old from './old.cjs';\n"
        "export class App { run() { return [old, z.string().parse('imported')]; } }\n"
    )
    app = await begin(folder, keep=(folder,))
    assert (await app.run({})).output == ["required", "imported"]


async def test_an_app_with_both_hooks_is_parked_and_comes_back_as_it_was(begin, tmp_path):
    folder = module(
        tmp_path / "app",
        "export class App {\n"
        "  setup() { this.seen = ['setup']; }\n"
        "  run() { return this.seen; }\n"
        "  async park() { this.seen.push('park'); }\n"
        "  unpark() { if (this.seen.length > 4) throw new Error('no device'); this.seen.push('unpark'); }\n"
        "}\n",
    )
    app = await begin(folder, keep=(folder,))
    assert app.instance.parks
    await app.instance.park()
    await app.instance.unpark()
    assert (await app.run({})).output == ["setup", "park", "unpark"]
    await app.instance.park()
    await app.instance.park()
    with pytest.raises(InstanceFailed, match="no device"):
        await app.instance.unpark()
    assert not (await begin()).instance.parks


async def test_the_process_dies_with_its_daemon(environment, tmp_path):
    code = f"""
import asyncio
from pathlib import Path
from stoker_worker.instance import Instance, RunSpec
from stoker_worker.instance_spec import InstanceSpec

async def main():
    spec = InstanceSpec(python=Path({str(environment.python)!r}), app_dir=Path({str(FOLDER)!r}),
                        work_dir=Path({str(tmp_path)!r}), node_env=Path({str(environment.node_env)!r}))
    instance = await Instance.start(spec, lambda kind, text: None)
    await instance.setup(30)
    run = RunSpec(task_id="t", function="run", input={{"do": "leave"}}, metadata={{}})
    child = (await instance.run(run, lambda partial: None, 30)).output
    print(instance.pid, child, flush=True)
    block = RunSpec(task_id="t", function="run", input={{"do": "block"}}, metadata={{}})
    await instance.run(block, lambda partial: None, 600)

asyncio.run(main())
"""
    daemon = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        code,
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert daemon.stdout is not None
    pids = [int(text) for text in (await asyncio.wait_for(daemon.stdout.readline(), LIMIT_S)).split()]
    daemon.send_signal(signal.SIGKILL)
    await daemon.wait()
    assert [await is_gone(pid) for pid in pids] == [True, True]


def test_the_runner_needs_node_alone():
    runner = Path(__file__).parents[2] / "worker/stoker_worker/runner_node"
    text = "\n".join(path.read_text() for path in runner.glob("*.mjs"))
    imported = {line.split('"')[1] for line in text.splitlines() if line.startswith("import ")}
    assert {name for name in imported if not name.startswith(("node:", "./"))} == set()
    for path in runner.glob("*.mjs"):
        subprocess.run(["node", "--check", path], check=True)
