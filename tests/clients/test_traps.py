"""The traps that clients of this API fall into, by the numbers of the list that they were found in.

What any client can fall into (3 and 6, 7, 10) is asked of each in test_every_client.py.
"""

import time

import pytest
from clients import raw
from clients.plans import ECHO, ODD_TEXT, SLOW, STREAMED_S, task
from clients.sdks import OLD_NUMBERS, Sdk
from helpers import EXAMPLES

pytestmark = pytest.mark.timeout(240)
"""The first test installs what all need."""

NEWEST = Sdk("python", "0.36.0")
NEWEST_ASYNC = Sdk("python", "0.36.0", "async")
OLD = Sdk("python", "0.6.0", numbers=OLD_NUMBERS)
MAX_LINE_BYTES = 100 * 1024  # above it asynchronous clients refuse the line
CANCEL_GRACE_S = 10  # the default of `cancel_grace_s`


def test_1_streams_are_ascii_whatever_the_log_holds(system_with_apps):
    with raw.client(system_with_apps, raw.SDK_NAMED) as http:
        made = raw.run(http, task(SLOW, seconds=0, lines=1, text=ODD_TEXT))
        raw.wait_end(system_with_apps, made["id"])
        for accept in (raw.NDJSON, raw.SSE):
            body = http.get(f"/tasks/{made['id']}/stream", headers=accept).content
            assert body.isascii()
            assert b"\\u2028" in body


def test_2_a_silent_task_is_sent_whole_again(system_with_apps):
    with raw.client(system_with_apps, raw.SDK_NAMED) as http:
        made = raw.run(http, task(SLOW, seconds=4.9, lines=0))
        _, events = raw.stream(http, made["id"], **raw.NDJSON)
    running = [event for event in events if event.get("status") == 7]
    repeated = len(running) - len({str(event) for event in running})
    assert repeated >= 3
    assert all(event["input"] == {"seconds": 4.9, "lines": 0} and event["created_at"] for event in running)
    assert events[-1]["status"] == 10


@pytest.mark.parametrize("sdk", [NEWEST, NEWEST_ASYNC, OLD], ids=str)
def test_2_a_client_waits_through_the_silence(sdk, system_with_apps):
    steps = [{"name": "run", "do": "stream", "params": task(SLOW, seconds=3.5, lines=0)}]
    facts = sdk.drive(steps, system_with_apps.base_url, system_with_apps.bench_key)["run"]
    assert sdk.numbers[0] == facts["updates"][-1]["status"]
    assert len([update for update in facts["updates"] if update["status"] == 7]) >= 3


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("sdk", [NEWEST, NEWEST_ASYNC], ids=str)
def test_2_a_client_waits_through_200_seconds_of_silence(sdk, system):
    """On the default interval."""
    system.deploy(EXAMPLES / "slow")
    steps = [{"name": "run", "do": "run", "params": task(SLOW, seconds=200, lines=0)}]
    facts = sdk.drive(steps, system.base_url, system.bench_key, timeout_s=300)
    assert facts["run"]["result"]["output"] == {"lines": 0, "total": 0, "done": True}


@pytest.mark.parametrize("headers", [raw.NDJSON, raw.SSE], ids=["ndjson", "sse"])
def test_3_the_stream_of_a_finished_task_begins_with_its_ending_and_ends(system_with_apps, headers):
    with raw.client(system_with_apps, raw.SDK_NAMED) as http:
        made = raw.run(http, task(ECHO, message="done"))
        raw.wait_end(system_with_apps, made["id"])
        http.timeout = 20  # an upper bound on waiting: nothing may wait for a heartbeat here
        _, events = raw.stream(http, made["id"], **headers)
    assert events[0]["status"] == 10
    assert events[0]["output"] == {"message": "done"}


