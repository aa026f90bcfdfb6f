"""The rule that the system exists for: a task runs where its model is loaded, and nothing is loaded twice."""

import re

import pytest
from clients import raw
from clients.plans import OCR, SLOW, task
from helpers import EXAMPLES, running_system, wait_until

pytestmark = pytest.mark.timeout(240)  # the first one builds the environment of the OCR app

LOADING = {4, 5, 6}  # preparing, serving, setting_up
DEFAULTS = {
    "min_confidence": 0.5,
    "box_threshold": 0.5,
    "unclip_ratio": 1.6,
    "max_side": 960,
    "threads": 1,
    "detect": True,
    "orientation": True,
}


class Seen:
    """One task as its stream told it: the states entered and their times, by the server's clock."""

    def __init__(self, http, params):
        made = raw.run(http, params)
        _, events = raw.stream(http, made["id"], **raw.NDJSON)
        self.task = events[-1]
        assert self.task["status"] == 10, self.task
        timings = raw.data_of(http.get(f"/tasks/{made['id']}/timings"))
        self.states = {event["status"] for event in timings["events"]}
        self.total_ms = timings["total_duration_ms"]

    @property
    def loaded(self):
        return bool(self.states & LOADING)


@pytest.fixture(scope="module")
def fresh(tmp_path_factory):
    """A system of its own with two workers, so that what is warm there is known."""
    folder = tmp_path_factory.mktemp("warm")
    with running_system(folder / "data", "--workers", "2") as running:
        # Deployed as from another machine: this one has yet to build the environment, which is part of a cold start.
        for name in ("ocr", "slow"):
            running.cli("apps", "deploy", str(EXAMPLES / name), STOKER_CACHE_DIR=str(folder / "elsewhere"))
        yield running


@pytest.fixture(scope="module")
def http(fresh):
    with raw.client(fresh, raw.SDK_NAMED) as made:
        yield made


@pytest.fixture(scope="module")
def picture(http):
    """The address of the sample picture, uploaded."""
    data = (EXAMPLES / "ocr" / "sample.png").read_bytes()
    return raw.upload(http, "sample.png", "image/png", data)["uri"]


def ocr(picture, **setup):
    return {**task(OCR, image=picture), "setup": setup} if setup else task(OCR, image=picture)


def test_equal_setups_share_an_instance_and_others_load_their_own(http, picture):
    cold = Seen(http, ocr(picture))
    assert cold.states >= LOADING
    warm = Seen(http, ocr(picture))
    spelled_out = Seen(http, ocr(picture, **DEFAULTS))
    in_other_order = Seen(http, ocr(picture, detect=True, min_confidence=0.5))
    for again in (warm, spelled_out, in_other_order):
        assert not again.loaded
        assert again.task["worker_id"] == cold.task["worker_id"]
        assert again.task["output"]["text"] == cold.task["output"]["text"]
    # A ratio on one machine, of which one side includes what the other lacks. What else runs there may slow a warm
    # run down, so one of some has to show what it costs.
    wait_until(lambda: Seen(http, ocr(picture)).total_ms < cold.total_ms / 10, "a tenth of the cold time")
    assert Seen(http, ocr(picture, min_confidence=0.99)).loaded


def test_fifty_alternating_tasks_keep_two_setups_on_a_worker_each_with_two_loads(http, picture):
    seen = [Seen(http, ocr(picture, max_side=(64, 96)[number % 2])) for number in range(50)]
    assert sum(one.loaded for one in seen) <= 2
    for which in (0, 1):
        assert len({one.task["worker_id"] for one in seen[which::2]}) == 1


@pytest.mark.long
def test_fifty_alternating_tasks_in_flight_at_once_stay_apart(http, picture):
    """A worker whose own line is empty may load the other's model once, to help out; none loads a model twice."""
    made = [raw.run(http, ocr(picture, max_side=(72, 104)[number % 2]))["id"] for number in range(50)]
    loads = []
    for number, task_id in enumerate(made):
        _, events = raw.stream(http, task_id, **raw.NDJSON)
        assert events[-1]["status"] == 10
        timings = raw.data_of(http.get(f"/tasks/{task_id}/timings"))
        if {event["status"] for event in timings["events"]} & LOADING:
            loads.append((number % 2, raw.data_of(http.get(f"/tasks/{task_id}"))["worker_id"]))
    assert len(loads) == len(set(loads))


def test_a_task_that_waits_for_a_warm_worker_says_so(http, fresh):
    """Two long tasks fill both workers; the third one's reason names what it waits for."""
    running = [raw.run(http, task(SLOW, seconds=30, lines=0))["id"] for _ in range(2)]
    for task_id in running:
        with http.stream("GET", f"/tasks/{task_id}/stream", headers=raw.NDJSON) as answer:
            next(event for event in raw.decoded(answer) if event.get("status") == 7)
    waiting = raw.run(http, task(SLOW, seconds=0, lines=0))["id"]
    with http.stream("GET", f"/tasks/{waiting}/stream", headers=raw.NDJSON) as answer:
        event = next(event for event in raw.decoded(answer) if event.get("queue_reason"))
    assert event["status"] == 2
    assert re.search(r"busy|wait", event["queue_reason"])
    for task_id in (*running, waiting):
        assert http.post(f"/tasks/{task_id}/cancel").is_success
        assert raw.wait_end(fresh, task_id)["status"] in {10, 12}
