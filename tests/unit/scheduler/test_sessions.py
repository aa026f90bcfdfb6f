"""Sessions as stories: who gets the worker, who waits for it, and when it is given back."""

import msgspec
import pytest
from board import Board
from scheduling import engine_info, engine_view, request, resident, spec

from stoker.core.measures import Measures
from stoker.core.messages import TaskView
from stoker.core.sessions import Session, SessionEnd, SessionInfo, session_key
from stoker.core.states import TaskState
from stoker.log import get_logger
from stoker_scheduler.actions import Assign, Rules, Start, Wait, Why
from stoker_scheduler.eviction import decide_unload
from stoker_scheduler.session_chores import SessionChores

KEY = session_key("a", "sess_1")


def warm_board(workers=1, warm=(("box-cpu-0", "a"),), **options):
    return Board(**options).engine(engine_info(workers=workers), warm)


def call(board, *, opens=False, session="sess_1", key="a", **fields):
    return board.submit(session_key(key, session), session_id=session, opens_session=opens, **fields)


def starts(actions):
    return [(a.worker_id, a.start) for a in actions if isinstance(a, Assign)]


def whys(actions):
    return [a.reason.why for a in actions if isinstance(a, Wait)]


def opened(board):
    """A session whose first task has ended."""
    task = call(board, opens=True)
    board.decide()
    board.run(task)
    board.finish(task, run_s=1.0)
    return board


def known(board, session="sess_1"):
    return board.mirror.sessions.get(session)


class TestTheFirstTask:
    def test_takes_a_plain_warm_instance_over(self):
        board = warm_board(workers=2)
        call(board, opens=True)
        assert starts(board.decide()) == [("box-cpu-0", Start.WARM)]
        worker = board.mirror.fleet.workers["box-cpu-0"]
        assert (list(worker.residents), worker.lease) == ([KEY], KEY)

    def test_loads_an_instance_where_none_is_warm(self):
        board = warm_board(warm=())
        call(board, opens=True)
        assert starts(board.decide()) == [("box-cpu-0", Start.COLD)]
        assert known(board).where == ("box", "box-cpu-0")

    def test_is_not_queued_behind_others_however_short(self):
        board = warm_board().learn("a", run_s=0.01)
        board.submit("a")
        board.decide()
        call(board, opens=True)
        assert starts(board.decide()) == []

    def test_is_judged_by_what_its_setup_has_taught(self):
        board = warm_board().learn("a", load_s=41, run_s=12)
        assert board.mirror.knowledge.load_s(KEY) == 41
        assert board.mirror.knowledge.run_s(KEY) == 12

    def test_that_came_back_unstarted_is_placed_anew(self):
        board = warm_board(workers=2)
        task = call(board, opens=True)
        board.decide()
        again = spec(KEY, task=task, session_id="sess_1", opens_session=True, created_ms=board.now_ms)
        board.mirror.on_requeued(again, board.now_ms)
        assert board.mirror.fleet.workers["box-cpu-0"].lease is None
        assert starts(board.decide()) == [("box-cpu-1", Start.COLD)]


class TestLaterTasks:
    def test_go_to_the_worker_of_the_session_though_another_is_free(self):
        board = opened(warm_board(workers=3))
        call(board)
        assert starts(board.decide()) == [("box-cpu-0", Start.WARM)]

    def test_go_there_even_if_a_report_does_not_show_the_instance_yet(self):
        board = opened(warm_board(workers=2)).engine(engine_info(workers=2), [("box-cpu-0", "a")])
        call(board)
        assert starts(board.decide()) == [("box-cpu-0", Start.WARM)]

    def test_run_one_at_a_time_and_in_order(self):
        board = opened(warm_board(workers=2).learn("a", run_s=0.01))
        tasks = [call(board) for _ in range(3)]
        board.order.clear()
        for task in tasks:
            assert starts(board.decide()) == [("box-cpu-0", Start.WARM)]
            assert board.reason_of(tasks[-1]) in (
                None,
                "waiting ~1 s for the task before it in its session, on box-cpu-0",
            )
            board.finish(task, run_s=0.01)
        assert board.order == tasks

    def test_wait_for_the_first_one(self):
        board = Board()
        call(board, opens=True)
        later = call(board)
        board.engine(engine_info())
        assert starts(board.decide()) == [("box-cpu-0", Start.COLD)]
        assert board.reason_of(later) is None or "session" in board.reason_of(later)
        board.look_again()
        assert "the task before it in its session" in board.reason_of(later)


