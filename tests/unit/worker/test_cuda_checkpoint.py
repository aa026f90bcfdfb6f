"""The CUDA driver's process checkpoint, on a stand-in for its library that is really called."""

import ctypes
import os

import pytest
from cuda_library import built

from stoker.parking_settings import ParkingFields
from stoker_worker import parking_ways
from stoker_worker.cuda_checkpoint import LockArgs
from stoker_worker.parking import Lot
from stoker_worker.parking_ways import CudaDriver, ParkingFailed


@pytest.fixture(scope="module")
def libraries(tmp_path_factory):
    new, old = tmp_path_factory.mktemp("new"), tmp_path_factory.mktemp("old")
    built(new)
    built(old, "-DOLD_DRIVER")
    return {"new": new, "old": old, "none": tmp_path_factory.mktemp("none")}


class Standin:
    """The driver's view of this process, which is what is parked."""

    pid = os.getpid()

    def __init__(self, folder):
        self.folder = folder

    def fail(self, call, code):
        (self.folder / "fail").write_text(f"{call} {code}\n")

    @property
    def state(self):
        path = self.folder / f"{self.pid}.state"
        return path.read_text().strip() if path.exists() else "running"

    @state.setter
    def state(self, state):
        (self.folder / f"{self.pid}.state").write_text(state)


@pytest.fixture
def driver(libraries, tmp_path, monkeypatch):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries["new"]))
    monkeypatch.setenv("CUDA_STANDIN", str(tmp_path))
    return Standin(tmp_path)


def test_the_arguments_of_a_lock_are_64_bytes_and_begin_with_the_time():
    assert ctypes.sizeof(LockArgs) == 64
    assert bytes(LockArgs(timeoutMs=258))[:4] == (258).to_bytes(4, "little")


async def test_a_process_is_locked_and_saved_and_comes_back(driver):
    way = CudaDriver()
    await way.probe()
    assert driver.state == "running"
    await way.park(driver)
    assert driver.state == "checkpointed"
    assert (driver.folder / "timeout").read_text().strip() == str(parking_ways.LOCK_MS)
    await way.unpark(driver)
    assert driver.state == "running"


@pytest.mark.parametrize(
    ("call", "code", "why", "state"),
    [
        ("lock", 801, r"the CUDA driver refused \(lock\): CUDA_ERROR_NOT_SUPPORTED \(801\)", "running"),
        ("checkpoint", 2, r"refused \(checkpoint\): CUDA_ERROR_OUT_OF_MEMORY \(2\)", "running"),
        ("lock", -1, r"the process that asks the driver ended with SIGABRT", "running"),
        ("checkpoint", -1, r"ended with SIGABRT", "locked"),
    ],
)
async def test_what_the_driver_does_not_do_is_told_with_the_step(driver, call, code, why, state):
    driver.fail(call, code)
    with pytest.raises(ParkingFailed, match=why):
        await CudaDriver().park(driver)
    assert driver.state == state


async def test_a_restore_that_fails_is_told_and_leaves_the_process_as_it_is(driver):
    await CudaDriver().park(driver)
    driver.fail("restore", 2)
    with pytest.raises(ParkingFailed, match=r"refused \(restore\): CUDA_ERROR_OUT_OF_MEMORY \(2\)"):
        await CudaDriver().unpark(driver)
    assert driver.state == "checkpointed"


async def test_a_process_that_is_locked_already_is_left_alone(driver):
    driver.state = "locked"
    with pytest.raises(ParkingFailed, match=r"refused \(getstate\): the process is locked"):
        await CudaDriver().park(driver)
    assert driver.state == "locked"


@pytest.mark.parametrize(
    ("library", "why"),
    [
        ("old", "the driver is older than release 570: it has no cuCheckpointProcessLock"),
        ("none", "libcuda.so.1: cannot open shared object file"),
    ],
)
async def test_a_machine_whose_driver_cannot_do_it_parks_by_hooks_alone(
    libraries, driver, monkeypatch, library, why
):
    monkeypatch.setenv("LD_LIBRARY_PATH", str(libraries[library]))
    with pytest.raises(ParkingFailed, match=why):
        await CudaDriver().probe()
    lot = Lot(ParkingFields(parking="auto"))
    await lot.start()
    assert lot.driver is None
    assert lot.way_of(App(parks=False), on_gpu=True) is None
    assert lot.way_of(App(parks=True), on_gpu=True) is lot.hooks


async def test_an_app_with_hooks_parks_itself_and_the_driver_parks_what_is_on_a_gpu(driver):
    lot = Lot(ParkingFields(parking="auto"))
    await lot.start()
    assert lot.way_of(App(parks=True), on_gpu=True) is lot.hooks
    assert lot.way_of(App(parks=False), on_gpu=True) is lot.driver is not None
    assert lot.way_of(App(parks=False), on_gpu=False) is None


async def test_a_library_that_is_none_is_told(driver, monkeypatch):
    broken = driver.folder / "broken"
    broken.mkdir()
    (broken / "libcuda.so.1").write_bytes(b"no library")
    monkeypatch.setenv("LD_LIBRARY_PATH", str(broken))
    with pytest.raises(ParkingFailed, match=r"invalid ELF header|file too short"):
        await CudaDriver().probe()


class App:
    def __init__(self, parks):
        self.parks = parks