def test_4_a_result_of_700_kb_reaches_the_asynchronous_client(system_with_apps):
    message = "warm words " * 64_000
    steps = [{"name": "large", "do": "run", "params": task(ECHO, message=message)}]
    facts = NEWEST_ASYNC.drive(steps, system_with_apps.base_url, system_with_apps.bench_key)["large"]
    assert message == facts["result"]["output"]["message"]


@pytest.mark.parametrize(
    ("given", "least"),
    [
        (task(ECHO, message="warm words " * 64_000), 0),  # none, when it ended before the stream was opened
        (task(SLOW, seconds=STREAMED_S, lines=4, text="long " * 30_000), 2),
    ],
    ids=["output", "input-and-log"],
)
def test_4_no_line_of_a_stream_is_too_long_for_asynchronous_clients(system_with_apps, given, least):
    with raw.client(system_with_apps, raw.SDK_NAMED) as http:
        made = raw.run(http, given)
        with http.stream("GET", f"/tasks/{made['id']}/stream", headers=raw.NDJSON) as answer:
            lengths = [len(line) for line in answer.iter_lines()]
    assert len(lengths) >= least
    assert all(length < MAX_LINE_BYTES for length in lengths)


def test_4_a_long_input_is_left_out_of_the_stream_and_kept_in_the_task(system_with_apps):
    with raw.client(system_with_apps, raw.SDK_NAMED) as http:
        made = raw.run(http, task(SLOW, seconds=0, lines=1, text="long " * 30_000))
        ended = raw.wait_end(system_with_apps, made["id"])
        _, events = raw.stream(http, made["id"], **raw.NDJSON)
    assert ended["input"]["text"] == "long " * 30_000
    assert events[-1]["status"] == 10
    assert events[-1]["output"] == {"lines": 1, "total": 1, "done": True}


def test_5_a_cancel_ends_the_stream_within_the_grace(system_with_apps):
    with raw.client(system_with_apps, raw.SDK_NAMED) as http:
        made = raw.run(http, task(SLOW, seconds=60, lines=120))
        asked = 0.0
        with http.stream("GET", f"/tasks/{made['id']}/stream", headers=raw.NDJSON) as answer:
            for event in raw.decoded(answer):
                if not asked and event.get("status") == 7 and event["logs"]:
                    assert http.post(f"/tasks/{made['id']}/cancel").is_success
                    asked = time.monotonic()
                assert not asked or time.monotonic() < asked + CANCEL_GRACE_S + 1
        assert event["status"] == 12


def test_5_a_cooperative_cancel_keeps_the_instance(system_with_apps):
    with raw.client(system_with_apps, raw.SDK_NAMED) as http:
        made = raw.run(http, task(SLOW, seconds=60, lines=600))
        with http.stream("GET", f"/tasks/{made['id']}/stream", headers=raw.NDJSON) as answer:
            asked = False
            for event in raw.decoded(answer):
                if not asked and event.get("status") == 7 and event["logs"]:
                    asked = http.post(f"/tasks/{made['id']}/cancel").is_success
        assert asked
        again = raw.run(http, {**task(SLOW, seconds=0, lines=1), "workers": [event["worker_id"]]})
        _, events = raw.stream(http, again["id"], **raw.NDJSON)
    assert not {4, 5, 6} & {event.get("status") for event in events}


def test_8_version_2_of_the_api_gets_the_bare_task(system_with_apps):
    with raw.client(system_with_apps, raw.SDK_V2) as http:
        body = http.post("/apps/run", json=task(ECHO, message="bare")).json()
    assert "id" in body
    assert not {"data", "success"} & set(body)


def test_9_curl_gets_the_documented_numbers_and_the_envelope(system_with_apps):
    with raw.client(system_with_apps, raw.CURL) as http:
        made = raw.run(http, task(ECHO, message="curl"))
        raw.wait_end(system_with_apps, made["id"])
        body = http.get(f"/tasks/{made['id']}").json()
    assert body["success"] is True
    assert body["data"]["status"] == 9
