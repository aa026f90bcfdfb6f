"""Which parked instances go when the machine's memory is short: tables of facts and decisions."""

import pytest

from stoker_worker.host_memory import HostMemory, read_limits
from stoker_worker.parking import Stay, decide_room, decide_shortage

pytestmark = pytest.mark.unit

GIB = 1024**3
HOST = HostMemory(total_bytes=200 * GIB, free_bytes=150 * GIB)


def stay(key, value, gib, *, moving=False):
    return Stay(setup_key=key, value=value, host_bytes=gib * GIB, end=None if moving else lambda reason: None)


def room(stays, *, value=5.0, gib=10, limit=30, free=100, total=200):
    newcomer = stay("new", value, gib)
    memory = HostMemory(total_bytes=total * GIB, free_bytes=free * GIB)
    found = decide_room(stays, newcomer, gib * GIB, limit * GIB, memory)
    return found if isinstance(found, str) else [s.setup_key for s in found]


@pytest.mark.parametrize(
    ("stays", "limits", "expected"),
    [
        ([], {}, []),
        ([stay("a", 1, 20)], {}, []),
        ([stay("a", 1, 25)], {}, ["a"]),
        ([stay("a", 2, 15), stay("b", 1, 15)], {}, ["b"]),
        ([stay("a", 1, 5), stay("b", 2, 20), stay("c", 9, 5)], {"limit": 36}, ["a"]),
        ([stay("a", 1, 20)], {"limit": 100, "free": 25}, ["a"]),
    ],
)
def test_the_least_valuable_go_first_and_no_more_than_needed(stays, limits, expected):
    assert room(stays, **limits) == expected


@pytest.mark.parametrize(
    ("stays", "limits", "why"),
    [
        ([stay("a", 9, 25)], {}, "parked instances worth more leave 5.0 of 30.0 GiB"),
        ([stay("a", 1, 25, moving=True)], {}, "leave 5.0 of 30.0 GiB"),
        ([], {"gib": 40}, "40.0 GiB of the machine's memory are needed"),
        ([], {"free": 25}, "the machine is short of memory: 25.0 of 200.0 GiB are free"),
    ],
)
def test_what_is_worth_more_stays_and_the_reason_says_so(stays, limits, why):
    assert why in room(stays, **limits)


def test_a_shortage_takes_the_least_valuable_that_do_not_move():
    stays = [stay("a", 3, 10), stay("b", 1, 10), stay("c", 0, 10, moving=True)]
    memory = HostMemory(total_bytes=200 * GIB, free_bytes=15 * GIB)
    assert [s.setup_key for s in decide_shortage(stays, 100 * GIB, memory)] == ["b"]
    assert [s.setup_key for s in decide_shortage(stays, 12 * GIB, HOST)] == ["b", "a"]
    assert decide_shortage(stays, 30 * GIB, HOST) == ()


def group(folder, most, used, inactive_file):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{most}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 1\ninactive_file {inactive_file}\n")


def test_a_container_has_what_its_limit_leaves_it(tmp_path):
    own = tmp_path / "own"
    own.write_text("1:name=systemd:/\n0::/outer/inner\n")
    root = tmp_path / "groups"
    group(root / "outer", 100 * GIB, 60 * GIB, 10 * GIB)
    group(root / "outer" / "inner", "max", 0, 0)
    limits = read_limits(own, root)
    assert limits == [(100 * GIB, 50 * GIB)]
    assert HOST.within(limits) == HostMemory(total_bytes=100 * GIB, free_bytes=50 * GIB)
    assert HOST.within([(300 * GIB, 0)]) == HOST
    assert HOST.within([(10 * GIB, 11 * GIB)]).free_bytes == 0


@pytest.mark.parametrize("text", ["", "9:memory:/docker/1\n", "0::/gone\n"])
def test_what_cannot_be_read_limits_nothing(tmp_path, text):
    own = tmp_path / "own"
    own.write_text(text)
    assert read_limits(own, tmp_path) == []
    assert read_limits(tmp_path / "nowhere", tmp_path) == []
    assert HOST.within([]) == HOST
