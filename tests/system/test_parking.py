"""A whole system on a stand-in GPU that holds one model at a time: what makes room is parked and comes back.

By the app's hooks, and by a stand-in for the CUDA driver's library.
"""

import shutil

import cuda_library
import nvml_library
import pytest
from clients import raw
from helpers import TEST_APPS, kill, start_system, wait_until

pytestmark = [pytest.mark.long, pytest.mark.timeout(180)]

GIB = 1024**3
SETTING_UP, RUNNING, COMPLETED = 6, 7, 10


class Fleet:
    """The system over HTTP, and what its apps noted."""

    def __init__(self, system, http, folder):
        self.system, self.http, self.folder = system, http, folder
        self.app = system.deploy(TEST_APPS / "parking")
        plain = shutil.copytree(TEST_APPS / "parking", folder / "plain")
        (plain / "inf.yml").write_text(
            (plain / "inf.yml").read_text().replace("name: parking", "name: plain")
        )
        code = (
            (plain / "inference.py")
            .read_text()
            .replace("def park(", "def _park(")
            .replace("def unpark(", "def _unpark(")
        )
        (plain / "inference.py").write_text(code)
        self.plain = system.deploy(plain)

    def run(self, model, app="", **setup):
        """Run a task of a model to its end; what it says."""
        params = {
            "app": app or self.app,
            "infra": "private",
            "input": {},
            "setup": {"model": model, **setup},
        }
        ended = raw.wait_end(self.system, raw.run(self.http, params)["id"])
        assert ended["status"] == COMPLETED, ended
        assert ended["output"]["on_device"]
        self.last = ended
        return ended["output"]

    def states(self):
        """Which states the last task went through."""
        events = raw.data_of(self.http.get(f"/tasks/{self.last['id']}/timings"))["events"]
        return [event["status"] for event in events]

    def noted(self, model):
        path = self.folder / "notes" / model
        return path.read_text().split() if path.exists() else []

    def worker(self):
        [worker] = raw.data_of(self.http.get("/workers"))["items"]
        return worker

    def parked(self, count):
        """Wait until so many are reported as parked; they."""

        def found():
            parked = self.worker()["parked"]
            return [parked] if len(parked) == count else None

        [parked] = wait_until(found, f"{count} parked instances, not {self.worker()}")
        return parked

    def logged(self, event, words):
        def found():
            lines = (self.system.data_dir / "logs" / "worker.log").read_text().splitlines()
            return any(event in line and words in line for line in lines)

        wait_until(found, f"{event} with {words!r} in the worker's log")


