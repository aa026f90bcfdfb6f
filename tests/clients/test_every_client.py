"""What every official client does all day, each in its own environment against the running system."""

import hashlib

import pytest
from clients.plans import ODD_TEXT, STREAMED_S, everyday_steps
from clients.sdks import OLD_NUMBERS, Sdk
from helpers import EXAMPLES

pytestmark = pytest.mark.timeout(150)  # the first test of a client also installs and drives it

CLIENTS = [
    Sdk("python", "0.36.0"),
    Sdk("python", "0.36.0", "async"),
    Sdk("python", "0.7.18"),  # X-API-Version: 2, bare bodies
    Sdk("python", "0.6.32"),  # names itself, needs `success`
    Sdk("python", "0.6.0", numbers=OLD_NUMBERS),  # names nothing, server-sent events
    Sdk("python", "0.6.0", "async", numbers=OLD_NUMBERS),
    Sdk("python", "0.5.5", numbers=OLD_NUMBERS),
    Sdk("js", "0.6.54"),
]
RUNNING = 7


class Seen:
    """The facts that one client brought back, and the number that it knows as completed."""

    def __init__(self, sdk, facts):
        self.sdk = sdk
        self.facts = facts
        self.completed = sdk.numbers[0]

    def ok(self, name):
        assert "error" not in self.facts[name], self.facts[name]
        return self.facts[name]

    def error(self, name):
        return self.facts[name]["error"]


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    """A file whose name needs encoding in an address."""
    path = tmp_path_factory.mktemp("files") / "my receipt é.png"
    path.write_bytes((EXAMPLES / "ocr" / "sample.png").read_bytes())
    return path


@pytest.fixture(scope="module", params=CLIENTS, ids=str)
def seen(request, system_with_apps, picture):
    sdk, system = request.param, system_with_apps
    upload = {"path": str(picture), "filename": picture.name, "from_path": uploads_paths(sdk)}
    steps = everyday_steps(sdk.numbers, system.base_url, upload)
    return Seen(sdk, sdk.drive(steps, system.base_url, system.bench_key))


def uploads_paths(sdk):
    """Whether the client can upload a local path: the older asynchronous ones raise within themselves."""
    return sdk.mode == "sync" or sdk.version == "0.36.0"


def contents(task):
    return [line["content"] for line in task["logs"] or []]


def test_run_and_wait_gives_the_output(seen):
    result = seen.ok("run")["result"]
    assert result["output"] == {"message": "hi there"}
    assert seen.completed == result["status"]
    assert result["input"] == {"message": "hi there"}


def test_run_without_waiting_gives_the_task_and_get_its_end(seen):
    facts = seen.ok("get")
    assert facts["handle"]["id"] == facts["result"]["id"]
    assert facts["handle"]["status"] < seen.completed
    assert seen.completed == facts["result"]["status"]
    assert facts["result"]["output"] == {"message": "later"}


def test_stream_shows_the_states_in_order(seen):
    updates = seen.ok("stream")["updates"]
    # An ending may come under two numbers, for clients that cannot be told apart.
    statuses = [update["status"] for update in updates]
    assert sorted(statuses) == statuses
    assert RUNNING in statuses
    assert seen.completed == statuses[-1]


def test_every_update_is_a_whole_task(seen):
    updates = seen.ok("stream")["updates"]
    assert len({update["id"] for update in updates}) == 1
    assert all(update["created_at"] and update["updated_at"] for update in updates)
    assert all(update["input"] == {"seconds": STREAMED_S, "lines": 3} for update in updates)


def test_stream_brings_logs_and_partial_outputs_as_they_come(seen):
    updates = seen.ok("stream")["updates"]
    counts = [len(contents(update)) for update in updates]
    assert sorted(counts) == counts
    assert updates[-1]["output"] == {"lines": 3, "total": 3, "done": True}
    partial = [update["output"] for update in updates if update["status"] == RUNNING and update["output"]]
    assert any(not output["done"] for output in partial)
    assert [line for line in contents(updates[-1]) if line.startswith("line ")] == [
        "line 1 of 3",
        "line 2 of 3",
        "line 3 of 3",
    ]


def test_cancel_ends_the_stream_as_cancelled(seen):
    facts = seen.facts["cancel"]
    assert facts["updates"][-1]["id"] == facts["cancelled"]
    assert facts["error"]["text"].lower() == "task cancelled"


def test_a_failing_app_raises_its_own_message(seen):
    for step in ("failing", "failing_stream"):
        assert "slow was told to fail, and did so after 1 lines" in seen.error(step)["text"]


def test_a_failed_task_is_a_runtime_error_in_python(seen):
    if seen.sdk.language == "python":
        assert seen.error("failing")["is_runtime_error"]


def test_a_wrong_key_is_refused_in_the_known_words(seen):
    assert seen.error("wrong_key")["text"] == "HTTP 401: Invalid API key"
    assert seen.error("wrong_key")["status_code"] == 401


def test_an_unknown_app_is_refused_in_the_known_words(seen):
    assert seen.error("unknown_app")["text"].startswith("HTTP 404: App not found")
    assert seen.error("unknown_app")["status_code"] == 404


@pytest.mark.parametrize("step", ["wrong_input", "missing_input"])
def test_a_wrong_input_is_refused_with_its_field(seen, step):
    assert seen.error(step)["text"].startswith("HTTP 400: Input validation failed")
    assert "message" in seen.error(step)["text"]
    assert seen.error(step)["status_code"] == 400


def test_line_separators_and_other_odd_signs_arrive_unchanged(seen):
    assert f"{ODD_TEXT} 1 of 1" in contents(seen.ok("odd_text")["result"])
    assert seen.ok("odd_output")["result"]["output"] == {"message": ODD_TEXT}


def test_waiting_for_and_cancelling_a_finished_task_is_no_error(seen):
    assert seen.ok("again")["result"]["output"] == {"message": "once"}


def test_a_base_url_may_end_in_a_slash(seen):
    assert seen.ok("slash")["result"]["output"] == {"message": "slash"}


def test_an_uploaded_file_is_downloaded_without_a_key(seen, picture):
    facts = seen.ok("upload")
    assert facts["sha256"] == hashlib.sha256(picture.read_bytes()).hexdigest()
    if uploads_paths(seen.sdk):  # else it has no name
        assert facts["result"]["uri"].endswith("/my%20receipt%20%C3%A9.png")
