"""What the doctor makes of a database, and of what it must hide."""

from pathlib import Path

import pytest

from stoker.secret_settings import without_password
from stoker.settings import WorkerSettings
from stoker_cli.doctor import judge_kernels, look_at_tmp, look_at_tools
from stoker_cli.findings import Verdict
from stoker_cli.store_promises import judge_store
from stoker_worker import private_tmp
from stoker_worker.nodes import Node
from stoker_worker.pythons import SUPPORTED

GOOD = {"appendonly": "yes", "appendfsync": "always", "maxmemory-policy": "noeviction"}


def verdicts(info=None, **config):
    changed = GOOD | {name.replace("_", "-"): value for name, value in config.items()}
    return {
        finding.name: finding for finding in judge_store("db", {"role": "master"} | (info or {}), changed)
    }


def test_the_embedded_servers_configuration_is_good():
    assert {finding.verdict for finding in verdicts().values()} == {Verdict.OK}


@pytest.mark.parametrize(
    ("config", "name", "verdict", "words"),
    [
        ({"appendonly": "no"}, "durability", Verdict.WARN, "no persistence: accepted tasks are lost"),
        ({"appendonly": "no", "save": "3600 1"}, "durability", Verdict.WARN, "only snapshots"),
        ({"appendfsync": "no"}, "durability", Verdict.WARN, "last half minute"),
        ({"appendfsync": "everysec"}, "durability", Verdict.WARN, "last second"),
        ({"maxmemory_policy": "allkeys-lru"}, "eviction", Verdict.FAIL, "throw tasks away"),
        ({"maxmemory_policy": ""}, "eviction", Verdict.WARN, "unknown"),
    ],
)
def test_a_database_that_may_lose_tasks_is_told(config, name, verdict, words):
    finding = verdicts(**config)[name]
    assert finding.verdict is verdict
    assert words in finding.text
    assert finding.advice


@pytest.mark.parametrize(
    ("info", "name", "verdict", "words"),
    [
        ({"role": "slave"}, "database", Verdict.FAIL, "slave"),
        ({"redis_version": "6.0.16"}, "database", Verdict.FAIL, "6.0.16"),
        ({"redis_version": "6.2.14"}, "database", Verdict.OK, "6.2.14"),
        ({"redis_version": "7.2.4", "valkey_version": "9.0.1"}, "database", Verdict.OK, "9.0.1"),
        ({"aof_last_write_status": "err"}, "durability", Verdict.FAIL, "append-only file failed"),
        ({}, "replicas", Verdict.OK, "the only copy"),
        ({"connected_slaves": "2"}, "replicas", Verdict.WARN, "2, not waited for"),
        ({"used_memory": "950", "maxmemory": "1000"}, "memory", Verdict.WARN, "MB used"),
        ({"used_memory": "100", "maxmemory": "1000"}, "memory", Verdict.OK, "MB used"),
    ],
    ids=("replica", "old", "oldest", "valkey", "aof-error", "alone", "replicas", "full", "room"),
)
def test_what_a_server_says_of_itself_is_judged(info, name, verdict, words):
    finding = verdicts(info)[name]
    assert finding.verdict is verdict
    assert words in finding.text
    assert bool(finding.advice) is (verdict is not Verdict.OK)


def test_replicas_that_writes_depend_on_are_told():
    finding = verdicts({"connected_slaves": "2"}, min_replicas_to_write="1")["replicas"]
    assert finding.verdict is Verdict.OK
    assert "fewer than 1" in finding.text


def test_a_server_without_a_limit_has_nothing_to_say_of_its_memory():
    assert "memory" not in verdicts({"used_memory": "5", "maxmemory": "0"})


def nodes(*majors):
    return [Node(path=Path(f"/n{major}/bin/node"), version=(major, 9, 0)) for major in majors]


@pytest.mark.parametrize(
    ("found", "settings", "verdict", "words"),
    [
        (SUPPORTED, {}, Verdict.OK, "Python 3.10, 3.11, 3.12, 3.13"),
        (("3.11",), {}, Verdict.OK, "not here: 3.10, 3.12, 3.13 (uv fetches it"),
        (("3.11",), {"python_fetch": False}, Verdict.WARN, "apps that need it fail"),
        (
            ("3.11",),
            {"python_fetch": False, "python_fallback": True},
            Verdict.WARN,
            "apps get the nearest one",
        ),
    ],
)
def test_the_kernels_that_are_here_and_the_fate_of_others_are_told(found, settings, verdict, words):
    kernels, _ = judge_kernels(found, [], WorkerSettings(**settings))
    assert kernels.verdict is verdict
    assert words in kernels.text


@pytest.mark.parametrize(
    ("found", "fallback", "verdict", "words"),
    [
        ((), False, Verdict.OK, "none; apps with kernel node-22 cannot run here"),
        ((20,), False, Verdict.WARN, "20.9.0 at /n20/bin/node; apps with kernel node-22 cannot run"),
        ((20,), True, Verdict.OK, "20.9.0 at /n20/bin/node (apps want 22; it stands in), npm at "),
        ((24, 22), False, Verdict.OK, "22.9.0 at /n22/bin/node, npm at "),
    ],
)
def test_node_is_told_with_what_it_can_run(monkeypatch, found, fallback, verdict, words):
    monkeypatch.setattr("stoker_worker.nodes.shutil.which", lambda name: f"/bin/{name}")
    _, node = judge_kernels(SUPPORTED, nodes(*found), WorkerSettings(node_fallback=fallback))
    assert node.verdict is verdict
    assert words in node.text


def test_tools_that_apps_may_need_are_listed(monkeypatch):
    monkeypatch.setattr("stoker_cli.doctor.shutil.which", lambda name: name if name == "git" else None)
    finding = look_at_tools()
    assert finding.verdict is Verdict.OK
    assert finding.text == "git; not here: gcc, g++, make, cmake, ffmpeg"
    assert "build-essential" in finding.advice


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("rediss://user:secret@db:6379/0", "rediss://...@db:6379/0"),
        (
            "redis+sentinel://u:p@h:26379/main?sentinel_username=s&sentinel_password=secret",
            "redis+sentinel://...@h:26379/main?sentinel_username=s&sentinel_password=...",
        ),
        ("unix:///run/redis.sock?password=secret&db=1", "unix:///run/redis.sock?password=...&db=1"),
        ("plain", "plain"),
    ],
)
def test_passwords_are_hidden(address, shown):
    assert without_password(address) == shown


@pytest.mark.parametrize(
    ("setting", "refusal", "verdict", "words"),
    [
        ("auto", "", Verdict.OK, "a /tmp of its own"),
        ("auto", "no", Verdict.WARN, "apps share /tmp: no; those that name files there run one at a time"),
        ("require", "no", Verdict.FAIL, "the worker does not start"),
        ("off", "no", Verdict.OK, "run one at a time"),
    ],
)
async def test_what_apps_get_of_tmp_is_told(monkeypatch, setting, refusal, verdict, words):
    async def probe():
        return refusal

    monkeypatch.setattr(private_tmp, "probe", probe)
    finding = await look_at_tmp(WorkerSettings(private_tmp=setting))
    assert finding.verdict is verdict
    assert words in finding.text
