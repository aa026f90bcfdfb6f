"""The protocol tests run twice: on fakeredis (with Lua) and on the real server."""

import hashlib
import itertools

import fakeredis
import pytest
from fakeredis.commands_mixins.scripting_mixin import ScriptingCommandsMixin
from library_line import LibraryLine

from stoker.embedded import EmbeddedServer
from stoker.protocol import Store
from stoker.protocol.connection import Connection

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


@pytest.fixture(params=["fake", "real"])
async def store(request, server_dir):
    pool = f"p{next(_pools)}"
    if request.param == "fake":
        made = Store(Connection(fakeredis.FakeAsyncRedis(), LibraryLine), pool, "redis://fake")
        yield made
        await made.close()
        return
    embedded = EmbeddedServer(server_dir)
    await embedded.start()
    made = await Store.open(embedded.url, pool)
    yield made
    await made.close()
    await embedded.stop()
