"""The ordered writes of one attempt, with Redis there, away, and refusing."""

import asyncio

import pytest
from recorders import DONE, StoreRecorder, log_spool, order, until

from stoker.core.errors import ProtocolRefusal, StaleAttempt
from stoker.core.messages import LogType, Outcome
from stoker.core.states import TaskState as S
from stoker.core.states import may_move
from stoker_worker.spool import Spool
from stoker_worker.writes import Writes

RUN = LogType.RUN


class Scene:
    def __init__(self, folder):
        self.folder = folder
        self.store = StoreRecorder()
        self.spool = Spool(folder)
        self.logs = log_spool(folder)
        self.settled = 0
        self.refusals = []
        self.writes = self.make()

    def make(self, attempt=1):
        given = order(attempt=attempt)
        return Writes(
            self.store,
            "box",
            given,
            "1-0",
            self.spool,
            self.logs.open(given),
            self.on_settled,
            self.refusals.append,
        )

    def on_settled(self):
        self.settled += 1

    async def retried(self):
        """What was on its way has failed, and what follows it too."""
        failed = len(self.store.failed)
        await until(lambda: len(self.store.failed) > failed + 2)


@pytest.fixture
def scene(tmp_path):
    return Scene(tmp_path / "spool")


async def test_a_warm_task_is_two_writes(scene):
    await scene.writes.accept(S.RUNNING)
    await scene.writes.finish(DONE)
    assert scene.store.calls == [("accept", S.RUNNING), ("finish", DONE)]
    assert (scene.settled, scene.refusals) == (1, [])


async def test_writes_keep_their_order(scene):
    scene.writes.move(S.SERVING)
    scene.writes.line(RUN, "a")
    scene.writes.move(S.RUNNING)
    scene.writes.line(RUN, "b")
    await scene.writes.finish(DONE)
    assert scene.store.names() == ["transition", "transition", "append", "finish"]
    assert scene.store.texts() == ["a", "b"]


async def test_lines_are_written_without_an_end_in_sight(scene):
    scene.writes.line(RUN, "a")
    await until(lambda: scene.store.texts() == ["a"])
    scene.writes.line(RUN, "b")
    await until(lambda: scene.store.texts() == ["a", "b"])


async def test_lines_that_come_during_a_write_share_the_next_one(scene):
    scene.store.pause = asyncio.Event()
    scene.writes.line(RUN, "a")
    await until(lambda: scene.writes._batch is not None)
    for text in "bcd":
        scene.writes.line(RUN, text)
    scene.store.pause.set()
    await until(lambda: len(scene.store.texts()) == 4)
    assert [len(lines) for _, lines, _, _ in scene.store.calls] == [1, 3]


async def test_a_partial_output_is_replaced_by_the_next(scene):
    scene.writes.partial(b"1")
    scene.writes.partial(b"2")
    await until(lambda: scene.store.calls)
    assert scene.store.calls == [("append", (), b"2", 0)]


async def test_a_partial_output_is_not_written_after_the_end(scene):
    scene.writes.partial(b"1")
    await scene.writes.finish(DONE)
    assert scene.store.names() == ["finish"]


async def test_what_waits_while_redis_is_away_is_replayed_in_order(scene):
    scene.store.away = True
    scene.writes.move(S.RUNNING)
    scene.writes.line(RUN, "a")
    await until(lambda: len(scene.store.failed) > 3)
    assert scene.store.calls == []
    scene.store.away = False
    await scene.writes.finish(DONE)
    assert scene.store.names() == ["transition", "append", "finish"]


async def test_lines_after_a_lost_reply_are_sent_again_as_they_were(scene):
    scene.store.away = True
    scene.writes.line(RUN, "a")
    await until(lambda: scene.store.failed)
    scene.writes.line(RUN, "b")
    scene.store.away = False
    await until(lambda: len(scene.store.texts()) == 2)
    assert [[line.number for line in call[1]] for call in scene.store.calls] == [[1], [2]]


async def test_an_outcome_that_redis_does_not_take_is_on_disk_and_the_worker_goes_on(scene):
    scene.store.away = True
    await scene.writes.finish(DONE)
    (spooled,) = scene.spool.load()
    assert (spooled.order, spooled.outcome) == (scene.writes.order, DONE)
    assert scene.settled == 0
    scene.store.away = False
    await until(lambda: scene.settled)
    assert scene.store.names() == ["finish"]
    assert scene.spool.load() == []


