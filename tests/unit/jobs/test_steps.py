"""Steps of several documents in one job."""

import asyncio

import pytest

from stoker.core.errors import StoreUnavailable
from stoker_jobs import steps


@pytest.fixture
def taken(monkeypatch):
    """The ids whose step was taken to its end; "away" fails, "ended" is broken off, and two others wait for each other."""
    done = []

    async def step(desk, document_id):
        if document_id == "away":
            raise StoreUnavailable("Redis does not answer")
        if document_id == "ended":
            raise asyncio.CancelledError
        await both.wait()
        done.append(document_id)

    both = asyncio.Barrier(2)
    monkeypatch.setattr(steps, "STEPS", {"chat": step})
    monkeypatch.setattr(steps, "at_desk", lambda work: asyncio.run(work(None)))
    return done


def test_steps_of_one_job_are_taken_at_the_same_time(taken):
    steps.advance(("chat", "c1"), ("chat", "c2"))
    assert sorted(taken) == ["c1", "c2"]


def test_one_that_fails_holds_up_no_other_and_is_named(taken):
    with pytest.raises(ExceptionGroup) as failed:
        steps.advance(("chat", "c1"), ("chat", "away"), ("chat", "c2"))
    assert sorted(taken) == ["c1", "c2"]
    [error] = failed.value.exceptions
    assert isinstance(error, StoreUnavailable)
    assert error.__notes__ == ["in the step of chat away"]


def test_what_is_broken_off_is_no_success(taken):
    with pytest.raises(BaseExceptionGroup) as failed:
        steps.advance(("chat", "ended"), ("chat", "c1"), ("chat", "c2"))
    assert sorted(taken) == ["c1", "c2"]
    assert isinstance(failed.value.exceptions[0], asyncio.CancelledError)


def test_a_kind_that_only_a_newer_part_knows_is_left_to_it(taken):
    steps.advance(("future", "f1"), ("chat", "c1"), ("chat", "c2"))
    assert sorted(taken) == ["c1", "c2"]
