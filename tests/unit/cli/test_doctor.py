"""What the doctor makes of a database, and of what it must hide."""

import pytest

from stoker.settings import WorkerSettings
from stoker_cli.doctor import Verdict, _hidden, judge_store, look_at_tmp
from stoker_worker import private_tmp

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
        ({"appendonly": "no"}, "durability", Verdict.WARN, "lost when the server restarts"),
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


def test_a_replica_is_refused():
    assert verdicts({"role": "slave"})["database"].verdict is Verdict.FAIL


def test_passwords_are_hidden():
    assert _hidden("rediss://user:secret@db:6379/0") == "rediss://***@db:6379/0"
    assert _hidden("unix:///a@b") == "unix://***@b"
    assert _hidden("plain") == "plain"


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