async def test_an_outcome_of_an_earlier_life_is_delivered_and_forgotten(scene):
    scene.spool.put(scene.writes.order, DONE)
    scene.writes.resume(scene.spool.load()[0].outcome)
    await until(lambda: scene.settled)
    assert scene.store.calls == [("finish", DONE)]
    assert scene.spool.load() == []


async def test_moves_that_redis_did_not_take_are_on_disk_with_the_outcome_and_go_first(scene):
    """The table has no way from `preparing` to `completed`: without its moves a later life's outcome is refused."""
    scene.store.away = True
    scene.writes.move(S.SETTING_UP)
    scene.writes.move(S.RUNNING)
    await scene.writes.finish(DONE)
    (spooled,) = scene.spool.load()
    assert spooled.moves == ((S.SETTING_UP, ""), (S.RUNNING, ""))
    scene.writes.abandon()
    scene.store.away = False
    later = scene.make()
    later.resume(spooled.outcome, spooled.moves)
    await until(lambda: later.settled)
    assert scene.store.calls == [("transition", S.SETTING_UP), ("transition", S.RUNNING), ("finish", DONE)]


async def test_moves_that_an_earlier_life_had_written_do_not_cost_the_outcome(scene):
    scene.store.illegal = {S.SETTING_UP}
    scene.writes.resume(DONE, ((S.SETTING_UP, ""), (S.RUNNING, "")))
    await until(lambda: scene.settled)
    assert scene.store.calls == [("transition", S.RUNNING), ("finish", DONE)]
    assert scene.refusals == []


async def test_an_illegal_move_of_this_life_ends_the_attempt(scene):
    scene.store.illegal = {S.SETTING_UP}
    scene.writes.move(S.SETTING_UP)
    await until(lambda: scene.settled)
    assert len(scene.refusals) == 1


class Forgetful(StoreRecorder):
    """Keeps the task's state by the table, as the scripts do; `state` can be set back, as by a failover."""

    state = S.SCHEDULED

    async def accept(self, order, engine_id, entry, state):
        self.enter(state)

    async def transition(self, task_id, attempt, token, state, detail=""):
        self.enter(state)

    async def finish(self, order, engine_id, outcome):
        self.enter(outcome.state)

    def enter(self, state):
        if state is not self.state and not may_move(self.state, state):
            raise ProtocolRefusal("ILLEGAL_MOVE")
        self.state = state
        self.calls.append(state)


@pytest.mark.parametrize("known", [S.SCHEDULED, S.PREPARING, S.SETTING_UP, S.RUNNING])
@pytest.mark.parametrize("uploads", [False, True])
async def test_an_attempt_of_which_a_new_primary_lacks_moves_ends_all_the_same(scene, known, uploads):
    scene.store = Forgetful()
    writes = scene.make()
    await writes.accept(S.PREPARING)
    for state in (S.SETTING_UP, S.RUNNING):
        writes.move(state)
    await until(lambda: scene.store.state is S.RUNNING)
    scene.store.state = known
    if uploads:
        writes.move(S.UPLOADING)
    await writes.finish(DONE)
    assert scene.store.state is S.COMPLETED
    assert (scene.settled, scene.refusals) == (1, [])


async def test_the_log_of_an_outcome_that_waits_is_on_disk_too(scene):
    scene.store.away = True
    scene.writes.line(RUN, "a")
    await scene.writes.finish(DONE)
    assert log_spool(scene.folder).recover() == 1


@pytest.mark.parametrize("retryable", [False, True])
async def test_the_log_of_an_attempt_that_another_follows_is_kept(scene, retryable):
    """The next attempt's lines may push these out of the tail."""
    failed = Outcome(state=S.FAILED, error="no network", retryable=retryable)
    scene.writes.line(RUN, "a")
    await scene.writes.finish(failed)
    assert bool(scene.logs.take_ready(9)) is retryable


async def test_a_stale_attempt_writes_nothing_more_and_says_so_once(scene):
    scene.store.stale = True
    scene.writes.move(S.RUNNING)
    await until(lambda: scene.refusals)
    scene.store.stale = False
    scene.writes.line(RUN, "late")
    await scene.writes.finish(DONE)
    assert (scene.store.calls, scene.settled, len(scene.refusals)) == ([], 1, 1)


