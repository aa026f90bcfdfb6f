"""Who is answered how: every row of the table that tells generations of clients apart, as raw requests."""

from dataclasses import dataclass, field

import pytest
from clients import raw
from clients.plans import ECHO, SLOW, task
from clients.sdks import NEW_NUMBERS, OLD_NUMBERS

SSE_TYPE = "text/event-stream; charset=utf-8"
NDJSON_TYPE = "application/x-ndjson"


@dataclass(frozen=True)
class Row:
    """One kind of client: what it sends, and what it must get."""

    name: str
    headers: dict
    numbers: tuple = NEW_NUMBERS
    bare: bool = False
    prefix: str = ""
    numbering: str = ""
    accept: dict = field(default_factory=dict)
    stream_type: str = NDJSON_TYPE


ROWS = [
    Row("A-version-2", raw.SDK_V2, bare=True, accept=raw.NDJSON),
    Row("A-version-2-default", raw.SDK_V2, bare=True),
    Row("A-version-2-events", raw.SDK_V2, bare=True, accept=raw.SSE, stream_type=SSE_TYPE),
    Row("B-named", raw.SDK_NAMED, accept=raw.NDJSON),
    Row("C-named-before-0.7.20", raw.SDK_NAMED_OLD, accept=raw.NDJSON),
    Row("E-prefix", raw.SDK_UNNAMED, prefix="/compat/v2", accept=raw.SSE, stream_type=SSE_TYPE),
    Row("E-prefix-curl", raw.CURL, prefix="/compat/v2", stream_type=SSE_TYPE),
    Row("E-key", raw.SDK_UNNAMED, numbering="v2", accept=raw.SSE, stream_type=SSE_TYPE),
    Row("G-curl", raw.CURL, numbers=OLD_NUMBERS, stream_type=SSE_TYPE),
    Row("G-events", raw.CURL, numbers=OLD_NUMBERS, accept=raw.SSE, stream_type=SSE_TYPE),
    Row("JavaScript", raw.SDK_JS, accept=raw.NDJSON),
]


@dataclass(frozen=True)
class Ended:
    """Ids of three tasks, one for each ending."""

    completed: str
    failed: str
    cancelled: str


@pytest.fixture(scope="module")
def ended(system_with_apps):
    system = system_with_apps
    with raw.client(system, raw.SDK_NAMED) as http:
        completed = raw.run(http, task(ECHO, message="hi"))["id"]
        failed = raw.run(http, task(SLOW, seconds=0, lines=1, fail=True))["id"]
        cancelled = raw.run(http, task(SLOW, seconds=60, lines=0))["id"]
        assert http.post(f"/tasks/{cancelled}/cancel").is_success
        made = Ended(completed, failed, cancelled)
        numbers = [raw.wait_end(system, task_id)["status"] for task_id in (completed, failed, cancelled)]
        assert list(NEW_NUMBERS) == numbers
    return made


@pytest.fixture(scope="module")
def numbered_key(system_with_apps):
    """A key whose owner asked for the newer numbers."""
    made = system_with_apps.cli_json(
        "keys", "create", "--name", "numbers", "--rate", "get=0", "--numbering", "v2"
    )
    return made["key"]


@pytest.fixture(params=ROWS, ids=lambda row: row.name)
def row(request):
    return request.param


@pytest.fixture
def http(row, system_with_apps, numbered_key):
    key = numbered_key if row.numbering else ""
    with raw.client(system_with_apps, row.headers, row.prefix, key) as made:
        yield made


def test_status_numbers_are_those_of_the_client(row, http, ended):
    seen = [
        raw.data_of(http.get(f"/tasks/{each}"))["status"]
        for each in (ended.completed, ended.failed, ended.cancelled)
    ]
    assert list(row.numbers) == seen


def test_status_route_has_the_same_numbers(row, http, ended):
    assert row.numbers[0] == raw.data_of(http.get(f"/tasks/{ended.completed}/status"))["status"]


