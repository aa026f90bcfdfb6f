"""What an engine's Redis user may do follows from the scripts that it calls; nothing more, nothing less."""

import ast
import re
from pathlib import Path

import pytest

from stoker.protocol import acl, engines
from stoker.protocol.keys import Keys
from stoker.protocol.scripts import scripts

pytestmark = pytest.mark.unit

KEYS = Keys("default")
CALL = re.compile(r"redis\.call\('([A-Z]+)'")
NOT_FOR_ENGINES = {
    *(
        "acl",
        "bgsave",
        "client",
        "config",
        "debug",
        "dump",
        "eval_ro",
        "failover",
        "flushall",
        "flushdb",
        "function",
    ),
    *(
        "get",
        "info",
        "keys",
        "migrate",
        "module",
        "monitor",
        "psubscribe",
        "rename",
        "replicaof",
        "restore",
        "save",
    ),
    *(
        "scan",
        "script",
        "shutdown",
        "slaveof",
        "subscribe",
        "swapdb",
        "xrange",
        "hkeys",
        "smembers",
        "unlink",
    ),
}


def allowed():
    return {name for commands in acl.patterns(KEYS, "box").values() for name in commands}


def called_by_engines():
    """The scripts that the wrappers of a daemon name."""
    tree = ast.parse(Path(engines.__file__).read_text())
    return {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "script"
    }


def test_the_list_of_an_engines_scripts_is_that_of_its_wrappers():
    assert called_by_engines() == set(acl.ENGINE_SCRIPTS)


@pytest.mark.parametrize("verb", acl.ENGINE_SCRIPTS)
def test_every_command_of_an_engines_scripts_is_allowed(verb):
    used = {name.lower() for name in CALL.findall(scripts()[verb].source)}
    assert used - {"time", "publish"} <= allowed() | {"zrem"}


def test_no_command_is_allowed_that_no_script_uses():
    used = {name.lower() for verb in acl.ENGINE_SCRIPTS for name in CALL.findall(scripts()[verb].source)}
    assert allowed() - used == {"xread"}  # the inbox is read without a script


def test_nothing_that_looks_around_or_rules_the_server_is_allowed():
    granted = {rule.removeprefix("+") for rule in " ".join(acl.rules(KEYS, "box", "0" * 64)).split(" ")}
    assert not granted & NOT_FOR_ENGINES
    assert not any(
        rule.startswith("@") or rule in {"allkeys", "allcommands", "allchannels"} for rule in granted
    )


def test_patterns_of_one_engine_do_not_match_another_whose_name_begins_alike():
    own = [pattern.partition("~")[2] for pattern in acl.patterns(KEYS, "gpubox")]
    assert not any("*" in pattern for pattern in own if ":engine:" in pattern)
    assert KEYS.inbox("gpubox-2") not in own


def test_users_of_two_pools_are_apart():
    assert acl.user_name(Keys("a"), "b-c") != acl.user_name(Keys("a-b"), "c")


@pytest.mark.parametrize("version", ["6.2.14", "", "unknown"])
def test_a_server_without_selectors_is_refused_in_words(version):
    with pytest.raises(acl.AclUnsupported, match="Use Redis 7 or newer"):
        acl.check_server({"redis_version": version})


@pytest.mark.parametrize("version", ["7.0.15", "7.2.4", "8.0.0", "10.1"])
def test_a_server_with_selectors_will_do(version):
    acl.check_server({"redis_version": version})
