"""A whole system on stand-in GPUs that free late, leak, are lost under load, and that others use, too.

The app takes memory of the device as CUDA does: where too little is free it fails. So a task that ends well in its
first attempt was never placed on memory that somebody else had.
"""

import shutil
import subprocess

import pytest
from clients import raw
from helpers import ROOT, TEST_APPS, start_system, wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

GIB = 1024**3
FOREVER_S = 100_000
SETTING_UP, RUNNING, COMPLETED, FAILED = 6, 7, 10, 11


class Gpus:
    """Two devices of 24 GiB. `frees_s`: how late memory comes back; `foreign`: GiB of other programs; `error`: NVML's."""

    def __init__(self, folder):
        self.apps = folder / "apps"
        self.apps.mkdir()
        self.library = folder / "libnvidia-ml.so.1"
        self.file = folder / "devices"
        source = ROOT / "tests" / "nvml" / "libnvidia-ml.c"
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", "-o", self.library, source],
            check=True,
        )
        self.show()

    def show(self, *, frees_s=0, foreign=(0, 0), error=(0, 0)):
        rows = [
            f"L4 GPU-{n} {24 * GIB} {int((0.5 + foreign[n]) * GIB)} 0 40 50000 {error[n]} 1:{foreign[n] * GIB}"
            for n in (0, 1)
        ]
        scratch = self.file.with_suffix(".new")
        scratch.write_text("\n".join([*rows, f"apps {frees_s} {self.apps}"]) + "\n")
        scratch.replace(self.file)

    def say(self, word):
        (self.apps / word).touch()


class Fleet:
    """The system over HTTP."""

    def __init__(self, system, http, gpus, folder):
        self.system, self.http, self.gpus = system, http, gpus
        self.app = system.deploy(TEST_APPS / "gpu")
        honest = shutil.copytree(TEST_APPS / "gpu", folder / "honest")
        text = (honest / "inf.yml").read_text().replace("name: gpu", "name: honest")
        (honest / "inf.yml").write_text(text.replace("vram: 4294967296", f"vram: {14 * GIB}"))
        self.honest = system.deploy(honest)
        self.ids = [worker["id"] for worker in self.workers()]

    def workers(self):
        return sorted(raw.data_of(self.http.get("/workers"))["items"], key=lambda worker: worker["id"])

    def worker(self, number=0):
        return self.workers()[number]

    def submit(self, gib, *, app="", on=0, **given):
        """A task of a setup that takes so much, on one of the two workers, or on any of them (None)."""
        params = {"app": app or self.honest, "infra": "private", "input": given, "setup": {"gib": gib}}
        if on is not None:
            params["workers"] = [self.ids[on]]
        return raw.run(self.http, params)["id"]

    def task(self, task_id):
        return raw.data_of(self.http.get(f"/tasks/{task_id}"))

    def end(self, task_id):
        return raw.wait_end(self.system, task_id)

    def reason(self, task_id, part):
        """Wait until a task that waits says why, in words that hold `part`."""
        return wait_until(
            lambda: part in (reason := self.task(task_id).get("queue_reason") or "") and reason,
            f"{part!r} as the reason of a task",
        )

    def attempts(self, task_id):
        """How many of its attempts reached an app."""
        events = raw.data_of(self.http.get(f"/tasks/{task_id}/timings"))["events"]
        return sum(event["status"] == SETTING_UP for event in events)

    def runs_on(self, task_id, other_than):
        """Wait until a task runs, on another worker than that; on which."""

        def where():
            task = self.task(task_id)
            return task["worker_id"] if task["status"] == RUNNING and task["worker_id"] != other_than else ""

        return wait_until(where, f"a run of {task_id} elsewhere than on {other_than!r}")

    def out(self, number, part):
        """Wait until a worker gets no tasks because of `part`; with "" until it gets some."""
        wait_until(
            lambda: part in str(why) if (why := self.worker(number)["quarantine"]) else not part,
            f"{part!r} as what is wrong with worker {number}",
        )

    def loaded(self, number=0):
        return [round(r["vram"] / GIB) for r in self.worker(number)["residents"] if r["state"] == "idle"]


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gpu memory")
    gpus = Gpus(folder)
    variables = {
        "NVML_STANDIN": str(gpus.file),
        "NVML_APPS": str(gpus.apps),
        "NVML_LIBRARY": str(gpus.library),
    }
    running = start_system(
        folder / "data",
        LD_LIBRARY_PATH=str(folder),
        NVML_STANDIN=str(gpus.file),
        STOKER_APP_ENV=str(variables).replace("'", '"'),
        STOKER_PRIVATE_TMP="off",
        STOKER_TELEMETRY_S="0.2",
    )
    try:
        with raw.client(running, raw.SDK_NAMED) as http:
            yield Fleet(running, http, gpus, folder)
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def healthy(fleet):
    yield
    fleet.gpus.show()


