"""The traps of test_traps.py that need a whole system: uploads, queues, two workers. One system for all of them."""

import base64
import secrets
import tempfile
from pathlib import Path

import pytest
from helpers import TEST_APPS, alive, running_system, wait_gone, wait_until

ENDS = "traps/ends"
FIXED_SECONDS = 0.4
COMPLETED, FAILED, CANCELLED = 9, 10, 11


@pytest.fixture(scope="module")
def shared():
    """A system whose apps share /tmp, as where the kernel allows nothing else."""
    with (
        tempfile.TemporaryDirectory(prefix="stoker-traps-", ignore_cleanup_errors=True) as folder,
        running_system(Path(folder) / "data", "--workers", "2", STOKER_PRIVATE_TMP="off") as running,
    ):
        running.deploy(TEST_APPS / "traps" / "ends")
        yield running


@pytest.fixture(scope="module")
def apart(system):
    system.deploy(TEST_APPS / "traps" / "ends")
    return system


def submit(http, what, worker=None, **given):
    body = {"app": ENDS, "infra": "private", "input": {"do": what, **given}}
    if worker is not None:
        body["workers"] = [worker]
    answer = http.post("/apps/run", json=body)
    assert answer.is_success, answer.text
    return answer.json()["data"]["id"]


def read(http, task_id):
    return http.get(f"/tasks/{task_id}").json()["data"]


def ended(http, task_id):
    def look():
        task = read(http, task_id)
        return task if task["status"] >= COMPLETED else None

    return wait_until(look, f"the end of {task_id}")


def run(http, what, **given):
    return ended(http, submit(http, what, **given))


def printed(http, task_id, text):
    wait_until(
        lambda: any(text in line["content"] for line in read(http, task_id)["logs"]), f"{text!r} in the log"
    )


def workers_of(http):
    engines = http.post("/engines/list", json={}).json()["data"]["items"]
    return [worker["id"] for engine in engines for worker in engine["workers"]]


def both(http):
    """Two tasks that write the same name at once, on two workers."""
    one, two = workers_of(http)
    ids = [
        submit(http, "fixed", worker=worker, text=text, seconds=FIXED_SECONDS)
        for worker, text in ((one, "first"), (two, "second"))
    ]
    tasks = [ended(http, task_id) for task_id in ids]
    files = [http.get(task["output"]["file"]["uri"]).text for task in tasks]
    return tasks, files


def test_10_a_result_is_stored_before_unload_deletes_it(shared):
    with shared.client() as http:
        done = run(http, "file", text="kept")
        assert http.get(done["output"]["file"]["uri"]).text == "kept"


def test_11_two_apps_write_one_name_at_once_each_in_its_own_tmp(apart):
    with apart.client() as http:
        tasks, files = both(http)
    assert [task["output"]["read"] for task in tasks] == ["first", "second"]
    assert files == ["first", "second"]
    assert not any("gives apps no" in line["content"] for task in tasks for line in task["logs"])


def test_11_where_apps_share_tmp_they_take_turns_and_the_log_says_so(shared):
    with shared.client() as http:
        tasks, files = both(http)
    assert [task["output"]["read"] for task in tasks] == ["first", "second"]
    assert files == ["first", "second"]
    lines = [line["content"] for task in tasks for line in task["logs"]]
    assert any("gives apps no /tmp of their own" in line for line in lines)


def test_15_after_a_blocked_task_was_cancelled_its_worker_runs_the_next(apart):
    with apart.client() as http:
        worker = workers_of(http)[0]
        blocked = submit(http, "block", worker=worker)
        printed(http, blocked, "blocked")
        http.post(f"/tasks/{blocked}/cancel", json={"timeout": 100})
        assert ended(http, blocked)["status"] == CANCELLED
        following = ended(http, submit(http, "fine", worker=worker))
    assert (following["output"], following["worker_id"]) == ("fine", worker)


def test_26_a_result_that_was_never_written_names_its_field_and_the_apps_own_path(apart):
    with apart.client() as http:
        task = run(http, "missing")
    assert task["status"] == FAILED
    assert "'image'" in task["error"]
    assert "'/tmp/never written.png'" in task["error"]


def test_no_process_is_left_when_the_worker_ends():
    with tempfile.TemporaryDirectory(prefix="stoker-traps-", ignore_cleanup_errors=True) as folder:
        with running_system(Path(folder) / "data", "--workers", "1") as running:
            running.deploy(TEST_APPS / "traps" / "ends")
            with running.client() as http:
                children = {run(http, "daemon")["output"], run(http, "late", seconds=300)["output"]}
            assert all(alive(pid) for pid in children)
        wait_gone(children)


def test_no_instance_finds_the_input_of_another_where_its_variables_and_its_folder_lead(apart):
    apart.deploy(TEST_APPS / "traps" / "spy")
    marker = secrets.token_hex(16)  # is nowhere else, this file included
    with apart.client() as http:
        one, two = workers_of(http)[:2]
        uri = "data:text/plain;base64," + base64.b64encode(marker.encode()).decode()

        def begin(worker, who, **given):
            body = {"app": "traps/spy", "infra": "private", "workers": [worker], "setup": {"who": who}}
            return (
                http.post("/apps/run", json=body | {"input": given}).raise_for_status().json()["data"]["id"]
            )

        holder = begin(one, "holder", file=uri)
        printed(http, holder, f"holding {marker}")
        spy = ended(http, begin(two, "spy", marker=marker))
        http.post(f"/tasks/{holder}/cancel", json={"force": True})
        ended(http, holder)
    assert spy["status"] == COMPLETED, spy["error"]
    assert spy["output"] == {"found": [], "settings": []}
