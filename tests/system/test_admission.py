"""What a gateway accepts: a repeated run once, no more than may wait, and readers that do not read."""

import asyncio
import json
import socket

import httpx
import pytest
from app_bundles import FUNCTIONS, app_bundle, data_of
from gateways import gateway_settings, running
from helpers import PATIENCE_S
from protocol_scene import DONE, Scene

from stoker.core.states import TaskState
from stoker_gateway import streams

MIB = 1024 * 1024
RUN = {"app": "made/echo", "infra": "private", "input": {"text": "once"}}
KEY = {"Idempotency-Key": "order 17"}


@pytest.fixture
def make_gateway(tmp_path, s3_server, store):
    """A function that runs a gateway with given settings, with an app to run."""

    def make(**settings):
        return running(gateway_settings("local", tmp_path, s3_server, store, rate_run=0, **settings))

    return make


async def add_app(gateway):
    made = await gateway.upload(app_bundle(), "application/gzip", filename="app.tar.gz", category="app")
    version = {"bundle_file_id": made["id"], "functions": FUNCTIONS}
    body = {"namespace": "made", "name": "echo", "version": version}
    return data_of((await gateway.client.post("/apps", json=body)).raise_for_status())


async def run(gateway, path="/apps/run", headers=None, **changes):
    return await gateway.client.post(path, json=RUN | changes, headers=headers)


async def test_a_repeated_run_is_the_first_task(make_gateway, store):
    async with make_gateway() as gateway:
        app = await add_app(gateway)
        answers = await asyncio.gather(
            *(run(gateway, path, headers=KEY) for path in ("/apps/run", "/run") * 5)
        )
        assert [answer.status_code for answer in answers] == [200] * 10
        [task_id] = {data_of(answer)["id"] for answer in answers}
        assert await store.scheduling.pending_count() == 1

        # The answer was lost, and the app has a new version meanwhile, or none at all.
        await gateway.client.post(
            f"/apps/{app['id']}/versions",
            json={
                "bundle_file_id": (await gateway.upload(app_bundle("# new\n"), filename="b", category="app"))[
                    "id"
                ],
                "functions": FUNCTIONS,
            },
        )
        assert data_of(await run(gateway, headers=KEY))["id"] == task_id
        (await gateway.client.delete(f"/apps/{app['id']}")).raise_for_status()
        assert data_of(await run(gateway, headers=KEY))["id"] == task_id
        assert (await run(gateway)).status_code == 404

        await store.tasks.cancel(task_id)
        await store.tasks.delete(task_id)
        gone = await run(gateway, headers=KEY)
        assert (gone.status_code, gone.json()["error"]["code"]) == (409, "conflict")
        assert "Use a new key" in gone.json()["detail"]


async def test_a_key_holds_for_one_body_and_one_owner(make_gateway, store):
    async with make_gateway() as gateway:
        await add_app(gateway)
        first = data_of(await run(gateway, headers=KEY))["id"]
        for changes in ({"input": {"text": "twice"}}, {"priority": 1}, {"webhook": "http://a.example/"}):
            other = await run(gateway, headers=KEY, **changes)
            assert other.status_code == 409
            assert "'order 17' was used with another request" in other.json()["detail"]
        assert data_of(await run(gateway, headers={"Idempotency-Key": "order 18"}))["id"] != first
        assert data_of(await run(gateway))["id"] != first
        long = await run(gateway, headers={"Idempotency-Key": "x" * 256})
        assert (long.status_code, "256 characters" in long.json()["detail"]) == (400, True)
        reordered = dict(reversed(RUN.items()))
        again = await gateway.client.post("/apps/run", json=reordered, headers=KEY)
        assert data_of(again)["id"] == first


async def test_a_full_queue_says_when_to_come_back(make_gateway, store):
    async with make_gateway(max_queued=3, max_queued_per_key=2) as gateway:
        await add_app(gateway)
        first = data_of(await run(gateway, headers=KEY))["id"]
        await run(gateway)
        own = await run(gateway)
        assert (own.status_code, own.json()["error"]["code"]) == (429, "key_queue_full")
        assert int(own.headers["retry-after"]) > 0
        assert "2 tasks of this API key wait, and 2 may" in own.json()["detail"]
        assert data_of(await run(gateway, headers=KEY))["id"] == first

        made = (await gateway.client.post("/apikeys", json={"name": "other"})).json()["data"]
        other = {"Authorization": f"Bearer {made['key']}"}
        assert (await run(gateway, headers=other)).status_code == 200
        whole = await run(gateway, headers=other)
        assert (whole.status_code, whole.json()["error"]["code"]) == (503, "queue_full")
        assert int(whole.headers["retry-after"]) > 0
        assert "3 tasks wait, and 3 may" in whole.json()["detail"]

        await gateway.client.post(f"/tasks/{first}/cancel")
        assert (await run(gateway, headers=other)).status_code == 200