class TestOthers:
    def test_do_not_get_the_instance_of_a_session(self):
        board = opened(warm_board())
        task = board.submit("a")
        assert starts(board.decide()) == []
        assert board.reason_of(task) == "box-cpu-0, the only worker that can run this, is leased to a session"

    def test_use_the_other_workers(self):
        board = opened(warm_board(workers=2))
        board.submit("a")
        assert starts(board.decide()) == [("box-cpu-1", Start.COLD)]

    def test_are_told_when_all_workers_are_leased(self):
        board = Board().engine(engine_info(workers=2))
        for session in ("sess_1", "sess_2"):
            call(board, opens=True, session=session)
            board.decide()
        task = board.submit("b")
        board.decide()
        assert board.reason_of(task) == "all 2 workers that can run this are leased to sessions"

    def test_that_name_the_worker_wait_too(self):
        board = opened(warm_board(workers=2))
        board.submit("b", workers=("box-cpu-0",))
        assert whys(board.decide()) == [Why.LEASED]

    def test_do_not_evict_the_instance_of_a_session(self):
        info = engine_info(residents=1)
        board = Board().engine(info, [("box-cpu-0", "a")])
        opened(board)
        board.submit("b")
        assert whys(board.decide()) == [Why.LEASED]
        assert board.evicted == []

    def test_of_other_sessions_do_not_mix(self):
        board = Board().engine(engine_info(workers=2))
        for session in ("sess_1", "sess_2"):
            call(board, opens=True, session=session)
        assert sorted(worker for worker, _ in starts(board.decide())) == ["box-cpu-0", "box-cpu-1"]
        assert known(board, "sess_1").where != known(board, "sess_2").where

    def test_get_the_worker_when_the_session_is_over(self):
        board = opened(warm_board())
        board.submit("b")
        board.decide()
        board.mirror.release(KEY)
        assert starts(board.decide()) == [("box-cpu-0", Start.COLD)]


def test_an_idle_instance_of_a_session_is_not_unloaded():
    board = opened(warm_board(rules=Rules(idle_unload_s=10)))
    m = board.later(60).mirror
    assert decide_unload(board.now_ms, m.queues, m.fleet, m.rules) == ()


class TestTheEnd:
    def test_comes_with_the_loss_of_the_engine(self):
        board = opened(warm_board())
        board.mirror.on_lost("box", board.now_ms)
        assert known(board).over is SessionEnd.WORKER_LOST

    def test_comes_with_the_drain_of_the_engine(self):
        board = opened(warm_board())
        board.mirror.on_engine(engine_view(engine_info(), draining=True), board.now_ms)
        board.mirror.end_lost_sessions()
        assert known(board).over is SessionEnd.WORKER_LOST

    def test_does_not_come_with_the_drain_of_an_engine_that_still_loads_for_it(self):
        board = warm_board(warm=()).engine(engine_info("other"))
        task = call(board, opens=True)
        board.decide()
        name = known(board).where[0]
        board.mirror.on_engine(engine_view(engine_info(name), draining=True), board.now_ms)
        board.mirror.end_lost_sessions()
        assert known(board).over is None
        again = spec(KEY, task=task, session_id="sess_1", opens_session=True, created_ms=board.now_ms)
        board.mirror.on_requeued(again, board.now_ms, 1)  # handed back
        board.decide()
        assert known(board).where[0] != name

    def test_comes_with_the_drain_of_an_engine_that_runs_its_first_call(self):
        board = warm_board()
        task = call(board, opens=True)
        board.decide()
        board.run(task)
        board.mirror.on_engine(engine_view(engine_info(), draining=True), board.now_ms)
        board.mirror.end_lost_sessions()
        assert known(board).over is SessionEnd.WORKER_LOST

    def test_comes_with_the_stop_of_an_engine_that_still_loads_for_it(self):
        board = warm_board(warm=())
        call(board, opens=True)
        board.decide()
        board.mirror.on_engine(engine_view(engine_info(), status="stopped"), board.now_ms)
        board.mirror.end_lost_sessions()
        assert known(board).over is SessionEnd.WORKER_LOST

    def test_comes_with_a_daemon_that_started_anew_without_the_instance(self):
        board = opened(warm_board())
        again = msgspec.structs.replace(engine_view(engine_info()), registered_ms=5)
        board.mirror.on_engine(again, board.now_ms)
        assert known(board).over is SessionEnd.WORKER_LOST

    def test_does_not_come_with_a_daemon_that_registers_again_and_has_the_instance(self):
        board = opened(warm_board())
        view = engine_view(engine_info(), residents=[resident("box-cpu-0", KEY)])
        board.mirror.on_engine(msgspec.structs.replace(view, registered_ms=5), board.now_ms)
        assert known(board).over is None

    def test_does_not_come_with_a_report_that_is_older_than_the_instance(self):
        board = opened(warm_board())
        board.mirror.on_engine(engine_view(engine_info()), board.now_ms)
        assert known(board).over is None

    @pytest.mark.parametrize(
        ("first", "run_s", "expected"),
        [
            (True, 0.0, SessionEnd.ENDED),  # it never came up
            (True, 1.0, SessionEnd.WORKER_LOST),
            (False, 0.0, SessionEnd.WORKER_LOST),  # the instance was not there any more
        ],
    )
    def test_comes_with_the_end_of_the_instance(self, first, run_s, expected):
        board = warm_board() if first else opened(warm_board())
        task = call(board, opens=first)
        board.decide()
        measured = Measures(run_s=run_s, instance_ended=True)
        board.mirror.on_finished(task, TaskState.FAILED, measured, board.now_ms)
        assert known(board).over is expected

    def test_does_not_come_with_a_failed_call(self):
        board = opened(warm_board())
        task = call(board)
        board.decide()
        board.finish(task, state=TaskState.FAILED, run_s=1.0)
        assert known(board).over is None

    def test_comes_when_the_first_task_is_cancelled_in_the_queue(self):
        board = Board()
        task = call(board, opens=True)
        board.mirror.on_cancelled(task)
        assert known(board).over is SessionEnd.ENDED

    def test_does_not_come_when_a_later_task_is_cancelled_in_the_queue(self):
        board = Board()
        call(board, opens=True)
        board.mirror.on_cancelled(call(board))
        assert known(board).over is None


