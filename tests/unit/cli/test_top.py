"""A frame of `stoker top` from data, without a terminal; and what it does when the gateway goes away."""

import asyncio
import dataclasses
import io
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from stoker_cli.output import CommandFailed, ExitCode
from stoker_cli.top.command import Sight
from stoker_cli.top.frame import Snapshot, frame
from stoker_cli.top.lines import TRACK, bar, curve
from stoker_cli.top.machines import memory_parts
from stoker_cli.top.screen import Wishes, _is_end
from stoker_cli.top.words import clean, duration, gigabytes

GB = 10**9
NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)


def ago(seconds):
    return (NOW - timedelta(seconds=seconds)).isoformat()


def gpu(index=0, **more):
    base = {
        "id": f"GPU-{index}", "index": index, "name": "NVIDIA L4", "driver_version": "550", "cuda_version": "12.4",
        "memory_used": 12 * GB, "memory_total": 24 * GB, "utilization": 63.0, "temperature": 71, "power": 55.0,
        "power_limit": 72.0, "clock": 1410, "history": {"interval_s": 5, "utilization": [0, None, 100]},
    }  # fmt: skip
    return base | more


def engine(*gpus, residents=(), status="running", **more):
    worker = {
        "id": "box-gpu-0", "name": "box-gpu-0", "status": "busy", "residents": list(residents),
        "gpus": [{"gpu_id": each["id"]} for each in gpus],
    }  # fmt: skip
    info = {
        "engine_version": "1.2", "cpus": [{"cores": 16, "usage": 23.0}], "ram": {"used": 41 * GB, "total": 128 * GB},
        "load": [1.5, 1.0, 0.5], "volumes": [{"usage": 71.0}], "gpus": list(gpus),
        "history": {"interval_s": 5, "cpu": [10, 20]},
    }  # fmt: skip
    return {
        "id": "box", "name": "box", "status": status, "updated_at": ago(2), "system_info": info,
        "workers": [worker | more],
    }  # fmt: skip


def shown(*engines, running=(), waiting=(), width=140, height=None, live=False, **more):
    queue = {"running": list(running), "waiting": list(waiting), "pending": len(waiting), "delayed": 0}
    snapshot = Snapshot(url="http://here", now=NOW, engines=engines, queue=queue)
    return text_of(dataclasses.replace(snapshot, **more), width, height, live=live)


def text_of(snapshot, width, height=None, *, live=False):
    console = Console(file=io.StringIO(), width=width, color_system=None, legacy_windows=False)
    console.print(frame(snapshot, width, height, live=live))
    return console.file.getvalue()


def row(text, word):
    [found] = [each for each in text.splitlines() if word in each]
    return found


def test_a_device_shows_memory_use_temperature_power_and_clock():
    words = row(shown(engine(gpu())), "GPU 0 L4")
    for word in ("12.0/24.0 GB", "63 %", "71 °C", "55/72 W", "1410 MHz", "▁ █"):
        assert word in words


def test_a_host_shows_memory_use_load_and_disk_under_the_heads_of_the_devices():
    text = shown(engine(gpu()))
    words = row(text, "CPU, 16 cores")
    for word in ("41.0/128 GB", "23 %", "load 1.5", "disk 71 %"):
        assert word in words
    assert row(text, "12.0/24.0 GB").index("GB") == words.index("GB")
    assert row(text, "last 100 s").index("memory") < words.index("41.0")


def test_instances_show_their_state_and_since_when():
    residents = [
        {"app": "a/busy", "state": "busy", "vram": 6 * GB, "task_id": "task1", "since": ago(500)},
        {"app": "a/warm", "state": "idle", "vram": 2 * GB, "task_id": None, "since": ago(840)},
        {"app": "a/new", "state": "loading", "vram": 0, "task_id": "task2", "since": ago(10**9)},
    ]
    running = [
        {"task_id": "task1", "app": "a/busy", "state": "running", "worker_id": "box-gpu-0", "since": ago(12)},
        {
            "task_id": "task2",
            "app": "a/new",
            "state": "setting_up",
            "worker_id": "box-gpu-0",
            "since": ago(65),
        },
        {
            "task_id": "task3",
            "app": "a/next",
            "state": "scheduled",
            "worker_id": "box-gpu-0",
            "since": ago(1),
        },
        {"task_id": "task4", "app": "a/else", "state": "running", "worker_id": "other", "since": ago(1)},
    ]
    text = shown(engine(gpu(), residents=residents), running=running)
    assert "running for 12 s" in row(text, "a/busy")
    assert "task1" in row(text, "a/busy")
    assert "warm, loaded 14 min ago" in row(text, "a/warm")
    assert "setting up for 1 min" in row(text, "a/new")
    assert "scheduled for 1 s" in row(text, "a/next")
    assert "a/else" not in text


