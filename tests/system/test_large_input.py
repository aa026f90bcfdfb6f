"""A file of 2 GB passes through the daemon's process without staying in its memory."""

import tempfile
from pathlib import Path

import psutil
import pytest
from file_server import FileServer
from recorders import order

from stoker.core.addresses import AllowList
from stoker_worker.fetch import Fetcher
from stoker_worker.fetch_policy import FetchPolicy
from stoker_worker.input_cache import InputCache
from stoker_worker.inputs import Inputs

SIZE = 2 * 1024**3
MAY_GROW = 64 * 1024**2


@pytest.fixture
def folder():
    """Not kept after the test, as pytest's own are."""
    with tempfile.TemporaryDirectory(prefix="stoker-large-") as made:
        yield Path(made)


def forget_peak_rss():
    """So that the peak is this test's own, whatever ran in the process before (proc_pid_clear_refs(5))."""
    Path("/proc/self/clear_refs").write_text("5")


def peak_rss():
    """Bytes, since it was forgotten."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("cache_bytes", [5 * SIZE, 0], ids=["kept", "not kept"])
async def test_a_file_of_2_gb_leaves_the_process_small(folder, cache_bytes):
    sparse = folder / "sparse.bin"
    with sparse.open("wb") as file:
        file.truncate(SIZE)
    async with FileServer() as server:
        url = server.put_file("/large.bin", sparse)
        policy = FetchPolicy(AllowList.parse(["127.0.0.1"]), list)
        fetcher = Fetcher(policy, max_bytes=SIZE)
        inputs = Inputs(fetcher, InputCache(folder / "cache", cache_bytes), folder / "runs", timeout_s=600)
        inputs.open()
        task = order(input={"a": url}, input_files=("/a",))
        forget_peak_rss()
        before = psutil.Process().memory_info().rss
        given = await inputs.fetch(task, print)
        peak = peak_rss()
        assert given["a"]["size"] == SIZE
        assert peak - before < MAY_GROW
        print(f"grew by {(peak - before) / 1024**2:.1f} MiB")
        await inputs.discard(task)
        await inputs.close()
