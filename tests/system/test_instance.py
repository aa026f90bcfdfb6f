"""Processes of apps, also of those that behave badly. The interpreter is this one: nothing needs to be built."""

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path

import pytest
from instances import APPS, LIMIT_S, is_gone

from stoker.core.messages import LogType
from stoker_worker.instance_errors import AppError, InputError, InstanceFailed, InstanceLost, RunTimeout


def is_same(one, other):
    return Path(one).samefile(other)


def content_of(path):
    return Path(path).read_bytes() if Path(path).exists() else None


async def test_runs_one_after_another_use_the_same_object(start):
    app = await start()
    assert await app.do("echo", text="ä€😀") == {
        "got": {"do": "echo", "text": "ä€😀"},
        "runs": 1,
        "word": "helped",
    }
    assert (await app.do("echo"))["runs"] == 2
    assert await app.do("nothing") is None


async def test_lines_carry_the_phase_they_were_printed_in(start):
    app = await start()
    await app.do("flood", lines=2)
    await app.instance.stop("enough")
    assert app.lines == [
        (LogType.SETUP, "setup prints"),
        (LogType.RUN, "0"),
        (LogType.RUN, "1"),
        (LogType.RUN, "unload prints"),
    ]


async def test_the_process_sees_only_what_is_its_own(start, monkeypatch):
    monkeypatch.setenv("STOKER_SECRET", "not yours")
    monkeypatch.setenv("A_TOKEN", "not yours either")
    monkeypatch.setenv("A_PROXY", "yours")
    inherited, other = os.pipe()
    os.set_inheritable(inherited, True)
    try:
        app = await start(setup={"model": "tiny"}, env={"MODE": "test", "PYTHONPATH": "/app:/other"})
        known = await app.do("know")
    finally:
        os.close(inherited)
        os.close(other)
    env = known["env"]
    assert not [name for name in env if name.startswith("STOKER_")]
    assert "A_TOKEN" not in env
    assert (env["A_PROXY"], env["MODE"]) == ("yours", "test")
    assert env["PYTHONPATH"] == f"{APPS / 'odd'}:/other"
    assert env["TMPDIR"] == "/tmp"  # noqa: S108 - its own
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    assert known["config"] == {"model": "tiny"}
    assert known["got"] == ["default", "default"]
    assert known["cwd"] == str(APPS / "odd")
    assert known["stdin"] == ""
    assert known["group"] is True
    assert inherited not in known["fds"]
    assert len(known["fds"]) <= 8


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13"])
async def test_every_supported_python_runs_the_runner(start, version):
    from stoker_worker.pythons import PythonMissing, find_python

    try:
        python = find_python(version)
    except PythonMissing:
        pytest.skip(f"Python {version} is not on this machine")
    app = await start(python=python)
    assert ".".join(str(part) for part in (await app.do("know"))["version"]) == version
    plain = await start("plain", python=python)
    result = await plain.run({"text": "ab", "times": 2, "unknown": 1})
    assert result.output == {"text": "abab", "note": None}


async def test_an_error_carries_the_apps_words_and_leaves_the_instance_usable(start):
    app = await start()
    with pytest.raises(AppError) as caught:
        await app.do("raise", text="No credits left.")
    assert caught.value.message == "No credits left."
    assert app.printed()[-1] == "ValueError: No credits left."
    assert not [text for text in app.printed() if "stoker_worker" in text]
    with pytest.raises(AppError) as caught:
        await app.do("raise_unprintable")
    assert caught.value.message == "Unprintable"
    with pytest.raises(AppError, match=r"called exit\(3\)"):
        await app.do("sys_exit")
    assert (await app.do("echo"))["runs"] == 4


async def test_gpu_memory_that_ran_out_is_told_by_an_error_and_by_the_last_words_of_a_process(start):
    app = await start()
    with pytest.raises(AppError) as caught:
        await app.do("raise", text="too dark")
    assert not caught.value.vram_short
    with pytest.raises(AppError) as caught:
        await app.do("raise_short", text="The picture could not be made.")
    assert (caught.value.message, caught.value.vram_short) == ("The picture could not be made.", True)
    with pytest.raises(InstanceLost) as lost:
        await app.do("abort", text="CUDA error: out of memory")
    assert (lost.value.killed, lost.value.vram_short) == (True, True)


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"do": "os_exit"}, "exit code 3"),
        ({"do": "signal", "number": 9}, r"SIGKILL \(signal 9\); often the machine ran out of memory"),
        ({"do": "segfault"}, r"SIGSEGV \(signal 11\)"),
    ],
)
async def test_a_lost_process_is_told_with_how_it_ended(start, order, words):
    app = await start()
    with pytest.raises(InstanceLost, match=words):
        await app.run(order)
    assert app.instance.exited.is_set()
    with pytest.raises(InstanceLost):
        await app.do("echo")


