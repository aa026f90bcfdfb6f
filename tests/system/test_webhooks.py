"""Webhooks on a real Redis, with real receivers that fail, are silent, redirect inside, or check signatures."""

import asyncio
import contextlib
import hashlib
import hmac
import itertools
import re
import shutil
import sys

import httpx
import pytest
from gateways import gateway_settings, running
from helpers import ROOT, environment, eventually
from msgspec import json
from server_groups import free_port

from stoker.core.messages import Needs, Owner, TaskId, TaskRequest, TaskSpec
from stoker.core.states import DeliveryState
from stoker.core.webhooks import Delivery
from stoker.log import get_logger
from stoker.outbound import checked_client
from stoker.pulse import Pulse
from stoker.settings import JobsSettings
from stoker_jobs.webhooks import Deliverer

pytestmark = pytest.mark.long

ANN = Owner(user_id="admin", key_id="k1")
ALL = tuple(DeliveryState)


class Receiver:
    """An HTTP server. `answers`: what it says next, by status; then 200. `silent`: it says nothing at all."""

    def __init__(self):
        self.calls, self.answers = [], []
        self.silent = False
        self.head = ""

    async def serve(self, reader, writer):
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in head[1:-2])}
            body = await reader.readexactly(int(headers["content-length"]))
            self.calls.append((headers, body))
            if self.silent:
                await reader.read()
            else:
                status = self.answers.pop(0) if self.answers else 200
                writer.write(f"HTTP/1.1 {status} X\r\n{self.head}content-length: 2\r\n\r\nno".encode())
                await writer.drain()
        writer.close()


@pytest.fixture
async def receivers():
    """A function that starts a receiver; its `url` leads to it."""
    async with contextlib.AsyncExitStack() as stack:

        async def start():
            receiver = Receiver()
            server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
            stack.callback(server.close)
            receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hook"
            return receiver

        yield start


@pytest.fixture
def settings(tmp_path, store):
    return JobsSettings(
        data_dir=tmp_path,
        redis_url=store.url,
        pool=store.pool,
        webhook_allow=("127.0.0.1",),
        webhook_pause_s=0.01,
        webhook_pause_max_s=0.02,
        webhook_tries=25,
    )


@pytest.fixture
async def delivering(store, settings):
    """A function that delivers with settings until the test is over."""
    async with contextlib.AsyncExitStack() as stack:

        async def start(**changes):
            client = await stack.enter_async_context(checked_client(httpx.Timeout(30)))
            stop = asyncio.Event()
            deliverer = Deliverer(
                store, settings.model_copy(update=changes), client, get_logger("jobs"), lambda: 0.5
            )
            running = asyncio.create_task(deliverer.run(stop, Pulse()))

            async def end():
                stop.set()
                await running

            stack.push_async_callback(end)

        yield start


@pytest.fixture
async def gateway(tmp_path, s3_server, store):
    async with running(gateway_settings("local", tmp_path, s3_server, store, rate_run=0)) as made:
        yield made


_ids = itertools.count()


async def ended(store, url, owner=ANN):
    """A task that was cancelled, and a delivery that tells of it."""
    task_id = TaskId(f"t{next(_ids)}")
    base = {"id": task_id, "version_id": "v", "env_key": "e", "setup_key": "s", "app": "infsh/echo"}
    request = TaskRequest(**base, app_id="a", function="run", input={}, setup={}, webhook=url)
    await store.tasks.submit(request, TaskSpec(**base, needs=Needs()), owner)
    await store.tasks.cancel(task_id)
    made = Delivery(
        id=f"{task_id}-0-webhook", owner_id=owner.user_id, url=url, event="task.cancelled", task_id=task_id
    )
    await store.deliveries.open(made)
    return made


async def state(store, delivery, wanted):
    async def reached():
        view = await store.deliveries.read(delivery.id)
        return view if view.state is wanted else None

    return await eventually(reached, f"{delivery.id} {wanted}")


async def test_a_receiver_that_fails_twenty_times_hears_the_same_under_the_same_id(
    store, receivers, delivering
):
    receiver = await receivers()
    receiver.answers = [500, 503, 404, 429] * 5
    made = await ended(store, receiver.url)
    await delivering()
    view = await state(store, made, DeliveryState.DELIVERED)
    assert (view.tries, view.total) == (21, 21)
    assert len({body for _, body in receiver.calls}) == 1
    assert {headers["x-delivery-id"] for headers, _ in receiver.calls} == {made.id}
    assert {headers["x-webhook-event"] for headers, _ in receiver.calls} == {"task.cancelled"}
    assert all("x-webhook-signature" not in headers for headers, _ in receiver.calls)
    tries = await store.deliveries.tries(made.id)
    assert [each.status for each in tries] == [*[500, 503, 404, 429] * 5, 200]


