"""Lists as clients ask for them: without a body, filtered, searched, in both directions."""

import pytest
from helpers import EXAMPLES, wait_until

COMPLETED = 9
LISTS = (
    *("tasks", "files", "secrets", "apikeys", "engines", "workers"),
    *("audit", "apps", "flows", "flowruns", "chats", "agents"),
)


@pytest.fixture(scope="module")
def http(system):
    for name in ("echo", "slow"):
        system.deploy(EXAMPLES / name)
    with system.client() as client:
        yield client


def run(http, app, **fields):
    answer = http.post("/run", json={"app": app, "infra": "private"} | fields)
    assert answer.status_code == 200, answer.text
    task_id = answer.json()["data"]["id"]
    wait_until(
        lambda: http.get(f"/tasks/{task_id}/status").json()["data"]["status"] >= COMPLETED, f"{task_id}'s end"
    )
    return task_id


def listed(http, name="tasks", **query):
    answer = http.post(f"/{name}/list", json=query)
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def ids(page):
    return [item["id"] for item in page["items"]]


@pytest.mark.parametrize("name", LISTS)
def test_a_list_needs_no_body(http, name):
    answer = http.post(f"/{name}/list")
    assert answer.status_code == 200, answer.text
    assert isinstance(answer.json()["data"]["items"], list)


@pytest.mark.parametrize("name", sorted(set(LISTS) - {"tasks", "files"}))
def test_what_a_list_does_not_heed_is_refused_and_not_ignored(http, name):
    for query in ({"filters": [{"field": "name", "value": "x"}]}, {"direction": "prev", "cursor": "1"}):
        answer = http.post(f"/{name}/list", json=query)
        assert answer.status_code == 400, answer.text
        assert "this list" in answer.json()["detail"]


def test_tasks_are_filtered_searched_and_paged_in_both_directions(http):
    failed = run(http, "examples/slow", input={"seconds": 0, "lines": 1, "fail": True})
    good = [run(http, "infsh/echo", input={"message": str(number)}) for number in range(3)]
    of_echo = {"field": "app_ref", "operator": "like", "value": "infsh/echo%"}

    assert listed(http, filters=[{"field": "id", "operator": "in", "value": [failed, good[0]]}])["items"]
    found = listed(http, filters=[{"field": "status_text", "value": "failed"}], search={"term": failed})
    assert ids(found) == [failed]
    assert (found["has_next"], found["has_previous"]) == (False, False)

    first = listed(http, limit=2, filters=[of_echo])
    assert ids(first) == [good[2], good[1]]
    second = listed(http, limit=1, filters=[of_echo], cursor=first["next_cursor"])
    assert ids(second) == [good[0]]
    back = listed(http, limit=2, filters=[of_echo], cursor=second["prev_cursor"], direction="prev")
    assert ids(back) == ids(first)
    assert ids(http.get("/tasks", params={"limit": 1}).json()["data"]) == [good[2]]


def test_a_filter_of_a_field_that_is_none_says_which_there_are(http):
    answer = http.post("/tasks/list", json={"filters": [{"field": "secret", "value": 1}]})
    assert answer.status_code == 400
    assert "status_text" in answer.json()["detail"]


def test_a_reader_that_comes_back_after_the_ending_is_told_not_to_come_again(http):
    task_id = run(http, "infsh/echo", input={"message": "x"})
    sent = http.get(f"/tasks/{task_id}/stream", headers={"Accept": "text/event-stream"}).text
    last = next(line for line in reversed(sent.splitlines()) if line.startswith("id: ")).removeprefix("id: ")
    again = {"Accept": "text/event-stream", "Last-Event-ID": last}
    assert http.get(f"/tasks/{task_id}/stream", headers=again).status_code == 204
    assert http.get(f"/tasks/{task_id}/stream", headers=again | {"Last-Event-ID": "0-1"}).status_code == 200
