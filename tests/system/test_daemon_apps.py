"""The daemon as a process, with real apps in real environments; the test plays gateway and scheduler."""

import asyncio
import os
import signal
import subprocess
import sys
import textwrap

import pytest
from helpers import alive, environment, family
from recorders import order

from stoker import manifest
from stoker.core.errors import NotFound
from stoker.core.messages import Needs, Owner, TaskSpec
from stoker.core.states import TERMINAL
from stoker.core.states import TaskState as S
from stoker.protocol import AssignOrder
from stoker_worker.environment import Environments
from stoker_worker.main import find_uv
from stoker_worker.versions import Versions

pytestmark = pytest.mark.timeout(240)
"""The first test installs what all need."""

ENGINE = "box"
PATIENCE_S = 30

APPS = {
    "good": """
        async def run(self, data: In) -> Out:
            print("hello", data.text)
            return Out(text=data.text.upper())
        """,
    "exits": """
        async def run(self, data: In) -> Out:
            print("last words", flush=True)
            os._exit(3)
        """,
    "bad_setup": """
        async def setup(self):
            raise RuntimeError("the weights are missing")

        async def run(self, data: In) -> Out: ...
        """,
    "raises": """
        async def run(self, data: In) -> Out:
            raise ValueError("too dark")
        """,
    "floods": """
        async def run(self, data: In) -> Out:
            for number in range(100_000):
                print("x" * 100, number)
            return Out(text="done")
        """,
    "binary": """
        async def run(self, data: In) -> Out:
            os.write(1, bytes(range(256)) * 20)
            return Out(text="done")
        """,
    "deaf": """
        async def run(self, data: In) -> Out:
            print("working", flush=True)
            time.sleep(600)
        """,
    "polite": """
        async def on_cancel(self):
            self.stop.set()
            return True

        async def run(self, data: In) -> Out:
            self.stop = asyncio.Event()
            print("working", flush=True)
            await self.stop.wait()
            return Out(text="partly")
        """,
    "forks": """
        async def run(self, data: In) -> Out:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            print("working", child.pid, flush=True)
            time.sleep(600)
        """,
    "mended": """
        async def run(self, data: In) -> Out:
            print("working", flush=True)
            time.sleep(600)  # until a test gives it other code
        """,
    "no_file": """
        async def run(self, data: In) -> FileOut:
            return FileOut(image=File(path="/nowhere/at all.png"))
        """,
}
HEAD = """
import asyncio, os, subprocess, sys, time
from inferencesh import BaseApp, BaseAppInput, BaseAppOutput, File

class In(BaseAppInput):
    text: str = ""

class Out(BaseAppOutput):
    text: str

class FileOut(BaseAppOutput):
    image: File

class App(BaseApp):
"""


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A cache with all apps unpacked, under their names, and their one environment built."""
    path = tmp_path_factory.mktemp("cache")
    for name, body in APPS.items():
        folder = path / "versions" / name
        folder.mkdir(parents=True)
        (folder / "inf.yml").write_text(f"name: {name}\nkernel: python-3.11\n")
        (folder / "inference.py").write_text(HEAD + textwrap.indent(textwrap.dedent(body), "    "))
        Versions(path / "versions").shelf.adopt(name)
    lines = []
    environments = Environments(path, find_uv())
    ensuring = environments.ensure(folder, manifest.load(folder), lambda _kind, text: lines.append(text))
    asyncio.run(ensuring).close()
    return path


class Box:
    """A daemon process on a pool of its own."""

    def __init__(self, store, data_dir, cache):
        self.store = store
        self.data_dir = data_dir
        self.cache = cache
        self.epoch = 0
        self.process = None
        self.seen = set()
        self.registered_ms = 0

    async def start(self, **settings):
        self.process = subprocess.Popen(  # noqa: ASYNC220 - a start is quick
            [sys.executable, "-m", "stoker_cli", "worker"],
            env=environment(
                STOKER_DATA_DIR=str(self.data_dir),
                STOKER_CACHE_DIR=str(self.cache),
                STOKER_REDIS_URL=self.store.url,
                STOKER_POOL=self.store.pool,
                STOKER_NAME=ENGINE,
                STOKER_LEASE_S="3",
                STOKER_PARENT_PID=str(os.getpid()),
                **settings,
            ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=(self.data_dir / "worker.log").open("a"),
        )
        self.epoch = await self.store.scheduling.lead("me", 300, self.epoch or None)
        await self.registered()

    async def registered(self):
        """Wait until the engine has registered anew."""
        before = self.registered_ms

        async def is_new():
            try:
                self.registered_ms = (await self.store.engines.get(ENGINE)).registered_ms
            except NotFound:
                return False
            return self.registered_ms > before

        await self.until(is_new)

    async def draining(self):
        """Wait until the engine says that it drains."""

        async def is_draining():
            return (await self.store.engines.get(ENGINE)).status == "draining"

        await self.until(is_draining)

    async def until(self, condition):
        async with asyncio.timeout(PATIENCE_S):
            while not await condition():  # noqa: ASYNC110 - what is waited for is in other processes
                await asyncio.sleep(0.01)

    async def submit(self, app, task_id=None, worker=0, **changes):
        """Queue a task for an app and give it to a worker."""
        task_id = task_id or f"{app}-{len(self.seen)}"
        self.seen.add(task_id)
        request = order(task_id, version_id=app, setup_key=app, app=f"test/{app}", **changes).task
        spec = TaskSpec(
            id=task_id,
            setup_key=request.setup_key,
            version_id=app,
            env_key="e",
            app=request.app,
            needs=Needs(),
        )
        await self.store.tasks.submit(request, spec, Owner(user_id="u", key_id="k"))
        await self.assign(task_id, worker)
        return task_id

    async def assign(self, task_id, worker=0):
        wanted = AssignOrder(task_id=task_id, engine_id=ENGINE, worker_id=f"{ENGINE}-cpu-{worker}")
        (result,) = await self.store.scheduling.assign_many(self.epoch, [wanted])
        assert result.refusal == ""

    async def run(self, app, **changes):
        """A task from its start to its end."""
        return await self.ended(await self.submit(app, **changes))

    async def ended(self, task_id):
        async def is_ended():
            return (await self.store.tasks.read(task_id, with_logs=False)).state in TERMINAL

        await self.until(is_ended)
        return await self.store.tasks.read(task_id)

    async def printed(self, task_id, text="working"):
        """Wait for a line of a task; the line."""
        found = []

        async def is_there():
            found[:] = [
                line.text for line in (await self.store.tasks.read(task_id)).logs if text in line.text
            ]
            return bool(found)

        await self.until(is_there)
        return found[0]

    def children(self):
        return family(self.process.pid) - {self.process.pid}


@pytest.fixture
async def box(store, tmp_path, cache):
    made = Box(store, tmp_path, cache)
    try:
        await made.start()
        yield made
    finally:
        pids = family(made.process.pid)
        made.process.kill()  # nothing if it has ended
        made.process.wait(PATIENCE_S)
    await gone(pids)


async def gone(pids):
    """Wait until none of these processes is left."""
    async with asyncio.timeout(PATIENCE_S):
        while any(alive(pid) for pid in pids):  # noqa: ASYNC110 - it is in other processes
            await asyncio.sleep(0.01)


def texts(view):
    return [line.text for line in view.logs]


async def test_an_app_answers_and_its_second_task_is_warm(box):
    cold = await box.run("good", input={"text": "hi"})
    assert (cold.state, bytes(cold.output)) == (S.COMPLETED, b'{"text":"HI"}')
    assert "hello hi" in texts(cold)
    warm = await box.run("good", input={"text": "again"})
    assert [state for attempt, state, _ in warm.history if attempt] == [S.SCHEDULED, S.RUNNING, S.COMPLETED]


@pytest.mark.parametrize(
    ("app", "code", "error"),
    [
        ("raises", "app_failed", "too dark"),
        ("bad_setup", "setup_failed", "the weights are missing"),
        ("exits", "app_crashed", "The app's process ended with exit code 3."),
        ("no_file", "output_file_missing", "The output field 'image' names '/nowhere/at all.png'"),
    ],
)
async def test_a_failing_app_fails_its_task_and_the_worker_goes_on(box, app, code, error):
    view = await box.run(app)
    assert (view.state, view.error_code) == (S.FAILED, code)
    assert view.error.startswith(error)
    assert (await box.run("good")).state is S.COMPLETED


async def test_what_an_app_printed_before_it_died_is_in_the_log(box):
    assert "last words" in texts(await box.run("exits"))


async def test_wrong_input_names_the_field_and_keeps_the_instance(box):
    await box.run("good")
    view = await box.run("good", input={"text": {"no": "text"}})
    assert (view.state, view.error_code) == (S.FAILED, "invalid_input")
    assert "text" in view.error
    assert len(box.children()) == 1


async def test_a_flood_of_lines_is_cut_counted_and_does_not_hurt(box):
    view = await box.run("floods")
    assert view.state is S.COMPLETED
    assert view.log_dropped > 0
    assert any("lines are missing here" in text for text in texts(view))
    assert len(texts(view)) + view.log_dropped <= 100_100


async def test_binary_output_is_a_log_like_any_other(box):
    view = await box.run("binary")
    assert view.state is S.COMPLETED
    assert any("ABC" in text for text in texts(view))


async def test_a_run_that_takes_too_long_ends_with_the_limit_in_its_text(box):
    view = await box.run("deaf", run_timeout_s=0.5)
    assert (view.state, view.error_code) == (S.FAILED, "run_timeout")
    assert "0.5 s" in view.error
    assert (await box.run("good")).state is S.COMPLETED


async def test_an_app_that_obeys_a_cancel_stays_warm(box):
    task_id = await box.submit("polite")
    await box.printed(task_id)
    (child,) = box.children()
    await box.store.tasks.cancel(task_id)
    assert (await box.ended(task_id)).state is S.CANCELLED
    assert box.children() == {child}


async def test_an_app_that_is_deaf_to_a_cancel_is_killed_with_all_it_started(box):
    task_id = await box.submit("forks")
    await box.printed(task_id)
    pids = box.children()
    assert len(pids) == 2
    await box.store.tasks.cancel(task_id, force=True)
    assert (await box.ended(task_id)).state is S.CANCELLED
    await gone(pids)
    assert (await box.run("good")).state is S.COMPLETED


async def test_killing_the_daemon_leaves_no_process_and_its_task_can_run_again(box):
    task_id = await box.submit("mended")
    await box.printed(task_id)
    pids = box.children()
    box.process.kill()
    box.process.wait()
    await gone(pids)
    (box.cache / "versions" / "mended" / "inference.py").write_text(
        (box.cache / "versions" / "good" / "inference.py").read_text()
    )
    await box.start()
    assert await box.store.scheduling.requeue(box.epoch, task_id, ENGINE, 1, "killed") is S.QUEUED
    await box.assign(task_id)
    view = await box.ended(task_id)
    assert (view.state, view.attempt) == (S.COMPLETED, 2)


async def test_a_second_signal_means_now(box):
    task_id = await box.submit("deaf")
    await box.printed(task_id)
    pids = family(box.process.pid)
    box.process.send_signal(signal.SIGTERM)
    await box.draining()
    box.process.send_signal(signal.SIGTERM)
    await gone(pids)
    assert (await box.store.engines.get(ENGINE)).status == "stopped"


async def test_a_signal_lets_the_task_finish_first(box):
    task_id = await box.submit("polite")
    await box.printed(task_id)
    pids = family(box.process.pid)
    box.process.send_signal(signal.SIGTERM)
    await box.draining()
    assert (await box.store.tasks.read(task_id)).state is S.RUNNING
    await box.store.tasks.cancel(task_id)
    assert (await box.ended(task_id)).state is S.CANCELLED
    await gone(pids)
    assert box.process.wait(PATIENCE_S) == 0


async def test_a_second_daemon_of_the_same_directory_does_not_start(box):
    await box.run("good")
    second = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "stoker_cli", "worker"],
        env=environment(
            STOKER_DATA_DIR=str(box.data_dir),
            STOKER_REDIS_URL=box.store.url,
            STOKER_POOL=box.store.pool,
            STOKER_NAME=ENGINE,
        ),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert second.returncode != 0
    assert "is in use by another running copy" in second.stderr + second.stdout
    assert (await box.run("good")).state is S.COMPLETED


async def test_a_daemon_that_is_stopped_too_long_drops_what_was_taken_from_it(box):
    task_id = await box.submit("polite")
    await box.printed(task_id)
    (child,) = box.children()
    os.kill(box.process.pid, signal.SIGSTOP)

    async def is_over():
        return await box.store.scheduling.expired() == [ENGINE]

    await box.until(is_over)
    assert await box.store.scheduling.reap(box.epoch, ENGINE)
    assert await box.store.scheduling.requeue(box.epoch, task_id, ENGINE, 1, "silent") is S.QUEUED
    os.kill(box.process.pid, signal.SIGCONT)
    await gone({child})
    await box.registered()
    assert (await box.store.tasks.read(task_id)).state is S.QUEUED
    assert (await box.run("good", worker=1)).state is S.COMPLETED
