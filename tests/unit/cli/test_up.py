"""What `stoker up` decides before it starts anything."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

from stoker.embedded import EmbeddedServer
from stoker.settings import InvalidSettings, UpSettings, load
from stoker_cli.api import Api
from stoker_cli.up import supervisor
from stoker_cli.up.command import check_listen, serve
from stoker_cli.up.greeting import READY_TIMEOUT_S, Greeting, app_name
from stoker_cli.up.supervisor import part_specs


def settings(**flags):
    return load(UpSettings, {"data_dir": "/srv/a b"} | flags)


def test_every_part_gets_the_same_database_directory_and_parent():
    specs = part_specs(settings(), "unix:///x", 1234, 9)
    assert [spec.name for spec in specs] == ["gateway", "scheduler", "worker", "jobs"]
    for spec in specs:
        assert spec.env["STOKER_REDIS_URL"] == "unix:///x"
        assert spec.env["STOKER_DATA_DIR"] == "/srv/a b"
        # Machines that join have another way to the gateway than the worker of this one.
        own = "" if spec.name == "gateway" else "http://127.0.0.1:1234"
        assert spec.env["STOKER_INTERNAL_URL"] == own
        assert int(spec.env["STOKER_PARENT_PID"]) > 0


def test_a_secret_setting_is_in_the_environment_of_the_parts_that_read_it(monkeypatch):
    for name in ("SECRETS_KEY", "FILES_SECRET_KEY", "APP_ENV", "RATE_RUN"):
        monkeypatch.setenv(f"STOKER_{name}", "7")
    readers = {
        name: [s.name for s in part_specs(settings(), "unix:///x", 1, 9) if f"STOKER_{name}" in s.env]
        for name in ("SECRETS_KEY", "FILES_SECRET_KEY", "APP_ENV", "RATE_RUN")
    }
    assert readers == {
        "SECRETS_KEY": ["gateway", "jobs"],
        "FILES_SECRET_KEY": ["gateway", "jobs"],
        "APP_ENV": ["worker"],
        "RATE_RUN": ["gateway", "scheduler", "worker", "jobs"],
    }


def test_only_the_gateway_inherits_the_listening_socket():
    specs = {spec.name: spec for spec in part_specs(settings(), "unix:///x", 1234, 9)}
    assert specs["gateway"].pass_fds == (9,)
    assert specs["gateway"].env["STOKER_LISTEN_FD"] == "9"
    assert "STOKER_LISTEN_FD" not in specs["worker"].env
    assert specs["worker"].pass_fds == ()


def test_the_worker_has_longer_than_its_drain_to_stop():
    specs = {spec.name: spec for spec in part_specs(settings(drain_grace_s=60), "unix:///x", 1, 9)}
    assert specs["worker"].stop_grace_s > 60


def test_the_number_of_cpu_workers_reaches_the_worker_alone():
    specs = {spec.name: spec for spec in part_specs(settings(cpu_workers=3), "unix:///x", 1, 9)}
    assert json.loads(specs["worker"].env["STOKER_WORKERS"]) == {"cpu": {"count": 3}}
    assert "STOKER_WORKERS" not in specs["gateway"].env


@pytest.mark.parametrize(
    ("host", "both", "url"),
    [
        ("0.0.0.0", True, "http://127.0.0.1:80"),  # noqa: S104 - nothing is bound
        ("::", True, "http://127.0.0.1:80"),
        ("::", False, "http://[::1]:80"),
        ("::1", True, "http://[::1]:80"),
        ("10.0.0.1", True, "http://10.0.0.1:80"),
    ],
)
def test_a_gateway_is_reached_where_it_listens_and_on_every_address_through_loopback(
    host, both, url, monkeypatch
):
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: both)
    specs = {spec.name: spec for spec in part_specs(settings(host=host), "unix:///x", 80, 9)}
    assert specs["worker"].env["STOKER_INTERNAL_URL"] == url


@pytest.mark.parametrize("address", ["0.0.0.0:6379", "10.0.0.1:6379", "[::]:6379", "gpubox:6379"])
def test_listening_on_a_network_without_tls_is_refused_with_the_way_out(address):
    with pytest.raises(InvalidSettings, match="STOKER_REDIS_URL=rediss://"):
        check_listen(settings(listen=address))


@pytest.mark.parametrize("address", ["127.0.0.1:6379", "[::1]:6379", "localhost:6379"])
def test_listening_on_loopback_is_fine(address):
    check_listen(settings(listen=address))


@pytest.mark.parametrize("address", ["127.0.0.1", ":6379", "127.0.0.1:0", "127.0.0.1:x"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(InvalidSettings, match="host:port"):
        check_listen(settings(listen=address))


def test_listening_is_for_the_embedded_server():
    with pytest.raises(InvalidSettings, match="names another one"):
        check_listen(settings(listen="127.0.0.1:6379", redis_url="redis://db:1"))


def test_machines_that_join_are_told_the_address_that_the_server_listens_on():
    specs = {spec.name: spec for spec in part_specs(settings(listen="127.0.0.1:6380"), "unix:///x", 1, 9)}
    assert specs["gateway"].env["STOKER_WORKER_REDIS_URL"] == "redis://127.0.0.1:6380"
    assert specs["gateway"].env["STOKER_INTERNAL_URL"] == ""


def test_not_listening_is_fine():
    check_listen(settings())
    assert Path("/srv/a b") == settings().data_dir


@pytest.mark.parametrize(
    ("first_task", "name"),
    [("infsh/echo@v1:run message='a b'", "echo"), ("infsh/echo message=it's", "echo"), ("", "")],
)
def test_the_app_of_a_first_task_is_found_whatever_its_quotes(first_task, name):
    assert app_name(first_task) == name


class LoadingServer(EmbeddedServer):
    """Loads for ever."""

    async def start(self):
        self.starts.set()
        await asyncio.Event().wait()


async def test_ctrl_c_ends_a_start_whose_database_still_loads(tmp_path, monkeypatch):
    LoadingServer.starts = asyncio.Event()
    monkeypatch.setattr(supervisor, "EmbeddedServer", LoadingServer)
    stop = asyncio.Event()
    serving = asyncio.create_task(serve(settings(data_dir=tmp_path, port=0), stop, [], json=True))
    async with asyncio.timeout(60):
        await LoadingServer.starts.wait()
        stop.set()
        await serving


async def test_the_time_to_be_ready_in_begins_when_the_database_answers(tmp_path, monkeypatch):
    greeting = Greeting(settings(data_dir=tmp_path), None, [], json=True)
    greeting._mono_started -= READY_TIMEOUT_S  # for so long it loaded

    async def ready(_api, path):
        assert path == "/ready"

    monkeypatch.setattr(Api, "get", ready)
    await greeting._until_ready("http://127.0.0.1:1")
