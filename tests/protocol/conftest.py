"""The protocol tests run three times: on fakeredis (with Lua), on the real server, and on a cluster of three."""

import hashlib
import itertools

import fakeredis
import pytest
from fakeredis.commands_mixins.scripting_mixin import ScriptingCommandsMixin
from library_line import LibraryLine
from protocol_scene import Scene
from server_groups import Cluster

from stoker.embedded import EmbeddedServer
from stoker.protocol import Store
from stoker.protocol.connection import Connection
from stoker.protocol.servers import OneServer

_pools = itertools.count()


@pytest.fixture(autouse=True)
def sha1hex(monkeypatch):
    """fakeredis lacks `redis.sha1hex`, which every real server has."""
    original = ScriptingCommandsMixin._get_server_runtime

    def with_sha1hex(self, *args):
        runtime = original(self, *args)
        runtime.globals().redis.sha1hex = lambda text: (
            hashlib.sha1(text, usedforsecurity=False).hexdigest().encode()
        )
        return runtime

    monkeypatch.setattr(ScriptingCommandsMixin, "_get_server_runtime", with_sha1hex)


@pytest.fixture(scope="module")
def server_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("valkey")


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    made = Cluster(tmp_path_factory.mktemp("cluster"))
    yield made
    made.stop()


@pytest.fixture(params=["fake", "real", "cluster"])
async def store(request, server_dir):
    pool = f"p{next(_pools)}"
    if request.param == "cluster":  # each pool has another slot, on any of the nodes
        made = await Store.open(request.getfixturevalue("cluster").url, pool)
        yield made
        await made.close()
        return
    if request.param == "fake":
        made = Store(Connection(OneServer(fakeredis.FakeAsyncRedis()), LibraryLine), pool, "redis://fake")
        yield made
        await made.close()
        return
    embedded = EmbeddedServer(server_dir)
    await embedded.start()
    try:
        made = await Store.open(embedded.url, pool)
        yield made
        await made.close()
    finally:  # the next one takes the same directory
        await embedded.stop()


@pytest.fixture
async def scene(store):
    """What most stories begin with."""
    made = Scene(store)
    await made.set_up()
    return made
