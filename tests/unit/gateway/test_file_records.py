import pytest

from stoker.core.messages import StoredFile
from stoker.core.states import TaskState
from stoker.protocol.files import Standing
from stoker.runs.file_uses import file_ids
from stoker_gateway.file_records import is_shown, type_of


def file(role="", attempt=0, **more):
    facts = {"filename": "a.png", "content_type": "", "size": 3, "created_ms": 0}
    return StoredFile(id="f", secret="s", owner_id="u", role=role, attempt=attempt, **facts | more)


@pytest.mark.parametrize(
    ("role", "attempt", "standing", "expected"),
    [
        ("", 0, None, True),
        ("", 0, (TaskState.FAILED, 1), True),
        ("output", 2, (TaskState.COMPLETED, 2), True),
        ("output", 1, (TaskState.COMPLETED, 2), False),
        ("output", 2, (TaskState.UPLOADING, 2), False),
        ("output", 2, (TaskState.FAILED, 2), False),
        ("output", 2, (TaskState.CANCELLED, 2), False),
        ("output", 1, (TaskState.QUEUED, 1), False),
        ("output", 1, None, True),
    ],
)
def test_an_output_is_shown_when_its_attempt_ended_the_task_well(role, attempt, standing, expected):
    assert is_shown(file(role, attempt), Standing(*standing) if standing else None) is expected


@pytest.mark.parametrize(
    ("name", "announced", "expected"),
    [("a.png", "", "image/png"), ("a.png", "image/x", "image/x"), ("file", "", "application/octet-stream")],
)
def test_a_type_is_the_announced_one_else_what_the_name_says(name, announced, expected):
    assert type_of(file(filename=name, content_type=announced)) == expected


def test_addresses_of_ours_are_found_wherever_they_stand():
    one, two, three = ("abcdefghijklmnopqrstuvwxy" + end for end in "234")
    given = {
        "a": f"http://h/files/{one}/s/a.png",
        "b": [{"c": [f"see http://h/files/{two}/s/b and http://h/files/{three}/s/c"]}],
        "d": ["http://h/files/short/s/x", 7, None, True, "plain"],
    }
    assert sorted(file_ids(given)) == [one, two, three]
    assert list(file_ids(f"/files/{one}/")) == [one]


def test_an_input_as_deep_as_json_allows_is_searched():
    deep = "http://h/files/abcdefghijklmnopqrstuvwxyz/s/a"
    for _ in range(5000):
        deep = [deep]
    assert list(file_ids(deep)) == ["abcdefghijklmnopqrstuvwxyz"]
