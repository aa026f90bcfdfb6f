"""Workers as clients read them."""

import pytest
from msgspec import structs

from stoker.core.messages import (
    DrainOrder,
    EngineInfo,
    EngineReport,
    EngineView,
    Quarantine,
    Resident,
    WorkerInfo,
)
from stoker.core.states import ResidentState, Temperature
from stoker.core.vram import VramState
from stoker_gateway.fleet_dto import engine_dto, worker_dto

WORKER = WorkerInfo(id="box-cpu-0", index=0)
BUSY = Resident(
    worker_id=WORKER.id, setup_key="key", version_id="v", app="a/b", state=ResidentState.BUSY, task_id="task"
)


@pytest.mark.parametrize(("held", "status", "task_id"), [({"task": 1}, "busy", "task"), ({}, "idle", None)])
def test_a_worker_is_busy_while_its_engine_holds_the_task(held, status, task_id):
    info = EngineInfo(id="box", name="box", version="1", hostname="box", workers=(WORKER,))
    engine = EngineView(
        info=info,
        status="running",
        registered_ms=0,
        seen_ms=0,
        report=EngineReport(residents=(BUSY,)),
        tasks=held,
    )
    dto = worker_dto(engine, WORKER, {})
    assert (dto["status"], dto["task_id"]) == (status, task_id)
    assert [warm["app"] for warm in dto["warm_apps"]] == ["a/b"]


@pytest.mark.parametrize(
    ("status", "held", "shown", "worker", "done"),
    [
        ("draining", {"task": 1}, "draining", "busy", False),
        ("draining", {}, "draining", "inactive", False),
        ("stopped", {}, "stopped", "inactive", True),
        ("lost", {}, "disconnected", "inactive", False),
    ],
)
def test_an_engine_that_drains_shows_how_far_it_is(status, held, shown, worker, done):
    info = EngineInfo(id="box", name="box", version="1", hostname="box", workers=(WORKER,))
    engine = EngineView(
        info=info,
        status=status,
        registered_ms=0,
        seen_ms=0,
        report=EngineReport(residents=(BUSY,)),
        tasks=held,
        drain=DrainOrder(reason="new driver"),
    )
    dto = engine_dto(engine, {})
    assert dto["refused"] is None
    assert (dto["status"], dto["drain"]) == (shown, {"reason": "new driver", "done": done})
    assert [(each["status"], each["engine_status"]) for each in dto["workers"]] == [(worker, shown)]


def test_what_is_parked_stands_apart_from_what_is_loaded():
    parked = Resident(
        worker_id=WORKER.id,
        setup_key="other",
        version_id="v",
        app="a/parked",
        state=ResidentState.PARKED,
        temperature=Temperature.PARKED,
        host_bytes=5,
    )
    elsewhere = structs.replace(parked, worker_id="box-cpu-1")
    report = EngineReport(residents=(BUSY,), parked=(parked, elsewhere))
    info = EngineInfo(id="box", name="box", version="1", hostname="box", workers=(WORKER,))
    engine = EngineView(info=info, status="running", registered_ms=0, seen_ms=0, report=report)
    dto = worker_dto(engine, WORKER, {})
    assert [(r["app"], r["temperature"]) for r in dto["residents"]] == [("a/b", "hot")]
    [found] = dto["parked"]
    assert (found["app"], found["state"], found["temperature"], found["host_memory"]) == (
        "a/parked",
        "parked",
        "parked",
        5,
    )
    assert [warm["app"] for warm in dto["warm_apps"]] == ["a/b"]


def test_a_report_without_a_time_is_shown():
    never = structs.replace(BUSY, since_ms=10**30)
    info = EngineInfo(id="box", name="box", version="1", hostname="box", workers=(WORKER,))
    report = EngineReport(residents=(never,), vram={WORKER.id: VramState(trouble="lost", since_ms=-(10**30))})
    dto = engine_dto(EngineView(info=info, status="running", registered_ms=0, seen_ms=0, report=report), {})
    [worker] = dto["workers"]
    assert worker["residents"][0]["since"] == "9999-12-31T23:59:59.999Z"
    assert worker["quarantine"]["since"] == "0001-01-01T00:00:00.000Z"


def test_an_engine_that_does_not_fit_shows_what_to_do():
    info = EngineInfo(id="box", name="box", version="1", hostname="box", workers=(), protocol_version=0)
    dto = engine_dto(EngineView(info=info, status="refused", registered_ms=0, seen_ms=0), {})
    assert dto["status"] == "stopped"
    assert "Update the worker daemon" in dto["refused"]


def test_a_worker_whose_gpu_is_lost_says_so_for_as_long_as_it_reports_it():
    info = EngineInfo(id="box", name="box", version="1", hostname="box", workers=(WORKER,))
    lost = VramState(trouble="GPU 0 is lost", since_ms=1000)
    for report, expected in (
        (EngineReport(vram={WORKER.id: VramState(other_bytes=5)}), None),
        (
            EngineReport(vram={WORKER.id: lost}),
            {"since": "1970-01-01T00:00:01.000Z", "until": None, "failures": 0, "reason": "GPU 0 is lost"},
        ),
    ):
        engine = EngineView(info=info, status="running", registered_ms=0, seen_ms=0, report=report)
        dto = worker_dto(engine, WORKER, {})
        assert dto["quarantine"] == expected
        assert dto["vram_other"] == report.vram[WORKER.id].other_bytes


def test_a_worker_that_gets_no_tasks_says_why_and_until_when():
    info = EngineInfo(id="box", name="box", version="1", hostname="box", workers=(WORKER,))
    engine = EngineView(info=info, status="running", registered_ms=0, seen_ms=0)
    found = Quarantine(worker_id=WORKER.id, since_ms=0, until_ms=300_000, failures=5, reason="no network")
    assert worker_dto(engine, WORKER, {WORKER.id: found})["quarantine"] == {
        "since": "1970-01-01T00:00:00.000Z",
        "until": "1970-01-01T00:05:00.000Z",
        "failures": 5,
        "reason": "no network",
    }