def test_bodies_are_enveloped_unless_the_client_wants_them_bare(row, http, ended):
    for answer in (
        http.get(f"/tasks/{ended.completed}"),
        http.post("/apps/run", json=task(ECHO, message="x")),
        http.post(f"/tasks/{ended.completed}/cancel"),
    ):
        body = answer.json()
        if row.bare:
            assert "id" in body
            assert "data" not in body
        else:
            assert {"success", "status", "data", "messages"} <= set(body)
            assert (body["success"], body["status"]) == (True, 200)


def test_stream_has_the_form_and_the_numbers_of_the_client(row, http, ended):
    for task_id, number in zip((ended.completed, ended.failed, ended.cancelled), row.numbers, strict=True):
        answer, events = raw.stream(http, task_id, **row.accept)
        assert row.stream_type.split(";")[0] == answer.headers["content-type"].split(";")[0]
        events = [event for event in events if event]  # server-sent events end with an empty `done`
        assert [number] == [event["status"] for event in events]
        assert task_id == events[0]["id"]


def test_errors_carry_the_fields_of_both_generations(row, system_with_apps):
    with raw.client(system_with_apps, row.headers, row.prefix, key="inf_wrong") as http:
        answer = http.post("/apps/run", json=task(ECHO, message="x"))
    body = answer.json()
    assert 401 == answer.status_code == body["status"]
    assert "Invalid API key" == body["detail"] == body["message"] == body["error"]["message"]
    assert body["success"] is False
    assert body["type"].endswith(f"/errors/{body['error']['code']}")
    assert body["title"]


def test_row_d_an_unnamed_reader_of_json_lines_gets_the_newer_numbers(system_with_apps, ended):
    for accept in ("application/x-ndjson", "application/jsonl"):
        with raw.client(system_with_apps, raw.SDK_UNNAMED_STREAM | {"Accept": accept}) as http:
            for task_id, number in zip(
                (ended.completed, ended.failed, ended.cancelled), NEW_NUMBERS, strict=True
            ):
                _, events = raw.stream(http, task_id)
                assert [number] == [event["status"] for event in events]


@pytest.mark.parametrize("agent", ["python-requests/2.34.2", "Python/3.11 aiohttp/3.14.5"])
def test_row_f_unnamed_event_readers_get_the_ending_of_both_generations(system_with_apps, ended, agent):
    expected = {ended.completed: [9, 10], ended.cancelled: [12, 11], ended.failed: ["failed", 10]}
    with raw.client(system_with_apps, raw.SDK_UNNAMED_STREAM | {"User-Agent": agent}) as http:
        for task_id, statuses in expected.items():
            answer, events = raw.stream(http, task_id)
            assert "text/event-stream" in answer.headers["content-type"]
            events = [event for event in events if event]
            assert statuses == [event["status"] for event in events]
            first, second = ({**event, "status": 0} for event in events)
            assert first == second


@pytest.mark.parametrize("missing", ["Cache-Control", "Content-Type", "Accept-Encoding"])
def test_row_f_is_narrow(system_with_apps, ended, missing):
    """A reader that is not exactly the old SDK sees one ending, with the documented number."""
    headers = {name: value for name, value in raw.SDK_UNNAMED_STREAM.items() if name != missing}
    with raw.client(system_with_apps, headers) as http:
        _, events = raw.stream(http, ended.completed)
    assert [event["status"] for event in events if event] == [9]


def test_unnamed_json_calls_get_the_documented_numbers(system_with_apps, ended):
    with raw.client(system_with_apps, raw.SDK_UNNAMED) as http:
        assert raw.data_of(http.get(f"/tasks/{ended.completed}"))["status"] == 9


def test_both_run_routes_do_the_same(system_with_apps):
    with raw.client(system_with_apps, raw.CURL) as http:
        for path in ("/apps/run", "/run"):
            made = raw.data_of(http.post(path, json=task(ECHO, message=path)))
            assert {"message": path} == raw.wait_end(system_with_apps, made["id"])["output"]


def test_ids_are_strings(system_with_apps):
    with raw.client(system_with_apps, raw.CURL) as http:
        made = raw.run(http, task(ECHO, message="ids"))
    assert all(
        isinstance(value, str) for name, value in made.items() if name.endswith("id") and value is not None
    )