async def test_what_was_printed_before_the_end_is_not_lost(start):
    app = await start()
    with pytest.raises(InstanceLost):
        await app.do("os_exit")
    assert app.printed() == ["last words"]


async def test_all_lines_of_a_run_are_there_when_it_returns(start):
    app = await start()
    assert await app.do("flood", lines=50_000) == 50_000
    assert app.printed() == [str(number) for number in range(50_000)]


async def test_what_is_no_text_is_cut_and_replaced(start):
    app = await start()
    await app.do("binary")
    progress = ["10%", "20%", "30%", "done"]  # on the other stream: it may come first
    first, long, after = [line for line in app.printed() if line not in progress]
    assert first == "\ufffd\ufffd\x00binary"
    assert long == "x" * 65536 + " [line cut]"
    assert after == "after"
    assert [line for line in app.printed() if line in progress] == progress
    await app.instance.stop("enough")
    assert "unfinished" in "".join(app.printed())


async def test_children_and_c_code_print_into_the_log(start):
    app = await start()
    await app.do("child_prints")
    await app.do("c_prints")
    assert sorted(app.printed()) == ["from C", "from a child", "to stderr"]


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ({"do": "nan"}, r"output 'scores\.1' is nan"),
        ({"do": "not_json"}, r"output 'thing' is a _thread\.lock"),
        ({"do": "circle"}, "contains itself"),
        ({"do": "large", "bytes": 65 * 1024 * 1024}, "Return large data as a File"),
    ],
)
async def test_an_output_that_cannot_be_sent_is_the_apps_error(start, order, words):
    app = await start()
    with pytest.raises(AppError, match=words):
        await app.run(order)
    assert (await app.do("echo"))["runs"] == 2


async def test_an_input_above_the_limit_is_the_callers_error(start):
    app = await start()
    with pytest.raises(InputError, match="too large"):
        await app.do("echo", text="x" * (65 * 1024 * 1024))
    assert await app.do("nothing") is None


async def test_an_app_that_listens_stops_by_itself(start):
    app = await start()
    run = asyncio.ensure_future(app.do("listen"))
    await app.until_printed("waiting")
    assert await app.instance.cancel(LIMIT_S) is True
    assert await run == "heard"
    assert (await app.do("echo"))["runs"] == 2


async def test_a_waiting_run_is_cancelled_and_the_instance_stays(start):
    app = await start()
    run = asyncio.ensure_future(app.do("wait", seconds=60))
    await app.until_printed("waiting")
    assert await app.instance.cancel(10) is True
    with pytest.raises(AppError):
        await run
    assert "on_cancel was called" in app.printed()
    assert (await app.do("echo"))["runs"] == 2


@pytest.mark.parametrize("order", [{"do": "block", "seconds": 60}, {"do": "deaf"}, {"do": "block_term"}])
async def test_a_run_that_does_not_listen_is_killed(start, order):
    app = await start()
    run = asyncio.ensure_future(app.run(order))
    await asyncio.sleep(0)
    assert await app.instance.cancel(0.3) is False
    with pytest.raises(InstanceLost):
        await run
    assert await is_gone(app.instance.pid)


async def test_a_cancel_without_grace_kills_at_once(start):
    app = await start()
    run = asyncio.ensure_future(app.do("wait", seconds=60))
    await app.until_printed("waiting")
    assert await app.instance.cancel(0) is False
    with pytest.raises(InstanceLost, match="SIGKILL"):
        await run
    assert "on_cancel was called" not in app.printed()


async def test_a_cancel_without_a_run_changes_nothing(start):
    app = await start()
    assert await app.instance.cancel(LIMIT_S) is True
    assert (await app.do("echo"))["runs"] == 1


async def test_a_run_over_its_time_is_told(start):
    app = await start()
    with pytest.raises(RunTimeout, match=r"0\.2 s for this task \(timeouts\.run .*STOKER_RUN_TIMEOUT_S"):
        await app.run({"do": "block", "seconds": 60}, timeout_s=0.2)
    await app.instance.stop("too slow")
    assert app.instance.exited.is_set()


async def test_a_cancel_that_waits_when_the_time_of_its_run_is_over_ends_the_process(start):
    app = await start()
    run = asyncio.ensure_future(app.run({"do": "block", "seconds": 60}, timeout_s=0.2))
    await asyncio.sleep(0)
    assert await app.instance.cancel(LIMIT_S) is False
    with pytest.raises(RunTimeout):
        await run
    assert await is_gone(app.instance.pid)


async def test_nothing_of_a_run_that_was_given_up_comes_to_the_next_one(start):
    app = await start()
    with pytest.raises(RunTimeout):
        await app.run({"do": "partials", "count": 4, "pause": 0.1}, timeout_s=0.05)
    app.partials.clear()
    assert (await app.do("echo"))["runs"] == 2
    assert app.partials == []


