"""Which machine a name means, and what a worker of one that drains is called."""

import pytest

from stoker_cli.output import CommandFailed
from stoker_cli.workers import engine_of, quarantine_line, state_of, worker_rows

ENGINES = [{"id": "gpubox", "name": "GPU box"}]
WORKERS = [{"id": "gpubox-gpu-0", "engine_id": "gpubox"}]


@pytest.mark.parametrize("name", ["gpubox", "GPU box"])
def test_a_machine_is_found_by_its_id_and_its_name(name):
    assert engine_of(name, ENGINES, WORKERS) == "gpubox"


@pytest.mark.parametrize(
    ("name", "words"),
    [("gpubox-gpu-0", "stoker workers drain gpubox"), ("box", "no machine is called 'box'; known: gpubox")],
)
def test_what_is_no_machine_is_refused_in_words(name, words):
    with pytest.raises(CommandFailed, match=words):
        engine_of(name, ENGINES, WORKERS)


@pytest.mark.parametrize(
    ("worker", "engine", "shown"),
    [
        ("idle", {"status": "running", "drain": None}, "idle"),
        ("busy", {"status": "draining", "drain": {"done": False}}, "busy, draining"),
        ("inactive", {"status": "draining", "drain": None}, "draining"),
        ("inactive", {"status": "stopped", "drain": {"done": True}}, "drained"),
        ("inactive", {"status": "stopped", "drain": None}, "inactive"),
    ],
)
def test_a_worker_shows_that_its_machine_drains(worker, engine, shown):
    assert state_of({"status": worker}, engine) == shown


def test_a_worker_in_quarantine_says_what_ends_it():
    failed = {"until": "2030", "failures": 5, "reason": "no [network]"}
    assert quarantine_line("box-cpu-0", failed) == (
        "[yellow]box-cpu-0 gets no tasks until 2030: 5 failed there in a row, the last one: no \\[network][/] "
        "[dim](stoker workers release box-cpu-0)[/]"
    )
    lost = {"until": None, "failures": 0, "reason": "GPU 0 is lost"}
    assert quarantine_line("box-gpu-0", lost) == (
        "[yellow]box-gpu-0 gets no tasks: GPU 0 is lost[/] [dim](until its GPUs work again)[/]"
    )


@pytest.mark.parametrize(
    ("quarantine", "state"),
    [(None, "idle"), ({"until": "2030", "failures": 5, "reason": "x"}, "quarantined")],
)
def test_a_worker_that_gets_no_tasks_is_not_called_idle(quarantine, state):
    worker = {"id": "box-cpu-0", "status": "idle", "quarantine": quarantine}
    [(name, shown, *_)] = worker_rows([], [worker])
    assert (name, shown) == ("box-cpu-0", state)


@pytest.mark.parametrize(("utilisation", "shown"), [(63.0, "63 %"), (0.0, "0 %"), (None, "-")])
def test_use_that_a_device_does_not_tell_is_not_zero(utilisation, shown):
    device = {"id": "GPU-a", "memory_used": 1, "memory_total": 2, "utilization": utilisation}
    worker = {"id": "w", "gpus": [{"gpu_id": "GPU-a", "name": "L4"}], "system_info": {"gpus": [device]}}
    [row] = worker_rows([], [worker])
    assert row[4] == shown
