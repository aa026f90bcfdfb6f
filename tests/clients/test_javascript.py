"""What only the JavaScript client does: polling, an EventSource, and its view of logs, timings and lists."""

import pytest
from clients.plans import ECHO, SLOW, STREAMED_S, task
from clients.sdks import Sdk

pytestmark = pytest.mark.timeout(240)
"""The first test installs what all need."""

JS = Sdk("js", "0.6.54")


@pytest.fixture(scope="module")
def facts(system_with_apps):
    steps = [
        {
            "name": "poll",
            "do": "run",
            "params": task(SLOW, seconds=0.4, lines=2),
            "options": {"stream": False, "pollIntervalMs": 100},
        },
        {
            "name": "poll_failing",
            "do": "run",
            "params": task(SLOW, seconds=0, lines=1, fail=True),
            "options": {"stream": False, "pollIntervalMs": 100},
        },
        {"name": "events", "do": "events", "params": task(SLOW, seconds=STREAMED_S, lines=2)},
        {"name": "look", "do": "look", "params": task(SLOW, seconds=0.2, lines=2)},
        {"name": "apps", "do": "apps", "app": ECHO},
        {"name": "unknown_version", "do": "run", "params": task(f"{ECHO}@ffffffff", message="x")},
    ]
    return JS.drive(steps, system_with_apps.base_url, system_with_apps.bench_key)


def test_polling_ends_with_the_output(facts):
    assert facts["poll"]["result"]["output"] == {"lines": 2, "total": 2, "done": True}


def test_polling_ends_with_the_failure(facts):
    assert "slow was told to fail" in facts["poll_failing"]["error"]["text"]


def test_an_event_source_is_told_every_state_with_ids_to_resume_from(facts):
    updates = facts["events"]["updates"]
    statuses = [update["status"] for update in updates]
    assert sorted(statuses) == statuses
    assert 7 in statuses
    assert statuses[-1] == 10
    assert all(update["event_id"] for update in updates)


def test_logs_timings_and_list_have_the_shapes_that_the_client_reads(facts):
    look = facts["look"]
    assert "error" not in look, look
    assert [line["content"] for line in look["logs"]["logs"] if line["content"].startswith("line ")] == [
        "line 1 of 2",
        "line 2 of 2",
    ]
    assert look["logs"]["events"]
    assert look["timings"]["total_duration_ms"] > 0
    assert 7 in [event["status"] for event in look["timings"]["events"]]
    assert len(look["list"]["items"]) == 2
    assert look["list"]["has_next"] is True
    assert look["list"]["next_cursor"]


def test_a_deleted_task_is_gone(facts):
    assert facts["look"]["deleted"] == 404


def test_an_unknown_version_is_told(facts):
    assert facts["unknown_version"]["error"]["text"].startswith("HTTP 404: App not found")


def test_the_apps_api_has_the_shapes_that_the_client_reads(facts):
    apps = facts["apps"]
    assert "error" not in apps, apps
    assert ECHO in apps["listed"]
    assert apps["same"] is True
    version = apps["app"]["version"]
    assert version["id"] == apps["app"]["version_id"] == apps["by_version"]["id"]
    assert apps["by_version"]["name"] == apps["app"]["name"]
    assert [item["id"] for item in apps["versions"]["items"]] == [version["id"]]
    assert version["functions"]["run"]["input_schema"]["properties"]["message"]["type"] == "string"
    assert apps["copy"]["id"] != apps["app"]["id"]
    assert apps["copy"]["version_id"] == version["id"]
    changed = apps["changed"]
    assert (changed["title"], changed["visibility"], changed["status"]) == ("A copy", "public", "deprecated")
    assert changed["status_message"] == "Use the first one."
    assert apps["license"] == "Be kind."
    assert apps["deleted"] == 404