async def test_receivers_that_are_silent_hold_up_nobody_else(store, receivers, delivering):
    silent, well = await receivers(), await receivers()
    silent.silent = True
    stuck = [await ended(store, silent.url) for _ in range(20)]
    others = [await ended(store, well.url) for _ in range(20)]
    await delivering(webhook_timeout_s=60)
    for each in others:
        await state(store, each, DeliveryState.DELIVERED)
    found, _ = await store.deliveries.page("admin", [DeliveryState.PENDING], limit=100)
    assert {view.about.id for view in found} == {each.id for each in stuck}
    assert 1 <= len(silent.calls) <= 4
    assert all(view.total == 0 for view in found)


async def test_a_silent_receiver_is_tried_again_and_given_up(store, receivers, delivering):
    receiver = await receivers()
    receiver.silent = True
    made = await ended(store, receiver.url)
    await delivering(webhook_timeout_s=0.1, webhook_tries=3)
    view = await state(store, made, DeliveryState.DEAD)
    assert view.total == 3
    assert {each.error for each in await store.deliveries.tries(made.id)} == {"no answer within 0.1 s"}


async def test_a_redirect_inside_is_not_followed(store, receivers, delivering):
    receiver, inside = await receivers(), await receivers()
    receiver.answers = [302] * 3
    receiver.head = f"location: {inside.url}\r\n"
    made = await ended(store, receiver.url)
    await delivering(webhook_tries=3)
    await state(store, made, DeliveryState.DEAD)
    assert len(receiver.calls) == 3
    assert inside.calls == []
    assert all("not followed" in each.error for each in await store.deliveries.tries(made.id))


async def test_a_private_receiver_that_nobody_allowed_is_never_called(store, receivers, delivering):
    receiver = await receivers()
    made = await ended(store, receiver.url)
    await delivering(webhook_allow=())
    await state(store, made, DeliveryState.DEAD)
    assert receiver.calls == []
    [only] = await store.deliveries.tries(made.id)
    assert "not public" in only.error


async def test_a_task_that_is_deleted_meanwhile_is_told_by_its_id(store, receivers, delivering):
    receiver = await receivers()
    made = await ended(store, receiver.url)
    await store.tasks.delete(TaskId(made.task_id))
    await delivering()
    await state(store, made, DeliveryState.DELIVERED)
    [(_, body)] = receiver.calls
    assert json.decode(body) == {"event": "task.gone", "task": {"id": made.task_id}}


async def test_what_a_stopped_process_had_taken_is_delivered_by_the_next(store, receivers, delivering):
    receiver = await receivers()
    made = await ended(store, receiver.url)
    assert await store.deliveries.claim(10, 300)
    await delivering()
    await state(store, made, DeliveryState.DELIVERED)


def signed(secret, headers, body):
    text = headers["x-webhook-timestamp"].encode() + b"." + body
    return "sha256=" + hmac.new(secret.encode(), text, hashlib.sha256).hexdigest()


async def test_deliveries_are_signed_with_the_secret_that_the_gateway_made(
    store, receivers, delivering, gateway, settings
):
    receiver = await receivers()
    first = (await gateway.client.post("/webhooks/secret", json={})).json()["data"]
    await delivering(data_dir=gateway.settings.data_dir)
    await state(store, await ended(store, receiver.url), DeliveryState.DELIVERED)
    [(headers, body)] = receiver.calls
    assert headers["x-webhook-signature"] == signed(first["secret"], headers, body)
    assert "x-webhook-signature-previous" not in headers
    second = (await gateway.client.post("/webhooks/secret", json={"overlap_s": 60})).json()["data"]
    await state(store, await ended(store, receiver.url), DeliveryState.DELIVERED)
    headers, body = receiver.calls[-1]
    assert headers["x-webhook-signature"] == signed(second["secret"], headers, body)
    assert headers["x-webhook-signature-previous"] == signed(first["secret"], headers, body)
    third = (await gateway.client.post("/webhooks/secret", json={"overlap_s": 0})).json()["data"]
    await state(store, await ended(store, receiver.url), DeliveryState.DELIVERED)
    headers, body = receiver.calls[-1]
    assert headers["x-webhook-signature"] == signed(third["secret"], headers, body)
    assert "x-webhook-signature-previous" not in headers
    shown = (await gateway.client.get("/webhooks/secret")).text
    recorded = (await gateway.client.get("/audit")).json()["data"]["items"]
    assert [each["action"] for each in recorded].count("webhook.secret_set") == 3
    for made in (first, second, third):
        assert made["secret"].startswith("whsec_")
        assert made["secret"] not in shown + str(recorded)


