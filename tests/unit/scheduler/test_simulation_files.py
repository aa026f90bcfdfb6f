"""What the simulator reads: numbers that are none, and files that only look like a trace, are refused with their place."""

import math

import pytest

from stoker.core.errors import Bug, InvalidRequest
from stoker_cli.simulate import simulate, sizes_of
from stoker_scheduler.actions import Rules
from stoker_scheduler.simulation.compare import POLICIES, play
from stoker_scheduler.simulation.engine import Simulation, workers_of
from stoker_scheduler.simulation.fleet_file import (
    GB,
    MEASURED,
    FleetFile,
    FleetUnreadable,
    LoadsUnreadable,
    Machine,
    measured_loads,
    read_fleet,
)
from stoker_scheduler.simulation.rules import WarmFirst
from stoker_scheduler.simulation.trace import Request, TraceUnreadable, read_trace

pytestmark = pytest.mark.unit

GENTD26 = "gmt_create,exec_time_seconds,groupId,checkpoint_model_version_id,num_lora\n"
ONE = FleetFile(machines=(Machine(),))


def told_of_trace(path, text):
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TraceUnreadable) as told:
        read_trace(path)
    return str(told.value)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("at_s", "nan"),
        ("at_s", "inf"),
        ("at_s", "1e300"),
        ("at_s", "soon"),
        ("run_s", "nan"),
        ("run_s", "-1"),
        ("run_s", "1e12"),
        ("run_s", ""),
        ("load_s", "inf"),
        ("load_s", "-0.1"),
        ("vram_gb", "nan"),
        ("vram_gb", "1e300"),
        ("priority", "high"),
        ("setup", ""),
    ],
)
def test_a_row_of_a_trace_is_refused_with_its_line_and_field(tmp_path, column, value):
    row = {"at_s": "1", "setup": "a", "run_s": "1", "load_s": "", "vram_gb": "", "priority": ""}
    rows = [row, row | {column: value}]
    lines = [",".join(row), *(",".join(each.values()) for each in rows)]
    told = told_of_trace(tmp_path / "t.csv", "\n".join(lines) + "\n")
    assert f"line 3 of the trace '{tmp_path / 't.csv'}' is no request: {column} is " in told


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("at_s", "NaN"),
        ("at_s", "null"),
        ("at_s", "[1]"),
        ("run_s", "Infinity"),
        ("run_s", "1" + "0" * 400),
        ("priority", "Infinity"),
        ("priority", "NaN"),
        ("vram_gb", "1e300"),
        ("setup", "null"),
    ],
)
def test_a_line_of_a_trace_is_refused_with_its_number_and_field(tmp_path, field, value):
    fields = {"at_s": "1", "setup": '"a"', "run_s": "1"} | {field: value}
    line = "{" + ", ".join(f'"{name}": {each}' for name, each in fields.items()) + "}"
    assert f"line 1 of the trace '{tmp_path / 't.jsonl'}' is no request: {field} is " in told_of_trace(
        tmp_path / "t.jsonl", line
    )


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ("yesterday,1,g,m,0", "gmt_create"),
        ("2024-11-15 16:57:50,nan,g,m,0", "exec_time_seconds"),
        ("2024-11-15 16:57:50,1,g,,0", "checkpoint_model_version_id"),
        ("2024-11-15 16:57:50,1,g,m,nan", "num_lora"),
    ],
)
def test_a_row_of_the_published_trace_is_refused_with_its_line_and_field(tmp_path, row, field):
    good = "2024-11-15 16:57:50,1,g,m,0\n"
    assert f"line 3 of the trace '{tmp_path / 't.csv'}' is no request: {field} is " in told_of_trace(
        tmp_path / "t.csv", GENTD26 + good + row
    )


def test_the_line_that_is_told_counts_rows_that_failed(tmp_path):
    text = (
        GENTD26.replace("groupId", "predict_status")
        + "2024-11-15 16:57:50,1,FAILED,m,0\n2024-11-15 16:57:50,x,SUCCEED,m,0\n"
    )
    assert "line 3 of" in told_of_trace(tmp_path / "t.csv", text)


def test_a_quote_that_is_never_closed_swallows_no_rows(tmp_path):
    told = told_of_trace(tmp_path / "t.csv", 'at_s,run_s,setup\n1,1,a\n2,1,"b\n3,1,c\n')
    assert "what follows line 2 of the trace" in told
    assert "is no CSV" in told
    assert "header" in told_of_trace(tmp_path / "t.csv", 'at_s,run_s,"setup\n1,1,a\n')


