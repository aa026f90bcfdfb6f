"""A task whose hash an engine has spoiled is still told: a machine may write all of it."""

import pytest

from stoker_gateway.dialect import Dialect, Numbering
from stoker_gateway.dto import ascii_json, task_dto, timings_dto

NEW = Dialect(numbering=Numbering.NEW, ndjson=True)
LARGE = "9" * 400


@pytest.mark.parametrize(
    ("spoiled", "left"),
    [
        ({"history": "nonsense"}, 0),
        ({"history": ""}, 0),
        ({"history": b"\xff"}, 0),
        ({"history": "0,1,1000;nonsense;0,2,1000;"}, 2),
        ({"history": "0,1,1000;1,99,2000;0,0,2000;"}, 1),
        ({"history": f"0,1,1000;{LARGE},2,1000;1,3,{LARGE};1,7,{10**17};"}, 2),
        ({"created": LARGE}, 2),
        ({"updated": f"-{LARGE}", "attempt": LARGE}, 2),
    ],
)
async def test_the_timings_of_a_task_with_a_spoiled_history_are_those_that_can_be_read(scene, spoiled, left):
    store = scene.store
    await store._connection.command(
        "HSET", store._keys.task("t1"), *(part for pair in spoiled.items() for part in pair)
    )
    view = await store.tasks.read("t1", with_logs=False)
    timings = timings_dto(view, NEW, now_ms=5_000)
    assert (timings["task_id"], len(timings["events"]), len(timings["groups"])) == ("t1", left, left)
    assert len(task_dto(view, NEW)["events"]) == left
    for shown in (timings, task_dto(view, NEW)):
        assert ascii_json(shown)
    assert len((await store.tasks.moves(["t1"]))["t1"]) == left


async def test_a_task_whose_error_is_no_valid_text_is_told(scene):
    store = scene.store
    spoiled = ("error", b"no \xe9\x94", "error_code", b"\xff", "engine", b"\xff", "worker", b"\xff")
    await store._connection.command("HSET", store._keys.task("t1"), *spoiled)
    assert (await store.tasks.read("t1")).error == "no \ufffd"
    standing = (await store.tasks.standings(["t1"]))["t1"]
    assert (standing.error, standing.error_code) == ("no \ufffd", "\ufffd")


async def test_a_task_that_waits_after_a_failure_that_is_no_valid_text_says_what_can_be_read(scene):
    store = scene.store
    spoiled = ("attempt", 1, "due", 1, "due_why", b"no \xe9\x94")
    await store._connection.command("HSET", store._keys.task("t1"), *spoiled)
    assert (await store.tasks.read("t1")).queue_reason.endswith("attempt 1 failed (no \ufffd)")
