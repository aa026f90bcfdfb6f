"""Real clients that cannot be told apart on the wire, and still each see the right ending."""

import pytest
from clients.plans import ECHO, SLOW, ending_steps, task
from clients.sdks import NEW_NUMBERS, OLD_NUMBERS, Sdk

pytestmark = pytest.mark.timeout(150)  # the first test of a client also installs and drives it


def drive(sdk, system, path=""):
    return sdk.drive(ending_steps(sdk.numbers), system.base_url + path, system.bench_key)


@pytest.fixture(
    scope="module", params=[("0.6.1", "sync"), ("0.6.20", "sync"), ("0.6.20", "async")], ids="-".join
)
def unnamed(request, system_with_apps):
    """Clients with the newer numbers that send what 0.6.0 sends; they read tasks with the older ones."""
    version, mode = request.param
    return version, drive(Sdk("python", version, mode, numbers=OLD_NUMBERS), system_with_apps)


def test_completed_is_seen_by_both_generations(unnamed):
    _, facts = unnamed
    assert facts["run"]["result"]["output"] == {"message": "hi there"}
    assert facts["run"]["result"]["status"] == 10


def test_cancelled_is_seen_by_both_generations(unnamed):
    _, facts = unnamed
    assert facts["cancel"]["error"]["text"].lower() == "task cancelled"


def test_failed_is_seen_from_0_6_19_on(unnamed):
    version, facts = unnamed
    if version == "0.6.20":
        assert "slow was told to fail" in facts["failing"]["error"]["text"]
    else:
        # The hole that no server can close: 0.6.1 to 0.6.18 know neither the word nor 10 as a failure.
        assert "error" not in facts["failing"]


def test_tasks_are_read_with_the_documented_numbers(unnamed):
    _, facts = unnamed
    assert facts["get"]["result"]["status"] == 9


@pytest.mark.parametrize(
    "sdk",
    [
        Sdk("python", "0.6.1"),
        Sdk("python", "0.6.20"),
        Sdk("python", "0.6.20", "async"),
        Sdk("python", "0.6.21"),
        Sdk("python", "0.6.26"),
    ],
    ids=str,
)
def test_under_the_prefix_everything_is_right(sdk, system_with_apps):
    facts = drive(sdk, system_with_apps, "/compat/v2")
    assert facts["run"]["result"]["output"] == {"message": "hi there"}
    assert facts["get"]["result"]["output"] == {"message": "later"}
    assert facts["get"]["result"]["status"] == 10
    assert facts["cancel"]["error"]["text"].lower() == "task cancelled"
    assert "slow was told to fail" in facts["failing"]["error"]["text"]


def test_a_key_that_asks_for_the_newer_numbers_gets_them(system_with_apps):
    key = system_with_apps.cli_json("keys", "create", "--name", "v2", "--numbering", "v2")["key"]
    steps = [
        {"name": "get", "do": "get", "params": task(ECHO, message="later"), "terminal": list(NEW_NUMBERS)},
        {"name": "failing", "do": "run", "params": task(SLOW, seconds=0, lines=1, fail=True)},
    ]
    facts = Sdk("python", "0.6.1").drive(steps, system_with_apps.base_url, key)
    assert facts["get"]["result"]["status"] == 10
    assert "slow was told to fail" in facts["failing"]["error"]["text"]


def test_0_6_26_reads_streams_rightly_without_any_setting(system_with_apps):
    facts = drive(Sdk("python", "0.6.26", numbers=OLD_NUMBERS), system_with_apps)
    assert facts["run"]["result"]["output"] == {"message": "hi there"}
    assert "slow was told to fail" in facts["failing"]["error"]["text"]
    assert facts["cancel"]["error"]["text"].lower() == "task cancelled"