def test_what_is_parked_says_what_it_takes_of_the_machines_memory():
    parked = {"app": "a/parked", "state": "parked", "vram": 0, "host_memory": 7 * GB, "since": ago(500)}
    text = shown(engine(gpu(), parked=[parked]))
    assert "parked, takes 7.0 GB of the machine's memory" in row(text, "a/parked")


def test_an_instance_without_a_task_does_not_tell_a_time_that_it_has_not():
    resident = {
        "app": "a/new",
        "state": "loading",
        "vram": 0,
        "task_id": None,
        "since": "1970-01-01T00:00:00Z",
    }
    assert " d" not in row(shown(engine(gpu(), residents=[resident])), "a/new")


def test_the_memory_of_a_device_is_divided_among_instances_and_the_rest():
    residents = [{"state": "idle", "vram": 20}, {"state": "busy", "vram": 40}]
    parts = memory_parts(residents, used=70, total=100, shared_by=1)
    assert [share for share, _ in parts] == pytest.approx([0.4, 0.2, 0.1])
    halves = memory_parts(residents, used=70, total=100, shared_by=2)
    assert [share for share, _ in halves] == pytest.approx([0.2, 0.1, 0.4])


def test_more_memory_than_is_used_is_not_shown():
    parts = memory_parts([{"state": "busy", "vram": 90}], used=50, total=100, shared_by=1)
    assert [share for share, _ in parts] == pytest.approx([0.5, 0])


@pytest.mark.parametrize(
    ("reading", "words"),
    [
        ({"lost": "NVML: GPU is lost"}, "lost: NVML: GPU is lost"),
        ({"throttled": ["power cap"]}, "slowed down: power cap"),
        ({"ecc": {"corrected": 9, "uncorrected": 2}}, "2 memory errors that could not be corrected"),
        (
            {"xids": [{"code": 79, "meaning": "XID 79 (off the bus)", "at": ago(180)}], "xid_count": 3},
            "XID 79 (off the bus), 3 min ago, and 2 before",
        ),
        (
            {"mig": [{"id": 1, "name": "NVIDIA A100 MIG 1g.5gb", "memory_used": GB, "memory_total": 5 * GB}]},
            "MIG 1 1g.5gb",
        ),
    ],
)
def test_what_is_out_of_the_ordinary_is_said(reading, words):
    assert words in shown(engine(gpu(**reading)))


def test_what_a_device_does_not_tell_is_not_shown_as_zero():
    unknown = dict.fromkeys(("utilization", "power", "power_limit", "clock", "history", "throttled", "ecc"))
    words = row(shown(engine(gpu(temperature=0, **unknown))), "GPU 0 L4")
    assert "%" not in words
    assert "°C" not in words
    assert "W" not in words


def test_what_waits_is_shown_with_the_reason():
    item = {"app": "a/x", "since": ago(9), "queue_reason": "every GPU is busy"}
    words = row(shown(engine(gpu()), waiting=[item]), "a/x")
    assert words.split()[1:4] == ["9", "s", "a/x"]
    assert "every GPU is busy" in words


def test_a_machine_without_gpus_and_one_that_is_gone_are_shown():
    text = shown(engine(), engine(status="disconnected"))
    assert "CPU, 16 cores" in text
    assert "not connected: box" in text
    assert "1 machine · 1 worker" in text


@pytest.mark.parametrize(
    ("until", "words"),
    [
        ("12:30", "gets no tasks until 12:30: 5 failed in a row, the last: no network"),
        (None, "gets no tasks: no network"),
    ],
)
def test_a_worker_in_quarantine_says_why(until, words):
    why = {"until": until, "failures": 5, "reason": "no network"}
    assert words in shown(engine(gpu(), quarantine=why))


def test_a_machine_that_is_silent_says_so():
    silent = engine(gpu()) | {"updated_at": ago(90)}
    assert "not heard for 1 min" in shown(silent)


def test_no_worker_says_how_to_start_one():
    text = shown()
    assert "stoker worker" in text
    assert "Nothing waits." in text