@pytest.mark.parametrize("missing", ["park", "unpark"])
async def test_an_app_with_both_hooks_is_parked_and_comes_back_as_it_was(start, tmp_path, missing):
    code = """
class App:
    def setup(self):
        self.seen = ["setup"]
    def run(self, given):
        return {"seen": self.seen}
    async def park(self):
        self.seen.append("park")
    def unpark(self):
        if len(self.seen) > 3:
            raise RuntimeError("no device")
        self.seen.append("unpark")
"""
    (tmp_path / "inference.py").write_text(code)
    app = await start(tmp_path, keep=(tmp_path,), work_dir=tmp_path / "work")
    assert app.instance.parks
    await app.instance.park()
    await app.instance.unpark()
    assert (await app.run({})).output == {"seen": ["setup", "park", "unpark"]}
    await app.instance.park()
    with pytest.raises(InstanceFailed, match="no device"):
        await app.instance.unpark()
    (tmp_path / "inference.py").write_text(code.replace(f"def {missing}(", "def other("))
    assert not (await start(tmp_path, keep=(tmp_path,), work_dir=tmp_path / "more")).instance.parks


async def test_a_forked_child_cannot_answer_for_the_app(start):
    app = await start()
    assert await app.do("fork") == "from the parent"
    assert (await app.do("echo"))["runs"] == 2


async def test_spawned_processes_can_import_the_app(start):
    app = await start()
    assert await app.do("spawn") == [4, 9]


async def test_what_an_app_leaves_behind_ends_with_it(start):
    app = await start()
    await app.do("leave_thread")
    child = await app.do("leave_child")
    await app.instance.stop("enough")
    assert await is_gone(app.instance.pid)
    assert await is_gone(child)
    assert not app.spec.work_dir.exists()


async def test_temporary_paths_are_short_and_plain(start, tmp_path):
    app = await start(work_dir=tmp_path / "with a blank" / ("long" * 20), own_tmp=False)
    folder = (await app.do("know"))["env"]["TMPDIR"]
    assert is_same(folder, app.spec.work_dir / "tmp")
    assert len(folder) < 60
    assert " " not in folder
    await app.instance.stop("enough")
    assert not Path(folder).parents[1].exists()


async def test_closed_streams_do_not_harm(start):
    app = await start()
    assert await app.do("close_streams") == "closed"


async def test_the_working_directory_is_restored_between_runs(start):
    app = await start()
    assert await app.do("move") == "/"
    assert (await app.do("know"))["cwd"] == str(APPS / "odd")


async def test_the_working_directory_is_restored_after_a_run_that_removed_its_own(start):
    app = await start()
    await app.do("move_and_remove")
    assert (await app.do("know"))["cwd"] == str(APPS / "odd")


async def test_files_are_reported_where_they_stand_and_removed_after_use(start):
    app = await start()
    result = await app.run({"do": "file"})
    first, second = result.files
    assert (first.pointer, first.content_type, first.size) == ("/files/0", "text/plain", 5)
    assert (second.pointer, second.path, second.size) == ("/a~1b", "/does/not/exist.png", 0)
    assert str(app.spec.work_dir) not in str(result.output)
    assert content_of(first.path) == b"hello"
    await app.do("nothing")
    assert content_of(first.path) is None


async def test_partials_come_in_order_and_the_last_is_the_result(start):
    app = await start()
    assert await app.do("partials", count=3, pause=0.06) == {"number": 2}
    assert app.partials == [b'{"number":0}', b'{"number":1}', b'{"number":2}']


async def test_many_partials_are_thinned_out(start):
    app = await start()
    assert await app.do("partials", count=5000) == {"number": 4999}
    assert len(app.partials) < 500


async def test_stopping_twice_and_at_once_is_fine(start):
    app = await start()
    await asyncio.gather(app.instance.stop("one"), app.instance.stop("two"))
    await app.instance.stop("three")
    assert app.printed().count("unload prints") == 1


async def test_the_process_dies_with_its_daemon(tmp_path):
    code = f"""
import asyncio, sys
from pathlib import Path
from stoker_worker.instance import Instance
from stoker_worker.instance_spec import InstanceSpec

async def main():
    spec = InstanceSpec(python=Path(sys.executable), app_dir=Path({str(APPS / "odd")!r}),
                        work_dir=Path({str(tmp_path)!r}))
    instance = await Instance.start(spec, lambda kind, text: None)
    print(instance.pid, flush=True)
    await asyncio.sleep(60)

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
    pid = int(await asyncio.wait_for(daemon.stdout.readline(), LIMIT_S))
    with contextlib.suppress(ProcessLookupError):
        daemon.send_signal(signal.SIGKILL)
    await daemon.wait()
    assert await is_gone(pid)
