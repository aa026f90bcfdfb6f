"""The traps that real apps set for a worker; most have an app of their own below tests/apps/traps.

Here: an app's process with its real environment. Those that need a whole system are in test_traps_system.py.

    1 relative imports             11 fixed names in /tmp (system)   21 models whose making fails otherwise
    2 links to shared helpers      12 stdin                          22 23 24 units, counts (test_machine_cache.py), kernels (test_manifest.py)
    3 the SDK is not required      13 stdout is the app's            25 eviction: here, test_shelf.py, test_input_cache.py
    4 5 how it is installed        14 basicConfig                    26 an output that is not there (system)
      (and test_environments.py)   15 blocked runs (and system)      27 sessions: test_sessions.py
    6 secrets before the import    16 on_cancel, or none             28 names are not unique: test_apps.py
    7 metadata                     17 inherited run                  29 schemas need the source
    8 forms of setup               18 plain models, output_meta      30 an input is not dumped
    9 generators                   19 20 files as maps, and as None
    10 upload before unload (and system)
"""

import asyncio
import json
import tarfile
from pathlib import Path

import pytest
from instances import APPS, LIMIT_S

from stoker import manifest
from stoker.core.messages import LogType
from stoker_cli.packing import pack
from stoker_worker.environment import Environments
from stoker_worker.instance_errors import AppError, InputError, InstanceFailed
from stoker_worker.main import find_uv

pytestmark = pytest.mark.timeout(240)
"""The first test installs what all need."""

FORMS = {
    "nothing": "nothing",
    "metadata": "default",
    "optional": "default",
    "config": {"size": "large"},
    "model": {"size": "large", "steps": 2},
    "both": [2, "default"],
    "sync": "sync",
}


@pytest.fixture(scope="module")
def sdk_python(tmp_path_factory):
    """The interpreter of an environment whose requirements do not name the SDK."""
    folder = APPS / "traps" / "sdk"
    environments = Environments(tmp_path_factory.mktemp("cache"), find_uv())

    async def build():
        environment = await environments.ensure(folder, manifest.load(folder), lambda *_: None)
        return environment.python

    return asyncio.run(build())


def content_of(path):
    return Path(path).read_text() if Path(path).exists() else None


@pytest.fixture
def start_sdk(start, sdk_python):
    """`start` with that interpreter."""
    return lambda app="sdk", **more: start(f"traps/{app}", python=sdk_python, **more)


async def test_1_and_2_a_relative_import_of_a_linked_helper_works_after_packing(start, tmp_path):
    bundle, _ = pack(APPS / "traps" / "linked", tmp_path)
    with tarfile.open(bundle) as archive:
        assert all(member.isfile() or member.isdir() for member in archive)
        archive.extractall(tmp_path / "app", filter="data")
    app = await start(tmp_path / "app")
    assert (await app.run({})).output == {"word": "linked"}


async def test_3_the_sdk_is_there_though_nobody_asked_for_it(start_sdk):
    app = await start_sdk()
    assert (await app.run({"text": "x"}, "plain")).output == {"text": "x"}


async def test_4_5_22_23_24_two_steps_from_its_own_folder_for_an_app_that_says_little(start, tmp_path):
    folder = APPS / "traps" / "installed"
    app = manifest.load(folder)
    assert (app.kernel, app.needs.gpu_count, app.needs.ram_bytes) == ("", 0, 4_000_000_000)
    environment = await Environments(tmp_path / "cache", find_uv()).ensure(folder, app, lambda *_: None)
    running = await start("traps/installed", python=environment.python, env=app.env)
    output = (await running.run({})).output
    assert output == {"version": "2", "word": "fire", "python": [3, 11]}


async def test_6_secrets_are_there_before_the_import_and_not_needed_for_it(start):
    with_key = await start("traps/secretive_import", env={"A_KEY": "open"})
    without = await start("traps/secretive_import")
    assert (await with_key.run({})).output == {"key": "open"}
    assert (await without.run({})).output == {"key": ""}


async def test_7_metadata_is_the_sdks_own_with_get_and_log_and_the_variant(start_sdk):
    app = await start_sdk()
    result = await app.run({})
    assert result.output["text"] == repr([True, "default", "default", "default", "task", None])
    assert "said by metadata" in app.printed()
    assert "INFO said by the logger" in app.printed()


@pytest.mark.parametrize("form", FORMS)
async def test_8_every_form_of_setup_gets_what_it_asks_for(start, form):
    app = await start("traps/forms", env={"FORM": form}, setup={"size": "large"})
    assert (await app.run({})).output == FORMS[form]


async def test_8_setup_values_that_do_not_fit_are_told_with_their_field(start):
    with pytest.raises(InstanceFailed, match="steps"):
        await start("traps/forms", env={"FORM": "model"}, setup={"steps": "many"})


async def test_9_the_last_yield_of_a_generator_is_the_result(start_sdk):
    app = await start_sdk()
    result = await app.run({"text": "ab", "count": 3}, "grow")
    assert result.output == {"text": "ababab"}
    assert app.partials[0] == b'{"text":"ab"}'


async def test_10_a_result_lies_there_until_it_is_stored_and_unload_may_delete_it(start):
    app = await start("traps/ends")
    result = await app.run({"do": "file", "text": "kept"})
    assert content_of(result.files[0].path) == "kept"
    await app.instance.stop("enough")
    assert "unloaded" in app.printed()
    assert content_of(result.files[0].path) is None