def test_a_setup_has_the_largest_size_of_its_rows(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text(
        "at_s,setup,run_s,vram_gb\n0,a,1,8\n100,b,1,\n200,a,1,14\n300,a,1,\n400,b,1,9\n500,c,1,\n"
    )
    trace = read_trace(path)
    assert [each.vram_bytes // GB for each in trace] == [14, 9, 14, 14, 9, 0]
    for policy in POLICIES:
        play(trace, ONE, policy, Rules())  # the scheduler counts what was measured, the engine what is given


def test_a_task_that_was_warm_takes_its_setups_own_time_where_it_has_to_load(tmp_path):
    path = tmp_path / "t.csv"
    rows = [f"{100 * n},{'ab'[n % 2]},1,{2 if n < 2 else ''}" for n in range(40)]
    path.write_text("\n".join(["at_s,setup,run_s,load_s", *rows]) + "\n")
    fleet = FleetFile(machines=(Machine(count=1, vram_gb=24, models=1),))
    outcome = play(read_trace(path), fleet, "warm-first", Rules())
    assert (outcome.loads, outcome.loading_s) == (40, 80)


def test_the_time_of_a_load_is_the_median_of_those_that_are_known(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("at_s,setup,run_s,load_s\n0,a,1,2\n1,a,1,90\n2,a,1,4\n3,a,1,\n4,a,1,0\n5,b,1,\n")
    assert [request.load_s for request in read_trace(path)] == [2, 90, 4, 4, 4, 0]


def test_a_mark_of_byte_order_is_no_part_of_the_first_column(tmp_path):
    for name, text in (
        ("t.csv", "at_s,setup,run_s\n1,a,2\n"),
        ("t.jsonl", '{"at_s": 1, "setup": "a", "run_s": 2}\n'),
    ):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert [request.run_s for request in read_trace(tmp_path / name)] == [2]
    (tmp_path / MEASURED).write_text("base_model_ms,lora_ms\n1000,1\n", encoding="utf-8-sig")
    assert measured_loads(tmp_path / "t.csv").quantiles_s == (1.0,)


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("machines: [{vram_gb: .nan}]", r"machines\[0\]\.vram_gb is nan"),
        ("machines: [{vram_gb: .inf}]", r"machines\[0\]\.vram_gb"),
        ("machines: [{}, {vram_gb: 0}]", r"machines\[1\]\.vram_gb"),
        ("machines: [{}, {count: -1}]", r"machines\[1\]\.count"),
        ("machines: [{count: 1000000000}]", r"machines\[0\]\.count"),
        ("machines: [{count: 0}]", "no worker"),
        ("machines: [{models: -1}]", r"machines\[0\]\.models is -1"),
        ("machines: [{host_gb: .nan}]", r"machines\[0\]\.host_gb"),
        ("machines: [{host_gb: -1}]", r"machines\[0\]\.host_gb"),
        ("machines: [{}]\nloads: {base_s: .nan}", r"loads\.base_s is nan"),
        ("machines: [{}]\nloads: {base_s: -1}", r"loads\.base_s"),
        ("machines: [{}]\nloads: {lora_s: .inf}", r"loads\.lora_s"),
        ("machines: [{}]\nloads: {unpark_s: .nan}", r"loads\.unpark_s"),
        ("machines: [{}]\nloads: {park_s: -2}", r"loads\.park_s"),
        ("machines: [{}]\nloads: {quantiles_s: [1, .nan]}", r"loads\.quantiles_s\[1\]"),
        ("machines: [{}]\nloads: {lora_quantiles_s: [-1]}", r"loads\.lora_quantiles_s\[0\]"),
        ("machines: [{}]\nsizes: {gb: .nan}", r"sizes\.gb is nan"),
        ("machines: [{}]\nsizes: {gb: -1}", r"sizes\.gb"),
        ("machines: [{}]\nsizes: {to_gb: .inf}", r"sizes\.to_gb"),
        ("machines: [{}]\nsizes: {gb: 8, to_gb: 4}", r"sizes\.to_gb is 4; .* sizes\.gb \(8\)"),
    ],
)
def test_a_fleet_is_refused_with_the_field(tmp_path, text, field):
    path = tmp_path / "fleet.yml"
    path.write_text(text)
    with pytest.raises(FleetUnreadable, match=rf"the fleet '{path}': .*{field}"):
        read_fleet(path)


@pytest.mark.parametrize(
    ("row", "field"),
    [("nan,1", "base_model_ms"), ("1,-1", "lora_ms"), ("1", "lora_ms"), ("inf,1", "base_model_ms")],
)
def test_a_table_of_loads_is_refused_with_its_line_and_column(tmp_path, row, field):
    (tmp_path / MEASURED).write_text(f"base_model_ms,lora_ms\n1,1\n{row}\n")
    with pytest.raises(LoadsUnreadable, match=f"line 3: {field} is "):
        measured_loads(tmp_path / "t.csv")


def test_a_table_of_loads_with_an_open_quote_is_refused(tmp_path):
    (tmp_path / MEASURED).write_text('base_model_ms,lora_ms\n1,"1\n')
    with pytest.raises(LoadsUnreadable, match="cannot read measured loads"):
        measured_loads(tmp_path / "t.csv")


@pytest.mark.parametrize("speed", [math.nan, math.inf])
def test_a_speed_that_is_no_number_is_refused(tmp_path, speed):
    (tmp_path / "t.csv").write_text("at_s,setup,run_s\n0,a,1\n")
    with pytest.raises(InvalidRequest, match="--speed"):
        simulate(tmp_path / "t.csv", speed=speed)


def test_sizes_beyond_any_device_are_refused():
    for text in ("9" * 400, f"4..{'9' * 400}"):
        with pytest.raises(InvalidRequest, match="--sizes"):
            sizes_of(text)


@pytest.mark.parametrize("at_s", [math.nan, math.inf])
def test_an_event_that_never_comes_is_a_bug(at_s):
    with pytest.raises(Bug, match="is due at"):
        play([Request(at_s=at_s, setup="a", run_s=1)], ONE, "random", Rules())


def test_an_event_of_the_past_is_a_bug():
    workers = workers_of(ONE)
    simulation = Simulation([Request(at_s=9, setup="a", run_s=1)], workers, lambda *_: -1.0, lambda _: 1)
    with pytest.raises(Bug, match=r"is due at 8\.0 s, and it is 9 s already"):
        simulation.run(WarmFirst(workers))
