"""The jobs part as a process: endings reach webhooks, expired tasks leave the index."""

import asyncio
import http.server
import json
import os
import queue
import subprocess
import sys
import threading

import pytest
from helpers import environment, eventually, wait_gone
from msgspec import structs
from redis.exceptions import ConnectionError as RedisConnectionError
from rq import Queue

from stoker.core.messages import ApiKey, Needs, Owner, TaskId, TaskRequest, TaskSpec
from stoker.core.states import DeliveryState, TaskState
from stoker.files import open_files
from stoker.files.logs import log_key, one
from stoker.log import get_logger
from stoker.protocol import Store
from stoker.protocol.documents import Change
from stoker.protocol.outbox import Ending
from stoker.pulse import Pulse
from stoker.settings import JobsSettings
from stoker_jobs import relay
from stoker_jobs.queue import Names, connect
from stoker_jobs.relay import hand_on, plan

OWNER = Owner(user_id="u1", key_id="k1")


@pytest.fixture
def receiver():
    """An HTTP server; `answers` are the statuses that it gives, `calls` what it got. It speaks while `well` is set."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            calls.put((self.headers["X-Delivery-Id"], json.loads(body)))
            server.well.wait(60)
            self.send_response(answers.get_nowait() if not answers.empty() else 200)
            self.end_headers()

        def log_message(self, *args):
            pass

    calls, answers = queue.Queue(), queue.Queue()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.calls, server.answers, server.well = calls, answers, threading.Event()
    server.well.set()
    server.url = f"http://127.0.0.1:{server.server_port}/hook"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.well.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def start_jobs(store, redis_server, tmp_path):
    """A function that starts `stoker jobs`, on the pool of `store` unless another one is named."""
    started = []

    def start(pool=store.pool):
        env = environment(
            STOKER_DATA_DIR=str(tmp_path),
            STOKER_REDIS_URL=redis_server.url,
            STOKER_POOL=pool,
            STOKER_SWEEP_S="1",
            STOKER_WEBHOOK_ALLOW="127.0.0.1",
            STOKER_PARENT_PID=str(os.getpid()),
        )
        started.append(subprocess.Popen([sys.executable, "-m", "stoker_cli", "jobs"], env=env))
        return started[-1]

    yield start
    for process in started:
        process.terminate()
        process.wait(30)
        wait_gone({process.pid})


@pytest.fixture
def jobs(start_jobs):
    """A running `stoker jobs` on the pool of `store`."""
    return start_jobs()


async def submit(store, task_id, *, webhook="", retention_s=0.0):
    base = {"id": TaskId(task_id), "version_id": "v", "env_key": "e", "setup_key": "s", "app": "infsh/echo"}
    request = TaskRequest(**base, app_id="a", function="run", input={}, setup={}, webhook=webhook)
    await store.tasks.submit(request, TaskSpec(**base, needs=Needs()), OWNER, retention_s=retention_s)


async def test_an_ending_is_told_to_the_webhook_once_more_after_a_failure(store, receiver, jobs):
    receiver.answers.put(500)
    await submit(store, "t1", webhook=receiver.url)
    assert await store.tasks.cancel(TaskId("t1")) is TaskState.CANCELLED
    first = await asyncio.to_thread(receiver.calls.get, timeout=60)
    second = await asyncio.to_thread(receiver.calls.get, timeout=60)
    assert first == second
    delivery, event = first
    assert event["event"] == "task.cancelled"
    assert (event["task"]["id"], event["task"]["status"]) == ("t1", 12)
    assert delivery == Names(store.pool).ending_job("t1", 0, "webhook")


@pytest.mark.long
async def test_a_webhook_of_killed_jobs_is_delivered_by_the_next_ones(store, receiver, start_jobs):
    receiver.well.clear()
    first = start_jobs()
    await submit(store, "t2", webhook=receiver.url)
    await store.tasks.cancel(TaskId("t2"))
    told = await asyncio.to_thread(receiver.calls.get, timeout=60)
    first.kill()
    first.wait(30)
    receiver.well.set()
    start_jobs()
    assert await asyncio.to_thread(receiver.calls.get, timeout=120) == told

    async def delivered():
        return (await store.deliveries.read(told[0])).state is DeliveryState.DELIVERED

    await eventually(delivered, "the note of the second try")


@pytest.mark.parametrize("with_key", [True, False])
async def test_an_expired_task_leaves_the_index_also_of_one_whose_keys_are_gone(store, jobs, with_key):
    if with_key:
        await store.keys.put(ApiKey(id="k1", name="n", user_id="u1", sha256="0", prefix="inf_"))
    await submit(store, "gone", retention_s=0.05)
    await submit(store, "kept")
    await store.tasks.cancel(TaskId("gone"))

    async def swept():
        return [task_id for _, task_id in (await store.tasks.after("u1", None, 20))[0]] == ["kept"]

    await eventually(swept, "the sweep")


async def test_a_key_that_expired_long_ago_is_forgotten(store, jobs):
    key = ApiKey(id="old", name="n", user_id="u1", sha256="1", prefix="inf_", expires_ms=1)
    await store.keys.put(key)
    await store.keys.put(structs.replace(key, id="good", sha256="2", expires_ms=0))

    async def swept():
        return [kept.id for kept in await store.keys.list()] == ["good"]

    await eventually(swept, "the sweep")
    [recorded], _ = await store.audit.page("", 10)
    assert (recorded.change.action, recorded.change.target) == ("key.expired", "old")


async def test_the_log_of_an_expired_task_is_removed(store, jobs, tmp_path):
    files = open_files(JobsSettings(data_dir=tmp_path, pool=store.pool))
    for task_id, retention_s in (("gone", 0.05), ("kept", 0)):
        await submit(store, task_id, retention_s=retention_s)
        await files.put(log_key(TaskId(task_id), 1, 1), one(b"x"))
        # What `keep` leaves behind for a task, whose attempt no worker of this test ran.
        await store._connection.command("SADD", store._keys.logged, task_id)
        await store._connection.command("HSET", store._keys.task_logs(TaskId(task_id)), "1:1", "[1,1,0,1]")
    await store.tasks.cancel(TaskId("gone"))

    async def swept():
        return [held.key async for held in files.list("logs/")] == [log_key(TaskId("kept"), 1, 1)]

    await eventually(swept, "the sweep")
    await eventually(lambda: _forgotten(store), "the end of what Redis knows of it")


async def _forgotten(store):
    return await store.logs.chunks(TaskId("gone")) == []


async def workers_heard(store):
    """Wait until all RQ workers of the pool have been heard."""

    async def heard():
        loops = {loop for told in await store.pulses.told() for loop in told.silent_s}
        return {"rq", "steps", "steps-2"} <= loops

    await eventually(heard, "RQ's workers")


async def test_several_workers_take_steps(store, start_jobs):
    start_jobs()
    await workers_heard(store)


@pytest.mark.long
async def test_the_workers_of_another_pool_take_no_job_of_ours(store, redis_server, receiver, start_jobs):
    """One that did found no such task in its own pool, and the webhook was lost."""
    other = await Store.open(redis_server.url, f"{store.pool}-other")
    start_jobs(other.pool)
    await workers_heard(other)
    await other.close()
    start_jobs()
    ids = [f"t{n}" for n in range(4)]
    for task_id in ids:
        await submit(store, task_id, webhook=receiver.url)
        await store.tasks.cancel(TaskId(task_id))
    told = [await asyncio.to_thread(receiver.calls.get, timeout=30) for _ in ids]
    assert sorted(event["task"]["id"] for _, event in told) == ids


async def test_what_could_not_be_handed_on_is_handed_on_when_redis_is_back(store, redis_server, monkeypatch):
    """An ending, and a document that was found due: each would else come again after a minute."""
    settings = JobsSettings(redis_url=redis_server.url, pool=store.pool)
    due, nudged = ("flowrun", "r1"), ("flowrun", "r2")
    handed, refuse = set(), {due, nudged}

    def once_away(_queue, planned):
        documents = {document for job in planned for document in job.arguments}
        if refused := documents & refuse:
            refuse.difference_update(refused)
            raise RedisConnectionError("away")
        handed.update(documents)

    monkeypatch.setattr(relay, "hand_on", once_away)
    change = Change(body=b"{}", parts={}, due_s=0.0, wake=False, keep_s=0)
    await store.documents.put("flowrun", "r1", OWNER.user_id, 0, change)
    await store.documents.put(
        "flowrun", "r2", OWNER.user_id, 0, structs.replace(change, due_s=None, wake=True)
    )
    stop, log = asyncio.Event(), get_logger("jobs")
    one = relay.Relay(settings, log, Pulse(relay.OUTBOX))
    one.look_at_all = False
    running = asyncio.create_task(one.run(stop))
    try:
        await eventually(lambda: handed == {due, nudged}, "both documents")
    finally:
        stop.set()
        await running


def test_a_repeated_ending_makes_no_second_job(redis_server):
    ending = Ending(
        entry_id="1-0", task_id=TaskId("repeat"), attempt=1, state=TaskState.COMPLETED, notify="http://x/"
    )
    jobs_queue = Queue("repeat-test", connection=connect(redis_server.url))
    try:
        for _ in range(2):
            hand_on(jobs_queue, plan([ending], Names("default"), workers=2))
        assert jobs_queue.count == 1
    finally:
        jobs_queue.delete(delete_jobs=True)