async def test_12_13_14_the_streams_and_logging_are_the_apps(start):
    app = await start("traps/shadows")
    result = await app.run({})
    assert result.output["asked"] == "no input"
    assert 'name? {"type"' not in app.printed()
    assert any("forged" in line for line in app.printed())
    assert "INFO:stoker_app.inference:said by logging" in app.printed()


async def test_modules_like_those_of_the_library_own_paths_and_moves_do_no_harm(start):
    app = await start("traps/shadows")
    for _ in range(2):
        result = await app.run({})
        assert result.output["names"] == ["own call", "vendored", "own types"]
        assert result.output["here"] == "vendored"
        assert result.output["text"] == "é€"


async def test_15_a_blocked_run_is_killed_when_it_is_cancelled(start):
    app = await start("traps/ends")
    run = asyncio.ensure_future(app.do("block"))
    await app.until_printed("blocked")
    assert await app.instance.cancel(0.2) is False
    assert isinstance((await asyncio.gather(run, return_exceptions=True))[0], Exception)


async def test_16_an_app_without_on_cancel_is_cancelled_and_stays_usable(start):
    app = await start("traps/ends")
    run = asyncio.ensure_future(app.do("wait"))
    await app.until_printed("waiting")
    assert await app.instance.cancel(LIMIT_S / 10) is True
    with pytest.raises(AppError):
        await run
    assert await app.do("fine") == "fine"


async def test_16_an_app_may_look_whether_it_is_cancelled(start):
    app = await start("traps/ends")
    run = asyncio.ensure_future(app.do("asked"))
    await app.until_printed("waiting")
    assert await app.instance.cancel(LIMIT_S) is True
    assert await run == "heard"
    assert await app.do("fine") == "fine"


async def test_17_29_functions_are_those_of_the_app_and_schemas_keep_its_order(start_sdk):
    app = await start_sdk("inherits")
    functions, _ = await app.instance.describe()
    assert list(functions) == ["look"]
    assert functions["look"]["description"] == "Look at it."
    assert list(functions["look"]["input_schema"]["properties"]) == ["first", "second", "last"]
    many = await start_sdk()
    functions, _ = await many.instance.describe()
    assert "helper" not in functions
    with pytest.raises(AppError, match="has no function 'helper'"):
        await many.run({}, "helper")


async def test_18_plain_models_and_what_is_said_about_an_output(start_sdk):
    app = await start_sdk()
    plain = await app.run({"text": "x"}, "plain")
    assert (plain.output, plain.meta) == ({"text": "x"}, b"null")
    told = await app.run({})
    assert "output_meta" not in told.output
    assert json.loads(told.meta)["outputs"][0]["tokens"] == 3


async def test_19_an_unknown_key_of_a_file_is_the_callers_error(start_sdk):
    app = await start_sdk()
    with pytest.raises(InputError, match="odd"):
        await app.run({"picture": {"path": "/x", "odd": 1}}, "picture")
    assert (await app.run({"text": "x"}, "plain")).output == {"text": "x"}


@pytest.mark.parametrize("empty", ["", None, {}])
async def test_20_30_a_required_file_may_come_as_none(start_sdk, empty):
    app = await start_sdk()
    assert (await app.run({"picture": empty}, "picture")).output == {"text": "none"}


async def test_21_a_file_that_cannot_be_fetched_is_the_callers_error(start_sdk):
    app = await start_sdk()
    with pytest.raises(InputError):
        await app.run({"picture": "http://127.0.0.1:1/none.png"}, "picture")
    assert (await app.run({"text": "x"}, "plain")).output == {"text": "x"}


async def test_a_live_function_is_refused_in_words(start_sdk):
    app = await start_sdk()
    with pytest.raises(AppError, match=r"'talk' is a live function.*does not offer live functions"):
        await app.run({}, "talk")


async def test_an_error_is_the_apps_own_words_and_its_trace_is_in_the_log(start):
    app = await start("traps/ends")
    with pytest.raises(AppError) as caught:
        await app.do("raises")
    assert caught.value.message == "The picture is too dark."
    assert app.printed()[-1] == "RuntimeError: The picture is too dark."


async def test_a_child_that_prints_later_harms_no_other_run(start):
    app = await start("traps/ends")
    await app.do("late", seconds=0.05)
    await app.until_printed("late")
    assert await app.do("fine") == "fine"
    assert [kind for kind, text in app.lines if text == "late"] == [LogType.RUN]


async def test_25_what_an_app_downloads_is_bounded_and_nothing_goes_that_it_uses(start, tmp_path):
    app = await start("traps/downloads", work_dir=tmp_path / "work", cache_bytes=2000)

    async def downloaded(name, used):
        return (await app.run({"name": name, "used": used})).output

    assert await downloaded("old", 2) == ["mapped", "old", "weights"]
    assert await downloaded("older", 1) == ["mapped", "old", "older", "weights"]
    assert await downloaded("new", 3) == ["mapped", "new", "old", "older", "weights"]
    assert await downloaded("newer", 4) == ["mapped", "new", "newer", "old", "older", "weights"], (
        "now too much"
    )
    assert await downloaded("newest", 5) == ["mapped", "new", "newer", "newest", "old", "weights"], (
        "older went"
    )
