"""Files of gigabytes through the whole system: no part of it may hold them in memory."""

import hashlib
import os
import subprocess
import sys
import threading

import httpx
import psutil
import pytest
from clients import raw
from helpers import POLL_S, TEST_APPS, kill, running_system, size_of, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

MIB = 1024 * 1024
ALLOWED_BYTES = 64 * MIB
SIZES = {"local": 2048 * MIB, "s3": 256 * MIB}
"""moto reads a whole file for each range that is asked of it, so 2 GiB would be 512 times 2 GiB."""


class Growth:
    """The most resident memory that some processes gained while the block ran, in bytes."""

    def __init__(self, pids):
        self._processes = {name: psutil.Process(pid) for name, pid in pids.items()}
        self._ended = threading.Event()

    def __enter__(self):
        self._base = {name: process.memory_info().rss for name, process in self._processes.items()}
        self.most = dict.fromkeys(self._base, 0)
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self):
        while not self._ended.wait(POLL_S):
            for name, process in self._processes.items():
                grown = process.memory_info().rss - self._base[name]
                self.most[name] = max(self.most[name], grown)

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()


@pytest.fixture
def s3_process():
    """An S3 server in a process of its own: its memory is not ours to count."""
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"MOTO_S3_DEFAULT_KEY_BUFFER_SIZE": "1024"},
    )
    for line in process.stderr:
        if "Running on" in line:
            url = line.split()[-1]
            break
    threading.Thread(target=lambda: [None for _ in process.stderr], daemon=True).start()
    assert httpx.put(f"{url}/large", trust_env=False).is_success
    yield {
        "STOKER_FILES_URL": "s3://large/files",
        "STOKER_FILES_ENDPOINT": url,
        "STOKER_FILES_ACCESS_KEY": "k",
        "STOKER_FILES_SECRET_KEY": "s",
    }
    process.kill()
    process.wait()


@pytest.fixture(params=["local", "s3"])
def place(request, tmp_path):
    """A running system over each kind of store, and the size of its large file."""
    env = request.getfixturevalue("s3_process") if request.param == "s3" else {}
    with running_system(tmp_path / "data", "--workers", "1", **env) as system:
        yield system, SIZES[request.param]


def watched(system):
    return {name: system.pids[name] for name in ("gateway", "worker")}


def download(uri):
    """Read a file to its end; its hash."""
    digest = hashlib.sha256()
    with httpx.stream("GET", uri, trust_env=False, timeout=120) as answer:
        assert answer.status_code == 200
        for chunk in answer.iter_raw():
            digest.update(chunk)
    return digest.hexdigest()


def write_blocks(path, size):
    """A file of which no two blocks are equal; its hash."""
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(size // MIB):
            block = number.to_bytes(8, "big") * (MIB // 8)
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def test_a_large_result_grows_neither_gateway_nor_daemon(place):
    system, size = place
    app = system.deploy(TEST_APPS / "outputs")
    with raw.client(system, raw.SDK_NAMED) as http:

        def run(wanted):
            given = {"do": "large", "size": wanted}
            made = raw.run(http, {"app": app, "infra": "private", "input": given})
            return raw.wait_end(system, made["id"], timeout_s=900)["output"]

        download(run(MIB)["film"]["uri"])  # what is loaded at the first use does not count
        with Growth(watched(system)) as growth:
            output = run(size)
            assert download(output["film"]["uri"]) == output["sha256"]
    print(f"\n{size // MIB} MiB out: grown by", {n: f"{b / MIB:.1f} MiB" for n, b in growth.most.items()})
    assert output["film"]["size"] == size
    assert all(grown < ALLOWED_BYTES for grown in growth.most.values()), growth.most


def test_a_large_input_grows_neither_gateway_nor_daemon(place, tmp_path):
    system, size = place
    path = tmp_path / "large.bin"
    app = system.deploy(TEST_APPS / "reader")

    def upload(http, wanted):
        digest = write_blocks(path, wanted)
        entry = {"filename": "large.bin", "size": wanted, "content_type": "application/octet-stream"}
        [made] = http.post("/files", json={"files": [entry]}).json()["data"]
        with path.open("rb") as file:
            body = iter(lambda: file.read(min(MIB, wanted - file.tell())), b"")
            headers = {"content-length": str(wanted), "content-type": "application/octet-stream"}
            answer = httpx.put(
                made["upload_url"], content=body, headers=headers, trust_env=False, timeout=600
            )
        assert answer.is_success, answer.text
        return made["uri"], digest

    def read(http, uri):
        made = raw.run(http, {"app": app, "infra": "private", "input": {"image": uri}})
        return raw.wait_end(system, made["id"], timeout_s=900)["output"]["image"]["sha256"]

    with raw.client(system, raw.SDK_NAMED) as http:
        uri, digest = upload(http, MIB)
        assert read(http, uri) == digest  # what is loaded at the first use does not count
        with Growth(watched(system)) as growth:
            uri, digest = upload(http, size)
            assert download(uri) == digest
            assert read(http, uri) == digest
    print(f"\n{size // MIB} MiB in: grown by", {n: f"{b / MIB:.1f} MiB" for n, b in growth.most.items()})
    assert all(grown < ALLOWED_BYTES for grown in growth.most.values()), growth.most


def test_a_gateway_that_is_killed_while_a_result_comes_leaves_no_part_and_loses_none(place):
    """The worker goes on at the new gateway from what the spool has."""
    system, size = place
    app = system.deploy(TEST_APPS / "outputs")
    spool = system.data_dir / "files" / "uploads"
    with raw.client(system, raw.SDK_NAMED) as http:
        made = raw.run(http, {"app": app, "infra": "private", "input": {"do": "large", "size": size}})
        gateway = system.pids["gateway"]
        wait_until(lambda: any(size_of(path) > 20 * MIB for path in spool.iterdir()), "a part", timeout_s=120)
        kill(gateway)
        wait_until(lambda: system.pids["gateway"] != gateway, "a new gateway")
    ended = raw.wait_end(system, made["id"], timeout_s=900)
    assert ended["error"] in {"", None}
    assert download(ended["output"]["film"]["uri"]) == ended["output"]["sha256"]
    assert list(spool.iterdir()) == []
