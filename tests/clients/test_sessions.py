"""Sessions through the official clients: three calls to one process, then all that may be asked of a session."""

import pytest
from clients.plans import ECHO, task
from clients.sdks import Sdk
from helpers import TEST_APPS

pytestmark = pytest.mark.timeout(150)  # the first test of a client also installs and drives it

COUNTER = "tests/counter"
CLIENTS = [Sdk("python", "0.36.0"), Sdk("python", "0.36.0", "async"), Sdk("js", "0.6.54")]


@pytest.fixture(scope="module", params=CLIENTS, ids=str)
def facts(request, system_with_apps):
    system_with_apps.deploy(TEST_APPS / "counter")
    params = task(COUNTER)
    steps = [
        {"name": "session", "do": "session", "params": params, "other_app": ECHO},
        {"name": "expiry", "do": "expiry", "params": params},
    ]
    if request.param.language == "python":
        steps.append({"name": "handle", "do": "handle", "params": params})
    seen = request.param.drive(steps, system_with_apps.base_url, system_with_apps.bench_key)
    assert [facts["error"] for facts in seen.values() if "error" in facts] == []
    return seen


def test_three_calls_reach_one_process_with_its_memory(facts):
    outputs = [facts["session"][name]["output"] for name in ("first", "second", "third")]
    start = outputs[0]["count"]
    assert [output["count"] for output in outputs] == [start, start + 1, start + 2]
    assert len({output["pid"] for output in outputs}) == 1


def test_every_answer_and_every_event_has_the_sessions_id(facts):
    seen = facts["session"]
    ids = [seen[name]["session_id"] for name in ("first", "second")] + seen["streamed"]
    assert set(ids) == {seen["id"]}
    assert seen["id"].startswith("sess_")


def test_a_session_is_read_kept_and_listed(facts):
    seen = facts["session"]
    assert seen["info"]["id"] == seen["kept"]["id"] == seen["id"]
    assert (seen["info"]["status"], seen["info"]["call_count"]) == ("active", 3)
    assert seen["id"] in seen["list"]
    assert seen["kept"]["expires_at"] >= seen["info"]["expires_at"]


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("mismatch", [400, "APP_MISMATCH"]),
        ("leased", [409, "WORKER_LEASED"]),
        ("ended", [410, "SESSION_ENDED"]),
        ("unknown", [404, "SESSION_NOT_FOUND"]),
    ],
)
def test_what_cannot_be_is_refused_with_the_platforms_code(facts, what, expected):
    assert facts["session"][what] == expected


def test_an_ended_session_can_be_read(facts):
    assert facts["session"]["ended_info"]["status"] == "ended"
    assert facts["session"]["ended_info"]["ended_at"]


def test_an_idle_session_expires(facts):
    assert facts["expiry"]["info"]["status"] == "expired"
    assert facts["expiry"]["expired"] == [410, "SESSION_EXPIRED"]


def test_the_python_clients_own_handle_opens_calls_and_ends_a_session(facts):
    if "handle" in facts:
        seen = facts["handle"]
        counts = [output["count"] for output in seen["outputs"]]
        assert counts == [counts[0], counts[0] + 1, counts[0] + 2]
        assert seen["info"]["call_count"] == 4
        assert seen["after"]["status"] == "ended"