async def test_nothing_is_sent_unsigned_when_the_secret_cannot_be_opened(
    store, receivers, delivering, gateway, tmp_path
):
    receiver = await receivers()
    await gateway.client.post("/webhooks/secret", json={})
    await delivering(secrets_key_file=tmp_path / "another", webhook_tries=2)
    made = await ended(store, receiver.url)
    await state(store, made, DeliveryState.DEAD)
    assert receiver.calls == []
    assert "was encrypted with the key" in (await store.deliveries.tries(made.id))[0].error


async def test_a_dead_letter_is_found_shown_and_replayed(store, receivers, delivering, gateway):
    receiver = await receivers()
    receiver.answers = [500, 500]
    dead = await ended(store, f"{receiver.url}/T0SECRET?token=abcdef")
    await delivering(webhook_tries=2)
    await state(store, dead, DeliveryState.DEAD)
    await state(store, await ended(store, receiver.url), DeliveryState.DELIVERED)
    listed = (await gateway.client.get("/webhooks/deliveries", params={"state": "dead"})).json()["data"]
    assert [each["id"] for each in listed["items"]] == [dead.id]
    assert listed["total_items"] == 1
    answer = await gateway.client.get(f"/webhooks/deliveries/{dead.id}")
    shown = answer.json()["data"]
    assert (shown["state"], shown["task_id"], shown["event"]) == ("dead", dead.task_id, "task.cancelled")
    assert [each["status"] for each in shown["tries"]] == [500, 500]
    assert receiver.url.startswith(shown["receiver"])
    assert "T0SECRET" not in answer.text
    assert "abcdef" not in answer.text
    again = await gateway.client.post(f"/webhooks/deliveries/{dead.id}/replay")
    assert again.json()["data"]["state"] == "pending"
    await state(store, dead, DeliveryState.DELIVERED)
    assert [h["x-delivery-id"] for h, _ in receiver.calls].count(dead.id) == 3


async def test_a_replay_during_the_last_try_is_another_one(store, receivers, delivering):
    receiver = await receivers()
    receiver.silent = True
    made = await ended(store, receiver.url)
    await delivering(webhook_timeout_s=1, webhook_tries=1)
    await eventually(lambda: receiver.calls, "the first try")
    await store.deliveries.replay(made)
    receiver.silent = False
    view = await state(store, made, DeliveryState.DELIVERED)
    assert (view.tries, view.total) == (1, 2)


async def test_the_measurements_say_how_long_webhooks_wait(store, gateway):
    async def measured():
        return dict(
            line.split()
            for line in (await gateway.open.get("/metrics")).text.splitlines()
            if "_webhook_" in line and line[0] != "#"
        )

    assert await measured() == {"stoker_webhook_lanes_busy": "0", "stoker_webhook_overdue_seconds": "0.000"}
    await ended(store, "http://a.example/")

    async def waits():
        return float((await measured())["stoker_webhook_overdue_seconds"]) > 0

    await eventually(waits, "a webhook that nobody takes")
    assert await store.deliveries.claim(1, 60_000)
    assert await measured() == {"stoker_webhook_lanes_busy": "1", "stoker_webhook_overdue_seconds": "0.000"}


async def test_a_delivery_of_somebody_else_is_not_there(store, gateway):
    made = await ended(store, "http://a.example/", Owner(user_id="bob", key_id="k2"))
    assert (await gateway.client.get("/webhooks/deliveries")).json()["data"]["items"] == []
    for method, path in (("GET", ""), ("POST", "/replay")):
        answer = await gateway.client.request(method, f"/webhooks/deliveries/{made.id}{path}")
        assert (answer.status_code, answer.json()["detail"]) == (404, "Delivery not found")


async def test_a_replay_without_its_task_is_refused(store, gateway):
    made = await ended(store, "http://a.example/")
    await store.tasks.delete(TaskId(made.task_id))
    answer = await gateway.client.post(f"/webhooks/deliveries/{made.id}/replay")
    assert answer.status_code == 409
    assert "no longer kept" in answer.json()["detail"]


async def test_a_test_call_is_tried_once(store, receivers, delivering, gateway):
    receiver = await receivers()
    receiver.answers = [500]
    await delivering()
    made = (await gateway.client.post("/webhooks/test", json={"url": receiver.url})).json()["data"]
    assert (made["event"], made["task_id"]) == ("webhook.test", None)

    async def over():
        shown = (await gateway.client.get(f"/webhooks/deliveries/{made['id']}")).json()["data"]
        return shown if shown["state"] != "pending" else None

    shown = await eventually(over, "the test call")
    assert (shown["state"], [each["status"] for each in shown["tries"]]) == ("dead", [500])
    assert json.decode(receiver.calls[0][1])["event"] == "webhook.test"
    refused = await gateway.client.post("/webhooks/test", json={"url": "ftp://a.example/"})
    assert refused.status_code == 400


