"""One attempt through its steps: what is announced, what ends it, and what lives afterwards."""

import dataclasses

import msgspec
import pytest
from executions import CANCEL, COLD, DISOWN, RETURN, WORKER, Scene, states
from recorders import until

from stoker.core.messages import LogType
from stoker.core.states import ResidentState
from stoker.core.states import TaskState as S
from stoker_worker.execution import Stop, StopKind
from stoker_worker.instance import RunResult
from stoker_worker.instance_errors import AppError, InputError, InstanceFailed, InstanceLost, RunTimeout
from stoker_worker.outcomes import MAX_META_BYTES, MAX_OUTPUT_BYTES, OutputFileMissing, PreparationFailed


@pytest.fixture
async def scene(tmp_path):
    made = Scene(tmp_path)
    yield made
    await made.residency.stop_all("test over")


async def test_a_cold_task_goes_through_every_state(scene):
    calls = await scene.run()
    assert states(calls) == [S.PREPARING, S.SERVING, S.SETTING_UP, S.RUNNING]
    assert scene.machine.steps == COLD
    assert (scene.outcome.state, bytes(scene.outcome.output)) == (S.COMPLETED, b'{"ok":1}')
    assert scene.residents() == {"s": ResidentState.IDLE}


async def test_with_code_and_environment_there_preparing_is_not_announced(scene):
    scene.machine.ready = True
    assert states(await scene.run()) == [S.SERVING, S.SETTING_UP, S.RUNNING]
    assert scene.machine.steps == COLD[1:]


async def test_a_warm_task_runs_at_once_with_two_writes(scene):
    await scene.run(task_id="t1")
    calls = await scene.run(task_id="t2")
    assert [name for name, *_ in calls] == ["accept", "finish"]
    assert states(calls) == [S.RUNNING]
    assert scene.outcome.load_s == 0


async def test_another_setup_is_another_instance(scene):
    await scene.run(setup_key="s")
    await scene.run(setup_key="other")
    assert len(scene.machine.processes) == 2
    assert set(scene.residents()) == {"s", "other"}


async def test_a_full_worker_evicts_the_least_valuable_before_it_loads(scene):
    for key in ("a", "b"):
        await scene.run(setup_key=key)
    scene.residency._residents["a"].value = -1.0
    scene.machine.steps.clear()
    await scene.run(setup_key="c")
    assert set(scene.residents()) == {"b", "c"}
    reason = "least valuable instance when the worker holds 2 of at most 2 instances"
    assert scene.machine.steps == ["prepare", f"stop: {reason}", "start", "setup", "run"]


async def test_uploading_is_announced_only_with_files(scene):
    scene.machine.result = RunResult(output={}, files=["one"])
    assert states(await scene.run())[-1] is S.UPLOADING
    assert scene.machine.steps[-1] == "upload"


@pytest.mark.parametrize("fails", ["", "upload"])
async def test_the_files_of_a_result_are_removed_before_the_next_app_may_write_theirs(scene, fails):
    scene.machine.result = RunResult(output={}, files=["one"])
    scene.machine.fails = {fails: ValueError()}
    await scene.run()
    assert scene.machine.removals[0] is True


async def test_files_that_went_with_the_process_are_not_the_apps_mistake(scene):
    scene.machine.result = RunResult(output={}, files=["one"])
    execution, running = await scene.begin("upload")
    [process] = scene.machine.processes
    process.lost = InstanceLost("The app's process was ended by SIGKILL.")
    process.exited.set()
    scene.machine.fails = {"upload": OutputFileMissing("The output field 'file' names a file that is gone.")}
    scene.machine.go.set()
    await running
    assert (scene.outcome.state, scene.outcome.error_code) == (S.FAILED, "app_crashed")
    assert "SIGKILL" in scene.outcome.error
    assert execution.writes.settled


async def test_an_upload_has_a_time_limit(scene):
    scene.machine.result = RunResult(output={}, files=["one"])
    scene.machine.holds = "upload"
    scene.tools = dataclasses.replace(scene.tools, upload_timeout_s=0.01)
    await scene.run()
    assert scene.outcome.error_code == "upload_timeout"
    assert "not stored within 0.01 s" in scene.outcome.error