@pytest.fixture(scope="module")
def fleet(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parking")
    library = nvml_library.built(folder)
    cuda_library.built(folder)
    for name in ("apps", "cuda", "notes"):
        (folder / name).mkdir()
    devices = folder / "devices"
    devices.write_text(f"L4 GPU-0 {2 * GIB} {GIB // 10} 0 40 50000 0\napps 0 {folder / 'apps'}\n")
    variables = {
        "NVML_STANDIN": str(devices),
        "NVML_APPS": str(folder / "apps"),
        "NVML_LIBRARY": str(library),
        "PARKING_FOLDER": str(folder / "notes"),
    }
    running = start_system(
        folder / "data",
        LD_LIBRARY_PATH=str(folder),
        NVML_STANDIN=str(devices),
        NVML_APPS=str(folder / "apps"),
        CUDA_STANDIN=str(folder / "cuda"),
        STOKER_APP_ENV=str(variables).replace("'", '"'),
        STOKER_PRIVATE_TMP="off",
        STOKER_TELEMETRY_S="0.2",
        STOKER_PARKING="auto",
        STOKER_PARKING_MAX_BYTES=str(int(1.3 * GIB)),
    )
    try:
        with raw.client(running, raw.SDK_NAMED) as http:
            yield Fleet(running, http, folder)
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def nothing_fails(fleet):
    yield
    (fleet.folder / "cuda" / "fail").unlink(missing_ok=True)


def test_two_models_by_turns_are_set_up_once_and_come_back(fleet):
    first, second = fleet.run("one"), fleet.run("two")
    [parked] = fleet.parked(1)
    assert (parked["state"], parked["temperature"], parked["vram"]) == ("parked", "parked", 0)
    assert parked["host_memory"] > 0
    for _ in range(2):
        assert fleet.run("one") == first
        assert fleet.states()[-3:] == [SETTING_UP, RUNNING, COMPLETED]
        assert fleet.run("two") == second
    assert fleet.noted("one") == ["setup", "park", "unpark", "park", "unpark", "park"]
    assert fleet.noted("two").count("setup") == 1
    assert 'stoker_engine_parked{engine="' in fleet.http.get("/metrics").text
    wait_until(
        lambda: "parked, takes" in fleet.system.cli("top", "--once").stdout, "a parked one in stoker top"
    )


def test_a_pin_brings_back_what_is_parked_and_an_explanation_says_that_a_task_did(fleet):
    fleet.run("kept")
    fleet.run("turned")
    wait_until(lambda: fleet.noted("kept")[-1] == "park", "a parked one")
    pin = raw.data_of(fleet.http.post("/pins", json={"app": fleet.app, "setup": {"model": "kept"}}))

    def loaded():
        return raw.data_of(fleet.http.get(f"/pins/{pin['id']}"))["state"] == "loaded"

    try:
        wait_until(loaded, "a pin that is loaded")
        assert fleet.noted("kept") == ["setup", "park", "unpark"]
        assert [each["pinned"] for each in fleet.worker()["residents"] if each["state"] == "idle"] == [True]
    finally:
        fleet.http.delete(f"/pins/{pin['id']}")
    fleet.run("turned")
    why = raw.data_of(fleet.http.get(f"/tasks/{fleet.last['id']}/explanation"))["attempts"][-1]
    assert why["reason"].startswith("comes back from being parked on ")
    assert why["candidates"][0]["parked"]
    assert fleet.noted("turned") == ["setup", "park", "unpark"]


def test_a_parked_process_that_is_killed_is_noticed_and_loaded_anew(fleet):
    victim = fleet.run("victim")["pid"]
    fleet.run("other")
    wait_until(lambda: fleet.noted("victim")[-1] == "park", "a parked victim")
    before = len(fleet.worker()["parked"])
    kill(victim)
    fleet.parked(before - 1)
    fleet.logged("instance.evicted", "the parked process ended by itself")
    assert fleet.run("victim")["pid"] != victim
    assert fleet.noted("victim") == ["setup", "park", "setup"]


def test_a_park_that_raises_ends_the_instance_with_the_reason_in_the_log(fleet):
    stubborn = fleet.run("stubborn", refuses="park")["pid"]
    fleet.run("polite")
    fleet.logged("instance.not_parked", "its park() failed: this model cannot leave")
    assert fleet.run("stubborn", refuses="park")["pid"] != stubborn


def test_an_unpark_that_raises_ends_in_a_load(fleet):
    fleet.run("gone", refuses="unpark")
    fleet.run("polite")
    fleet.run("gone", refuses="unpark")
    fleet.logged("instance.died", "its unpark() failed: this model cannot return")
    assert fleet.noted("gone") == ["setup", "park", "setup"]


def test_what_the_machines_memory_cannot_take_is_ended(fleet):
    fleet.run("large", gib=1.5)
    fleet.run("small")
    fleet.logged("instance.not_parked", "of the machine's memory are needed")
    assert fleet.noted("large") == ["setup"]


def test_the_cuda_driver_parks_an_app_without_hooks(fleet):
    first = fleet.run("driven", app=fleet.plain)
    fleet.run("small")
    wait_until(
        lambda: (fleet.folder / "cuda" / f"{first['pid']}.state").read_text().strip() == "checkpointed",
        "a checkpointed process",
    )
    assert fleet.run("driven", app=fleet.plain) == first
    assert fleet.noted("driven") == ["setup"]


def test_what_the_driver_cannot_restore_is_loaded_anew(fleet):
    first = fleet.run("unlucky", app=fleet.plain)
    fleet.run("small")
    (fleet.folder / "cuda" / "fail").write_text("restore 2\n")
    assert fleet.run("unlucky", app=fleet.plain)["pid"] != first["pid"]
    fleet.logged("instance.died", "the CUDA driver refused (restore): CUDA_ERROR_OUT_OF_MEMORY (2)")
