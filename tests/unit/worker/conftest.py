"""What the worker's unit tests share: the NVML stand-in, and factories for orders."""

import asyncio
import ctypes

import pynvml
import pytest
from nvml_library import built


@pytest.fixture(scope="session")
def old_driver(tmp_path_factory):
    """The folder of a stand-in without younger functions; for LD_LIBRARY_PATH of another process."""
    folder = tmp_path_factory.mktemp("old")
    built(folder, "-DOLD_DRIVER")
    return folder


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory):
    """The stand-in, built and loaded: the bindings then find it by its soname."""
    library = built(tmp_path_factory.mktemp("nvml"))
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)
    return library


class Devices:
    """The devices that the stand-in shows; each call rewrites all of them."""

    def __init__(self, path):
        self.path = path
        self.show()

    def show(self, *devices, first=""):
        rows = [first, *devices] if first else devices
        self.path.write_text("".join(f"{row}\n" for row in rows))


@pytest.fixture
def devices(nvml_library, tmp_path, monkeypatch):
    monkeypatch.setenv("NVML_STANDIN", str(tmp_path / "devices"))
    yield Devices(tmp_path / "devices")
    while pynvml._nvmlLib_refcount:
        pynvml.nvmlShutdown()


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch):
    """Back-off pauses and log batching take no time in unit tests."""
    monkeypatch.setattr("stoker_worker.backoff.Backoff.wait", lambda self: asyncio.sleep(0))
    monkeypatch.setattr("stoker_worker.logs.BATCH_S", 0)