def test_what_an_instance_takes_is_measured_also_while_it_runs(fleet):
    ended = fleet.end(fleet.submit(3, app=fleet.app, more=2))
    assert ended["status"] == COMPLETED
    wait_until(lambda: fleet.loaded() == [5], f"the 5 GiB of the instance, not {fleet.loaded()}")


def test_memory_of_another_program_is_not_given_away_and_the_task_says_so(fleet):
    fleet.gpus.show(foreign=(12, 0))
    task = fleet.submit(14)
    reason = fleet.reason(task, "too little GPU memory")
    assert "in use there by other programs" in reason
    fleet.gpus.show()
    assert fleet.end(task)["status"] == COMPLETED
    assert fleet.attempts(task) == 1


def test_memory_that_is_freed_8_s_late_is_waited_for(fleet):
    fleet.end(fleet.submit(14))
    fleet.gpus.show(frees_s=8)
    task = fleet.submit(13)
    assert fleet.end(task)["status"] == COMPLETED
    assert fleet.attempts(task) == 1
    assert fleet.worker()["quarantine"] is None


def test_a_device_that_leaks_is_taken_out_until_the_memory_is_back(fleet):
    fleet.end(fleet.submit(13))
    fleet.gpus.show(frees_s=FOREVER_S)
    task = fleet.submit(12)
    fleet.out(0, "GiB of GPU memory are not free since")
    fleet.reason(task, "in quarantine")
    fleet.gpus.show()
    fleet.out(0, "")
    assert fleet.end(task)["status"] == COMPLETED


def test_a_device_that_is_lost_under_load_gives_its_task_to_another_and_comes_back(fleet):
    task = fleet.submit(11, on=None, wait="lost")
    first = fleet.runs_on(task, "")
    number = fleet.ids.index(first)
    fleet.gpus.show(error=[(0, 15)[n == number] for n in (0, 1)])
    fleet.out(number, "NVML: GPU is lost")
    fleet.runs_on(task, first)
    fleet.gpus.say("lost")
    ended = fleet.end(task)
    assert (ended["status"], ended["output"]["device"]) == (COMPLETED, 1 - number)
    fleet.gpus.show()
    fleet.out(number, "")
    assert fleet.end(fleet.submit(11, on=number))["status"] == COMPLETED


def test_memory_that_runs_out_is_tried_again_alone_and_then_told_in_numbers(fleet):
    fleet.end(fleet.submit(10, app=fleet.app, on=1))
    beside = fleet.submit(15, app=fleet.app, on=1)
    assert fleet.end(beside)["status"] == COMPLETED
    assert fleet.attempts(beside) == 2
    assert fleet.loaded(1) == [15]
    ended = fleet.end(fleet.submit(30, app=fleet.app, on=1))
    assert ended["status"] == FAILED
    assert "The task failed in each of its 2 attempts" in ended["error"]
    assert "Tried to allocate 30.00 GiB" in ended["error"]
    assert "it held 0.0 GiB of the 24.0 GiB of" in ended["error"]