class TestANewLeader:
    def session(self, board, *, worker="box-cpu-0", tasks=()):
        pattern = spec(KEY, task="first", session_id="sess_1", opens_session=True)
        info = SessionInfo(
            id="sess_1", user_id="u", app_id="a", app="t/a", version_id="v", idle_s=60, spec=pattern
        )
        return Session(
            info=info,
            created_ms=1,
            expires_ms=2,
            worker_id=worker,
            engine_id="box" if worker else "",
            open_tasks=tasks,
        )

    def test_knows_whose_worker_it_is(self):
        board = warm_board(warm=(("box-cpu-0", KEY),), workers=2)
        board.mirror.restore_session(self.session(board))
        board.submit("b", workers=("box-cpu-0",))
        assert whys(board.decide()) == [Why.LEASED]
        call(board)
        assert starts(board.decide()) == [("box-cpu-0", Start.WARM)]

    def test_places_a_first_task_that_nobody_has_placed(self):
        board = warm_board()
        task = call(board, opens=True, task="first")
        board.mirror.restore_session(self.session(board, worker="", tasks=(task,)))
        assert starts(board.decide()) == [("box-cpu-0", Start.WARM)]

    def test_reads_the_session_of_a_first_task_that_it_does_not_know(self):
        board = warm_board()
        call(board, opens=True)
        assert list(board.mirror.sessions.take_errands().read) == ["sess_1"]
        call(board)
        assert not board.mirror.sessions.take_errands().read

    def test_ends_a_session_whose_daemon_started_anew(self):
        board = Board()
        view = msgspec.structs.replace(engine_view(engine_info()), registered_ms=5)
        board.mirror.on_engine(view, board.now_ms)
        board.mirror.restore_session(self.session(board))
        assert known(board).over is SessionEnd.WORKER_LOST

    def test_ends_a_session_whose_worker_is_gone(self):
        board = Board()
        board.mirror.restore_session(self.session(board))
        board.mirror.end_lost_sessions()
        assert known(board).over is SessionEnd.WORKER_LOST


class Server:
    """One session in Redis, and one task of it, which has just ended."""

    def __init__(self, session, task):
        self.sessions = self.tasks = self
        self.session, self.task = session, task

    async def read(self, _session_id):
        return self.session

    async def read_many(self, task_ids, **_):
        return [self.task for _ in task_ids]

    async def bind(self, *_):
        pass

    async def settle(self, *_):
        pass

    async def end(self, *_):
        return True


async def test_the_end_of_a_first_call_that_is_seen_before_its_event_is_left_to_the_event():
    """It alone says that the instance has ended, and the session with it."""
    board = warm_board()
    task = call(board, opens=True, task="first")
    board.decide()
    session = TestANewLeader().session(board, worker="", tasks=(task,))
    view = TaskView(
        request=request(spec(KEY, task=task)),
        state=TaskState.FAILED,
        attempt=1,
        created_ms=0,
        updated_ms=0,
        worker_id="box-cpu-0",
    )
    chores = SessionChores(Server(session, view), board.mirror, 1, get_logger("test"), lambda: board.now_ms)
    await chores.run()
    board.mirror.on_finished(task, TaskState.FAILED, Measures(instance_ended=True), board.now_ms)
    assert known(board).over is SessionEnd.ENDED