@pytest.mark.parametrize(
    ("step", "error", "code", "text", "warm"),
    [
        ("prepare", PreparationFailed("no network"), "preparation_failed", "no network", False),
        (
            "start",
            InstanceFailed("No module named 'x'", "serving"),
            "setup_failed",
            "No module named 'x'",
            False,
        ),
        (
            "setup",
            InstanceFailed("weights are missing", "setup"),
            "setup_failed",
            "weights are missing",
            False,
        ),
        ("run", AppError("too dark"), "app_failed", "too dark", True),
        ("run", InputError("seconds: must be a number"), "invalid_input", "seconds: must be a number", True),
        ("upload", OutputFileMissing("field 'image'"), "output_file_missing", "field 'image'", True),
    ],
)
async def test_a_failure_ends_the_task_with_its_own_words(scene, step, error, code, text, warm):
    scene.machine.result = RunResult(output={}, files=["one"])
    scene.machine.fails[step] = error
    await scene.run()
    assert (scene.outcome.state, scene.outcome.error_code) == (S.FAILED, code)
    assert text in scene.outcome.error
    assert scene.residents() == ({"s": ResidentState.IDLE} if warm else {})


async def test_a_crash_fails_the_task_and_the_worker_goes_on(scene):
    scene.machine.fails["run"] = InstanceLost("killed by signal 9", -9)
    await scene.run(task_id="t1")
    assert (scene.outcome.state, scene.outcome.error_code) == (S.FAILED, "app_crashed")
    assert scene.residents() == {}
    scene.machine.fails.clear()
    await scene.run(task_id="t2")
    assert scene.outcome.state is S.COMPLETED


async def test_a_bug_of_ours_fails_the_task_not_the_daemon(scene):
    scene.machine.fails["run"] = ZeroDivisionError("oops")
    await scene.run()
    assert (scene.outcome.error_code, scene.residents()) == ("internal_error", {})


async def test_a_setup_that_takes_too_long_has_its_own_text(scene):
    scene.machine.holds = "setup"
    await scene.run(setup_timeout_s=0.01)
    assert scene.outcome.error_code == "setup_timeout"
    assert scene.outcome.error == (
        "The app was not ready within 0.01 s, preparing, start and setup together (timeouts.setup of the request or of "
        "inf.yml, STOKER_SETUP_TIMEOUT_S)."
    )
    assert scene.residents() == {}


async def test_a_result_that_is_too_large_says_to_return_a_file(scene):
    scene.machine.result = RunResult(output="x" * (5 * 1024 * 1024), files=[])
    await scene.run()
    assert scene.outcome.error_code == "output_too_large"
    assert "Return large data as a File" in scene.outcome.error


async def test_what_an_app_says_of_its_output_is_bounded_too(scene):
    scene.machine.result = RunResult(output={}, files=[], meta=b'"%b"' % (b"x" * MAX_META_BYTES))
    await scene.run()
    assert scene.outcome.error_code == "output_too_large"
    assert "output_meta is 1.0 MB of JSON; at most 1 MB" in scene.outcome.error


async def test_a_partial_output_that_is_too_large_is_left_out_which_the_log_says_once(scene):
    execution, running = await scene.begin("run")
    large = b'"%b"' % (b"x" * MAX_OUTPUT_BYTES)
    for output in (b'"fits"', large, large):
        scene.machine.on_partial(output)
    execution.stop(CANCEL)
    await running
    assert (scene.outcome.state, bytes(scene.outcome.output)) == (S.CANCELLED, b'"fits"')
    assert all(call[2] in (b"", b'"fits"') for call in scene.store.calls if call[0] == "append")
    told = "A partial output is 4.0 MB of JSON; at most 4 MB are shown, so it is left out."
    assert [text.startswith(told) for text in scene.store.texts()] == [True]


@pytest.mark.parametrize("step", ["prepare", "start", "setup", "upload"])
async def test_a_cancel_ends_every_step(scene, step):
    scene.machine.result = RunResult(output={}, files=["one"])
    execution, running = await scene.begin(step)
    execution.stop(CANCEL)
    await running
    assert scene.outcome.state is S.CANCELLED
    assert scene.residents() == ({"s": ResidentState.IDLE} if step == "upload" else {})


async def test_a_cancelled_run_that_obeys_leaves_its_model_warm_and_its_last_output(scene):
    execution, running = await scene.begin("run")
    scene.machine.on_partial(b'{"lines":2}')
    execution.stop(CANCEL)
    await running
    assert (scene.outcome.state, bytes(scene.outcome.output)) == (S.CANCELLED, b'{"lines":2}')
    assert "cancel 10" in scene.machine.steps
    assert scene.residents() == {"s": ResidentState.IDLE}