@pytest.mark.parametrize(
    ("path", "named"),
    [
        ("/webhooks/deliveries?state=lost", "pending, delivered, dead"),
        ("/webhooks/deliveries?cursor=x", "cursor"),
    ],
)
async def test_a_list_that_cannot_be_made_says_why(gateway, path, named):
    answer = await gateway.client.get(path)
    assert answer.status_code == 400
    assert named in answer.json()["detail"]


def program(language):
    """The receiver that docs/webhooks.md shows."""
    text = (ROOT / "docs" / "webhooks.md").read_text()
    return re.search(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)[1]


@pytest.mark.parametrize(("language", "command"), [("python", sys.executable), ("javascript", "node")])
async def test_the_receivers_of_the_page_take_what_is_signed_and_nothing_else(
    store, delivering, gateway, language, command, tmp_path
):
    if shutil.which(command) is None:
        pytest.skip("no node here")
    secret = (await gateway.client.post("/webhooks/secret", json={})).json()["data"]["secret"]
    await gateway.client.post("/webhooks/secret", json={})  # the one that the receiver knows still signs
    source = tmp_path / ("receiver.py" if language == "python" else "receiver.js")
    source.write_text(program(language))
    port = free_port()
    env = environment(WEBHOOK_SECRET=secret, PORT=str(port))
    process = await asyncio.create_subprocess_exec(command, source, env=env, stdout=asyncio.subprocess.PIPE)
    try:
        url = f"http://127.0.0.1:{port}/hook"
        await delivering(data_dir=gateway.settings.data_dir, webhook_tries=1000, webhook_pause_max_s=0.1)
        made = await ended(store, url)  # the first tries find nobody there yet
        await state(store, made, DeliveryState.DELIVERED)
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        assert line.decode().split() == ["task.cancelled", made.task_id]
        forged = await ended(store, url, Owner(user_id="bob", key_id="k2"))

        async def refused():
            return await store.deliveries.tries(forged.id)

        [first, *_] = await eventually(refused, "the try that is not signed")
        assert first.status == 401
    finally:
        with contextlib.suppress(ProcessLookupError):  # it said why: perhaps its port was taken meanwhile
            process.terminate()
        await asyncio.wait_for(process.wait(), 60)


async def stoker(gateway, *arguments):
    """Run `stoker webhooks`; status, and what it printed."""
    env = environment(STOKER_DATA_DIR=str(gateway.settings.data_dir))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "stoker_cli", "webhooks", *arguments),
        env=env,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    printed, complained = await asyncio.wait_for(process.communicate(), 120)
    return process.returncode, printed.decode() + complained.decode()


async def test_the_command_line_shows_replays_and_tests(store, receivers, delivering, gateway):
    receiver = await receivers()
    receiver.answers = [500] * 4
    await delivering(webhook_tries=2)
    made = [await ended(store, receiver.url) for _ in range(2)]
    for each in made:
        await state(store, each, DeliveryState.DEAD)
    status, printed = await stoker(gateway, "list", "--state", "dead", "--json")
    assert status == 0
    assert {each["id"] for each in json.decode(printed)} == {each.id for each in made}
    status, printed = await stoker(gateway, "show", made[0].id)
    assert status == 0
    assert "it answered 500" in printed
    status, printed = await stoker(gateway, "replay", "--dead", "--json")
    assert status == 0
    assert set(json.decode(printed)["replayed"]) == {each.id for each in made}
    for each in made:
        await state(store, each, DeliveryState.DELIVERED)
    status, printed = await stoker(gateway, "replay", "none", made[0].id, "--json")
    assert status == 1
    assert json.decode(printed) == {"replayed": [made[0].id], "failed": {"none": "Delivery not found"}}
    assert (await stoker(gateway, "replay"))[0] == 2
    status, printed = await stoker(gateway, "test", receiver.url)
    assert (status, "webhook.test" in printed) == (0, True)
    receiver.answers = [500]
    status, printed = await stoker(gateway, "test", receiver.url)
    assert (status, "it answered 500" in printed) == (1, True)


async def test_the_command_line_shows_a_secret_once(gateway):
    status, printed = await stoker(gateway, "secret")
    assert (status, "not signed" in printed) == (0, True)
    status, printed = await stoker(gateway, "secret", "--new")
    secret = printed.split()[0]
    assert (status, secret.startswith("whsec_")) == (0, True)
    status, printed = await stoker(gateway, "secret")
    assert (status, "signed with the secret" in printed, secret in printed) == (0, True, False)
    assert (await stoker(gateway, "secret", "--new", "--overlap", "soon"))[0] == 2
