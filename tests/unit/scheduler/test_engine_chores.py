"""Engines that are away: a bounded number at a time, each in its turn."""

from board import Board
from scheduling import engine_info

from stoker.log import get_logger
from stoker_scheduler import engine_chores
from stoker_scheduler.engine_chores import AT_ONCE, EngineChores


class Server:
    """Engines by age; `away` may be forgotten."""

    def __init__(self, engines, away):
        self.scheduling = self
        self.engines, self.away, self.asked = list(engines), set(away), []

    async def old_engines(self, _old_s, skip, limit):
        return self.engines[skip : skip + limit]

    async def forget(self, _epoch, engine_id, _unseen_s):
        self.asked.append(engine_id)
        if engine_id not in self.away:
            return False
        self.engines.remove(engine_id)
        return True


async def test_each_engine_has_its_turn_and_no_round_is_long(monkeypatch):
    monkeypatch.setattr(engine_chores, "PAUSE_S", 0.0)
    names = [f"e{number}" for number in range(2 * AT_ONCE + 10)]
    away = names[1::3]
    server = Server(names, away)
    chores = EngineChores(server, 1, get_logger("test"), 60.0)
    for _ in range(3):
        before = len(server.asked)
        await chores.tick()
        assert len(server.asked) - before <= AT_ONCE
    assert set(server.asked) == set(names)
    assert server.engines == [name for name in names if name not in away]
    await chores.tick()
    assert server.asked[-AT_ONCE:] == server.engines[:AT_ONCE]  # from the oldest on


async def test_most_ticks_ask_nothing():
    server = Server(["a"], [])
    chores = EngineChores(server, 1, get_logger("test"), 60.0)
    for _ in range(3):
        await chores.tick()
    assert server.asked == ["a"]


def test_a_forgotten_engine_leaves_nothing_in_the_mirror():
    board = Board().engine(engine_info("old")).engine(engine_info("box"))
    mirror = board.mirror
    for _ in range(2):
        mirror.on_forgotten("old", board.now_ms)
        assert list(mirror.fleet.workers) == ["box-cpu-0"]
        assert list(mirror.fleet.engines) == ["box"]
    task = board.submit("a", workers=("old",))
    board.decide()
    assert board.reason_of(task) == "workers: ['old'] is unknown; known: box-cpu-0"