async def test_a_cancelled_run_that_had_to_be_killed_is_cold(scene):
    execution, running = await scene.begin("run")
    scene.machine.obeys = False
    scene.machine.fails["run"] = InstanceLost("killed", -9)
    execution.stop(CANCEL)
    await running
    assert scene.outcome.state is S.CANCELLED
    assert scene.residents() == {}


async def test_a_run_that_was_over_its_time_while_it_was_asked_to_end_leaves_nothing_warm(scene):
    """Its function goes on in the process, whatever the cancel says."""
    execution, running = await scene.begin("run")
    scene.machine.fails["run"] = RunTimeout("The app took longer than 30 s for this task.")
    execution.stop(CANCEL)
    await running
    assert scene.outcome.state is S.CANCELLED
    assert scene.residents() == {}


async def test_a_cancel_before_the_start_hands_back_where_the_store_ends_it(scene):
    execution = scene.execution()
    execution.stop(CANCEL)
    await until(lambda: scene.store.calls)
    await execution.run(WORKER, scene.residency)
    assert scene.store.calls == [("hand_back", "cancelled by its caller")]
    assert scene.machine.steps == []


@pytest.mark.parametrize("step", ["prepare", "setup", "run"])
async def test_a_returned_attempt_goes_back_to_the_queue(scene, step):
    execution, running = await scene.begin(step)
    execution.stop(RETURN)
    await running
    assert scene.store.calls[-1] == ("hand_back", "drain")
    assert "finish" not in scene.store.names()


@pytest.mark.parametrize("step", ["prepare", "setup", "run"])
async def test_a_disowned_attempt_is_silent(scene, step):
    execution, running = await scene.begin(step)
    told = len(scene.store.calls)
    execution.stop(DISOWN)
    await running
    assert len(scene.store.calls) == told
    assert scene.settled == [execution]


async def test_a_refused_write_stops_the_run(scene):
    execution, running = await scene.begin("run")
    scene.store.stale = True
    execution.writes.line(LogType.RUN, "late")
    await running
    assert "cancel 0" in scene.machine.steps
    assert scene.settled == [execution]


async def test_an_attempt_that_was_taken_back_is_not_started(scene):
    scene.store.stale = True
    await scene.run()
    assert scene.machine.steps == []


async def test_a_stronger_stop_replaces_a_weaker_one_and_not_the_reverse(scene):
    execution, running = await scene.begin("run")
    execution.stop(DISOWN)
    execution.stop(CANCEL)
    await running
    assert "finish" not in scene.store.names()


async def test_a_forced_cancel_follows_a_patient_one(scene):
    execution, running = await scene.begin("run")
    execution.stop(CANCEL)
    execution.stop(Stop(kind=StopKind.CANCEL, reason="now", grace_s=0))
    await running
    assert scene.machine.steps[-2:] == ["cancel 10", "cancel 0"]
    assert scene.outcome.state is S.CANCELLED


async def test_lines_go_to_the_task_that_has_the_instance(scene):
    scene.machine.lines = {"prepare": (LogType.BUILD, "built"), "start": (LogType.SERVE, "imported")}
    await scene.run()
    assert scene.store.texts() == ["built", "imported"]


async def test_the_run_goes_on_and_the_outcome_waits_while_redis_is_away(scene):
    _, running = await scene.begin("run")
    scene.store.away = True
    scene.machine.go.set()
    await running
    assert [spooled.outcome.state for spooled in scene.tools.spool.load()] == [S.COMPLETED]
    assert scene.settled == []
    scene.store.away = False
    await until(lambda: scene.settled)
    assert msgspec.json.decode(scene.outcome.output) == {"ok": 1}


async def test_an_idle_instance_that_dies_is_forgotten(scene):
    await scene.run()
    scene.machine.processes[0].exited.set()
    await until(lambda: scene.residents() == {})
    await scene.run(task_id="t2")
    assert scene.outcome.state is S.COMPLETED


async def test_only_an_idle_instance_is_evicted(scene):
    _, running = await scene.begin("run")
    assert not scene.residency.evict("s", "room")
    scene.machine.go.set()
    await running
    assert scene.residency.evict("s", "room")
    await until(lambda: scene.residents() == {})
    assert not scene.residency.evict("s", "room")