def test_an_older_gateway_without_the_queue_is_told():
    assert "older than this command" in shown(engine(gpu()), queue=None)


def test_a_gateway_that_is_away_is_told_above_what_was_last_known():
    text = shown(engine(gpu()), away="nothing new for 4 s: no gateway answers")
    assert "nothing new for 4 s: no gateway answers; trying again" in text.splitlines()[1]
    assert "GPU 0 L4" in text


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
@pytest.mark.parametrize("height", [8, 24])
def test_a_frame_fits_into_its_window(width, height):
    residents = [{"app": f"a/{n}", "state": "idle", "vram": GB, "since": ago(5)} for n in range(9)]
    waiting = [{"app": f"a/w{n}", "since": ago(n), "queue_reason": "because " * 30} for n in range(30)]
    engines = [engine(gpu(0), gpu(1), residents=residents), engine(gpu(2))]
    lines = shown(*engines, waiting=waiting, width=width, height=height, live=True).splitlines()
    assert max(map(len, lines)) <= width
    assert len(lines) <= height
    assert any("waiting" in line for line in lines)


def test_a_wide_window_has_more_columns_than_a_narrow_one():
    assert "1410 MHz" not in shown(engine(gpu()), width=60)
    assert "12.0/24.0 GB" in shown(engine(gpu()), width=60)


def test_what_others_named_cannot_move_the_cursor():
    text = shown(
        engine(gpu(name="\x1b[2Jevil"), residents=[{"app": "a\x07\nb", "state": "idle", "since": ago(1)}])
    )
    assert "\x1b" not in text
    assert "?[2Jevil" in text
    assert clean("a\nb") == "a?b"


@pytest.mark.parametrize(
    ("parts", "cells"),
    [
        ([], "        "),
        ([(0.5, "green")], "████    "),
        ([(0.25, "green"), (0.5, "red")], "██████  "),
        ([(0.0625, "green")], "▌       "),
        ([(2, "green")], "████████"),
        ([(0.5, "green"), (9, "red")], "████████"),
        ([(-1, "green")], "        "),
    ],
)
def test_a_bar_is_as_long_as_its_shares(parts, cells):
    assert bar(parts, 8).plain == cells


def test_the_rest_of_a_bar_is_its_track():
    assert [(span.start, span.end) for span in bar([(0.5, "green")], 8).spans if span.style == TRACK] == [
        (4, 8)
    ]


def test_a_curve_ends_at_the_right_with_gaps_where_nothing_was_read():
    assert curve([0, None, 50, 100], 6, "").plain == "  ▁ ▅█"
    assert curve([1] * 100, 3, "").plain == "▁▁▁"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-3, "0 s"), (59.9, "59 s"), (60, "1 min"), (3599, "59 min"), (7500, "2 h 5 min"), (200_000, "2 d")],
)
def test_durations_have_two_figures_at_most(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("size", "words"), [(0, "0.0"), (99.94 * GB, "99.9"), (99.99 * GB, "100"), (270 * GB, "270")]
)
def test_gigabytes_keep_their_width(size, words):
    assert gigabytes(size) == words


@pytest.mark.parametrize(
    ("keys", "ends"),
    [(b"q", True), (b"\x03", True), (b"\x1b", True), (b"\x1b[A", False), (b"x", False), (b"xq", True)],
)
def test_which_keys_end_it(keys, ends):
    assert _is_end(keys) is ends


class Answers:
    """A gateway that gives these answers, one a look."""

    def __init__(self, *answers):
        self.answers = list(answers)

    async def read(self):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


FIRST, SECOND = (Snapshot(url=url, now=NOW) for url in ("first", "second"))


async def test_a_gateway_that_goes_away_and_comes_back_is_shown_as_such():
    wishes = Wishes()
    sight = Sight(FIRST, wishes)
    seen = []
    away = CommandFailed("no gateway answers", ExitCode.UNREACHABLE)
    denied = CommandFailed("the key was deleted", ExitCode.DENIED)
    source = Answers(away, SECOND, denied)
    wishes.redraw.set = lambda: seen.append(sight.snapshot())
    with pytest.raises(CommandFailed, match="the key was deleted"):
        await asyncio.wait_for(sight.look_loop(source, 0), 10)
    assert [(each.url, each.away) for each in seen] == [
        ("first", "nothing new for 0 s: no gateway answers"),
        ("second", ""),
    ]
