"""Which of several servers a connection is opened to, by what those say who know."""

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from stoker.protocol.servers import open_servers


class Asked:
    """A Sentinel that answers, or does not."""

    def __init__(self, answer):
        self.answer = answer

    async def sentinel_masters(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def state(port, epoch, **more):
    up = {"is_master": True, "is_sdown": False, "is_odown": False, "num-other-sentinels": 2}
    return {"prim": up | {"ip": "h", "port": port, "config-epoch": epoch} | more}


def asking(*answers):
    servers = open_servers("redis+sentinel://a,b,c/prim")
    servers._sentinel.sentinels = [Asked(answer) for answer in answers]
    return servers._sentinel.discover_master("prim")


DEAF = RedisConnectionError("refused")


@pytest.mark.parametrize(
    "answers",
    [
        (state(2, 5),),
        (state(1, 4), state(2, 5), state(1, 4)),
        (DEAF, state(2, 5), {}),
        (state(1, 4, is_odown=True), state(2, 5)),
    ],
    ids=("one", "stale-ones", "deaf-ones", "one-that-has-not-heard"),
)
async def test_the_sentinel_that_knows_the_latest_failover_is_believed(answers):
    assert await asking(*answers) == ("h", 2)


@pytest.mark.parametrize(
    ("answers", "told"),
    [
        ((DEAF, DEAF), "none of 2 Sentinels"),
        (({}, {}), "none of 2 Sentinels"),
        ((state(1, 4), state(2, 5, is_odown=True)), "is down"),
    ],
    ids=("deaf", "unknown", "down"),
)
async def test_without_a_primary_nobody_is_connected_to(answers, told):
    with pytest.raises(RedisConnectionError, match=told):
        await asking(*answers)


def test_that_nobody_listens_proves_something_for_one_server_alone():
    urls = ("redis://h", "unix:///x", "redis+sentinel://h/p", "redis+cluster://h")
    assert [open_servers(url).several for url in urls] == [False, False, True, True]