async def test_a_gateway_that_ends_breaks_its_streams_off_at_once(make_gateway, store, caplog):
    """Neither does it wait for the end of tasks, nor does a reader take the break for an end."""
    scene = Scene(store)
    await scene.set_up()
    async with make_gateway() as gateway:
        await add_app(gateway)
        task_id = data_of(await run(gateway))["id"]
        await _run_by_hand(scene, task_id)
        headers = {"Accept": "application/x-ndjson"}
        async with gateway.client.stream("GET", f"/tasks/{task_id}/stream", headers=headers) as reading:
            lines = reading.aiter_lines()
            assert json.loads(await anext(lines))["id"] == task_id
            gateway.stop.set()
            with pytest.raises(httpx.RemoteProtocolError):
                async for _ in lines:
                    pass
        await asyncio.wait_for(gateway.serving, PATIENCE_S)
    assert "graceful shutdown exceeded" not in caplog.text
    assert "Exception in ASGI" not in caplog.text


UPDATES = 150
UPDATE_BYTES = 90_000
"""As large as an event of a stream may be, nearly."""
BOUND_BYTES = 6 * MIB
"""What the kernel keeps of a connection (tcp_wmem: 4 MiB as a rule), and some events; not all of them."""


async def test_a_reader_that_does_not_read_costs_a_bounded_amount(make_gateway, store, monkeypatch):
    assert UPDATES * UPDATE_BYTES > 2 * BOUND_BYTES
    monkeypatch.setattr(streams, "MIN_GAP_S", 0)
    scene = Scene(store)
    await scene.set_up()
    async with make_gateway() as gateway:
        await add_app(gateway)
        task_id = data_of(await run(gateway))["id"]
        order = await _run_by_hand(scene, task_id)
        deaf = await _open_stream(gateway, task_id)
        async with gateway.client.stream(
            "GET", f"/tasks/{task_id}/stream", headers={"Accept": "application/x-ndjson"}
        ) as watching:
            lines = watching.aiter_lines()
            for number in range(UPDATES):
                partial = json.dumps({"number": number, "text": "x" * UPDATE_BYTES}).encode()
                await store.engines.append(task_id, order.attempt, order.token, partial=partial)
                await _until_number(lines, number)
            await store.engines.finish(order, "box", DONE)
            async for _ in lines:
                pass
        received = await asyncio.wait_for(asyncio.to_thread(_read_all, deaf), PATIENCE_S)
    assert b'"ok":1' in received[-4096:]  # it was told the end, once it read
    assert len(received) < BOUND_BYTES


async def _run_by_hand(scene, task_id):
    """Have the engine of the scene run a task, and return what it was given."""
    await scene.assign(task_id)
    _, found = await scene.store.engines.inbox("box", "0", 1)
    entry, order = next((e, m) for e, m in found if getattr(m, "task", None) and m.task.id == task_id)
    await scene.store.engines.accept(order, "box", entry, TaskState.RUNNING)
    return order


async def _open_stream(gateway, task_id):
    """A connection that asked for a stream, and whose receive buffer is small."""
    parts = httpx.URL(gateway.url)
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
    await asyncio.to_thread(made.connect, (parts.host, parts.port))
    key = gateway.client.headers["authorization"]
    made.sendall(
        f"GET /tasks/{task_id}/stream HTTP/1.1\r\nhost: gateway\r\nauthorization: {key}\r\n"
        "accept: application/x-ndjson\r\nconnection: close\r\n\r\n".encode()
    )
    return made


async def _until_number(lines, number):
    async with asyncio.timeout(PATIENCE_S):
        async for line in lines:
            task = json.loads(line)
            output = task.get("data", task).get("output") or {}
            if output.get("number") == number:
                return


def _read_all(connection):
    connection.settimeout(PATIENCE_S)
    received = bytearray()
    while data := connection.recv(MIB):
        received += data
    connection.close()
    return bytes(received)
