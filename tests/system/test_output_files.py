"""Files that apps return, through the whole system."""

import httpx
import pytest
from clients import raw
from helpers import TEST_APPS

FAILED, COMPLETED = 11, 10


@pytest.fixture(scope="module")
def app(system):
    return system.deploy(TEST_APPS / "outputs")


def run(system, app, **given):
    """Run the app; the task at its end."""
    with raw.client(system, raw.SDK_NAMED) as http:
        made = raw.run(http, {"app": app, "infra": "private", "input": given})
    return raw.wait_end(system, made["id"])


def read(value, **headers):
    answer = httpx.get(value["uri"], trust_env=False, headers=headers)
    assert answer.is_success
    return answer.content


def listed(system, **query):
    with system.client() as http:
        return http.post("/files/list", json=query | {"limit": 100}).json()["data"]["items"]


def of_task(task_id):
    return [{"field": "task_id", "operator": "eq", "value": task_id}]


def test_files_at_any_depth_become_addresses_and_a_path_is_stored_once(system, app):
    task = run(system, app, do="deep")
    assert task["status"] == COMPLETED, task["error"]
    output = task["output"]
    one = output["a"][0]["b"]["c"]
    assert {**one, "uri": ""} == {"uri": "", "content_type": "text/plain", "size": 3, "filename": "one.txt"}
    assert read(one) == b"one"
    assert output["same"] == one
    two = output["other"][0]
    assert (two["filename"], two["size"], two["content_type"]) == ("Bär.png", 4, "image/png")
    assert read(two) == b"two!"
    items = listed(system, filters=of_task(task["id"]))
    assert {item["filename"] for item in items} == {"one.txt", "Bär.png"}
    assert {item["path"] for item in items} == {"/a/0/b/c", "/other/0"}
    assert all(item["uploaded"] and item["role"] == "output" for item in items)


@pytest.mark.parametrize(
    ("do", "words"),
    [
        ("missing", ["'list.0.film'", "never-written.mp4", "does not exist"]),
        ("directory", ["'film'", "it is a directory"]),
    ],
)
def test_a_file_that_is_none_fails_the_task_with_its_field(system, app, do, words):
    task = run(system, app, do=do)
    assert task["status"] == FAILED
    assert all(word in task["error"] for word in words), task["error"]
    assert listed(system, filters=of_task(task["id"])) == []


def test_a_large_file_tells_its_progress_and_is_whole(system, app):
    size = 150 * 1024 * 1024
    task = run(system, app, do="large", size=size)
    assert task["status"] == COMPLETED, task["error"]
    film = task["output"]["film"]
    assert film["size"] == size
    second_block, end = read(film, range="bytes=1048576-1048583"), read(film, range="bytes=-3")
    assert (second_block, end) == ((1).to_bytes(8, "big"), (149).to_bytes(3, "big"))
    with system.client() as http:
        text = http.get(f"/tasks/{task['id']}").text
        http.delete(f"/files/{film['uri'].split('/')[-3]}")
    assert "Uploading 'large.bin': " in text
    assert httpx.get(film["uri"], trust_env=False).status_code == 404
