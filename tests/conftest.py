"""Fixtures that tests of several folders share; each builds one thing and is named for it."""

import asyncio
import contextlib
import itertools
import tempfile
from pathlib import Path

import fakeredis
import pytest
import redis
from helpers import running_system
from hypothesis import HealthCheck, settings
from library_line import LibraryLine

from stoker.embedded import EmbeddedServer
from stoker.protocol import Store
from stoker.protocol.connection import Connection
from stoker.protocol.servers import OneServer

_pools = itertools.count()
# How fast an example runs and is made says how busy the machine is. The rest is as before: in CI as Hypothesis has it.
settings.register_profile("stoker", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stoker")
MARKED_FOLDERS = ("unit", "protocol", "system", "clients", "faults")


def pytest_collection_modifyitems(items):
    """Mark each test with the name of its folder under tests/."""
    root = Path(__file__).parent
    for item in items:
        folder = item.path.relative_to(root).parts[0] if item.path.is_relative_to(root) else ""
        if folder in MARKED_FOLDERS:
            item.add_marker(getattr(pytest.mark, folder))


@pytest.fixture(scope="session", autouse=True)
def _no_short_paths_left(tmp_path_factory):
    """Daemons that tests kill leave the short paths of their folders; pytest keeps the folders, so no daemon sweeps."""
    yield
    for link in Path(tempfile.gettempdir()).glob("stoker-app-*/w"):
        with contextlib.suppress(OSError):  # swept by a daemon just now
            if link.readlink().is_relative_to(tmp_path_factory.getbasetemp()):
                link.unlink()
                link.parent.rmdir()


@pytest.fixture(scope="session")
def redis_server():
    """A real Valkey on a unix socket, for the whole session; `.url` is its address."""
    with tempfile.TemporaryDirectory(prefix="stoker-test-") as folder:
        server = EmbeddedServer(Path(folder))
        asyncio.run(server.start())
        with redis.Redis.from_url(server.url) as client:
            client.config_set("appendfsync", "no")  # each write of each test would wait for the disk
        yield server
        asyncio.run(server.stop())


@pytest.fixture
async def store(redis_server):
    """A store on a pool of its own, on the real server."""
    opened = await Store.open(redis_server.url, f"test{next(_pools)}")
    yield opened
    await opened.close()


@pytest.fixture
async def fake_store():
    """A store on fakeredis: fast, and without a server's timing."""
    opened = Store(
        Connection(OneServer(fakeredis.FakeAsyncRedis()), LibraryLine), f"fake{next(_pools)}", "redis://fake"
    )
    yield opened
    await opened.close()


@pytest.fixture(scope="session")
def system():
    """A whole running system, shared by the session: two CPU workers, default settings, port of its own.

    Tests leave it running; one that kills parts starts its own with `helpers.running_system`.
    """
    with (
        tempfile.TemporaryDirectory(prefix="stoker system ", ignore_cleanup_errors=True) as folder,
        running_system(Path(folder) / "data", "--workers", "2") as running,
    ):
        yield running


@pytest.fixture(scope="session")
def s3_server():
    """A function that gives the session's S3 server; the first call starts it."""
    started = []

    def server():
        if not started:
            from stores import S3Server  # its library is slow to import

            started.append(S3Server())
        return started[0]

    yield server
    for each in started:
        each.stop()


@pytest.fixture(params=["local", "s3"])
def file_store_settings(request, tmp_path, s3_server):
    """Settings of each kind of file store, empty."""
    from stores import files_settings

    return files_settings(request.param, tmp_path, s3_server)


@pytest.fixture
def file_store(file_store_settings):
    """Each kind of file store, empty."""
    from stoker.files import open_files

    return open_files(file_store_settings)