async def test_a_stale_outcome_leaves_the_spool(scene):
    scene.store.away = True
    await scene.writes.finish(DONE)
    scene.store.away, scene.store.stale = False, True
    await until(lambda: scene.settled)
    assert scene.spool.load() == []


async def test_a_task_that_was_taken_back_is_not_accepted(scene):
    scene.store.stale = True
    with pytest.raises(StaleAttempt):
        await scene.writes.accept(S.RUNNING)
    assert (scene.settled, scene.refusals) == (1, [])


async def test_accept_waits_for_redis(scene):
    scene.store.away = True
    accepting = asyncio.ensure_future(scene.writes.accept(S.RUNNING))
    await until(lambda: len(scene.store.failed) > 2)
    scene.store.away = False
    await accepting
    assert scene.store.calls == [("accept", S.RUNNING)]


async def test_a_task_is_handed_back_with_its_log(scene):
    scene.writes.line(LogType.BUILD, "building")
    await scene.writes.hand_back("drain")
    assert scene.store.names() == ["append", "hand_back"]
    assert scene.settled == 1


async def test_an_attempt_has_one_ending(scene):
    await asyncio.gather(scene.writes.finish(DONE), scene.writes.hand_back("drain"))
    assert scene.store.names() == ["finish"]


async def test_an_abandoned_attempt_is_silent(scene):
    scene.writes.line(RUN, "a")
    scene.writes.abandon()
    await scene.writes.finish(DONE)
    assert (scene.store.calls, scene.settled) == ([], 1)


async def test_increments_are_written_before_the_ending(scene):
    scene.writes.delta(b"1")
    scene.writes.delta(b"2")
    scene.writes.line(RUN, "a")
    await scene.writes.finish(DONE)
    assert scene.store.calls == [
        ("append", scene.store.calls[0][1], b"", 0),
        ("deltas", 1, 2, (b"1", b"2"), b""),
        ("finish", DONE),
    ]


async def test_a_partial_output_does_not_overtake_its_increments(scene):
    scene.store.away = True
    scene.writes.delta(b"1")
    scene.writes.partial(b'"1"')
    await until(lambda: scene.store.failed)
    scene.writes.line(RUN, "a")
    scene.writes.partial(b'"12"')
    scene.store.away = False
    await until(lambda: len(scene.store.calls) == 2)
    assert scene.store.calls[0] == ("deltas", 1, 1, (b"1",), b'"1"')
    assert scene.store.calls[1][0] == "append"
    assert scene.store.calls[1][2] == b'"12"'


@pytest.mark.parametrize("ending", [DONE, "drain"], ids=["finish", "hand_back"])
@pytest.mark.parametrize("printed", [(), ("a",)], ids=["alone", "with lines"])
async def test_a_begun_write_loses_its_partial_output_to_the_ending(scene, ending, printed):
    scene.store.away = True
    for text in printed:
        scene.writes.line(RUN, text)
    scene.writes.partial(b"1")
    await until(lambda: scene.store.failed)
    end = scene.writes.finish if ending is DONE else scene.writes.hand_back
    ended = asyncio.ensure_future(end(ending))
    await scene.retried()
    scene.store.away = False
    await ended
    await until(lambda: scene.settled)
    assert scene.store.texts() == list(printed)
    assert [call[2] for call in scene.store.calls if call[0] == "append"] == [b""] * len(printed)
    assert scene.store.calls[-1][1] == ending


async def test_begun_increments_lose_their_output_so_far_to_the_ending(scene):
    scene.store.away = True
    scene.writes.delta(b"1")
    scene.writes.partial(b'"1"')
    await until(lambda: scene.store.failed)
    scene.writes.delta(b"2")
    scene.writes.partial(b'"12"')
    ended = asyncio.ensure_future(scene.writes.finish(DONE))
    await scene.retried()
    scene.store.away = False
    await ended
    await until(lambda: scene.settled)
    assert scene.store.calls == [
        ("deltas", 1, 1, (b"1",), b""),
        ("deltas", 2, 2, (b"2",), b""),
        ("finish", DONE),
    ]
