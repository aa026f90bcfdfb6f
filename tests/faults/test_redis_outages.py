"""What is done to Redis while one task waits, one runs and one comes to its end. The expected end is written first.

| fault | the server | what the parts see |
|---|---|---|
| restart | SIGTERM, started again | nobody listens |
| kill | SIGKILL, started again | nobody listens |
| pause | CLIENT PAUSE WRITE | no answer to a write or a script |
| stop | SIGSTOP, SIGCONT | no answer |
| cut | lives | every connection breaks, nobody listens |
| hole | lives | no answer, and the connections of then stay dead for ever |
| loading | lives | LOADING for each command |
| readonly | REPLICAOF elsewhere, and back | READONLY for each write |
| noscript | SCRIPT FLUSH | NOSCRIPT, once |
| oom | maxmemory 1, and back | OOM for each write that takes memory |

In each row, for an outage that is shorter than the lease: every task completes in its first attempt, each line of its
log is there once and in order, while Redis is away the gateway answers 503 with Retry-After, and is not ready; then
every loop hears again.
"""

import asyncio
import contextlib
import re
import signal
import tempfile
import time
from pathlib import Path

import httpx
import pytest
from helpers import EXAMPLES, PATIENCE_S, kill, running_system, wait_until
from proxy import Proxy
from redis import Redis

from stoker.embedded import EmbeddedServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]

COMPLETED, RUNNING, ENDED = 9, 7, {9, 10, 11}
SHORT_S, LONG_S = 6, 12
LINES = 6
LOOPS = {"announcements", "wake", "leader", "outbox", "webhooks", "calls", "cron", "rq", "steps"}
"""Those that tell every few seconds. That a daemon reads its inbox is proven by the tasks that waited."""
IN_CI = {"hole", "kill", "oom", "readonly", "stop"}
"""Of those alike one runs with every change, the others with `make test-slow`."""
_SILENCE = re.compile(r'^stoker_seconds_since_last_read\{.*loop="(\w+)"\} ([\d.]+)$', re.MULTILINE)


class Outside:
    """A system on a server of its own, with a proxy between them."""

    def __init__(self, folder):
        self.server = EmbeddedServer(folder / "server")
        with contextlib.ExitStack() as undo:
            asyncio.run(self.server.start())
            undo.callback(lambda: asyncio.run(self.server.stop()))
            self.proxy = Proxy(folder / "proxy.sock", self.server.socket)
            undo.callback(self.proxy.close)
            env = {"STOKER_REDIS_URL": self.proxy.url, "STOKER_LEASE_S": "30"}
            self.system = undo.enter_context(running_system(folder / "data", "--workers", "2", **env))
            self.system.deploy(EXAMPLES / "echo")
            self.system.deploy(EXAMPLES / "slow")
            self.close = undo.pop_all().close

    def say(self, *command):
        """Tell the server something, past the proxy."""
        with Redis.from_url(self.server.url) as direct:
            return direct.execute_command(*command)

    def signal(self, number):
        kill(self.server.pid, number)

    def end_server(self, number):
        """End it with a signal; nobody listens then, at the proxy's address either."""
        self.proxy.cut()
        self.signal(number)

    def start_again(self):
        asyncio.run(self.server.stop())
        asyncio.run(self.server.start())
        self.proxy.mend()


FAULTS = {
    "restart": (lambda o: o.end_server(signal.SIGTERM), Outside.start_again),
    "kill": (lambda o: o.end_server(signal.SIGKILL), Outside.start_again),
    "pause": (
        lambda o: o.say("CLIENT", "PAUSE", 600_000, "WRITE"),
        lambda o: o.say("CLIENT", "UNPAUSE"),
    ),
    "stop": (lambda o: o.signal(signal.SIGSTOP), lambda o: o.signal(signal.SIGCONT)),
    "cut": (lambda o: o.proxy.cut(), lambda o: o.proxy.mend()),
    "hole": (lambda o: o.proxy.hole(), lambda o: o.proxy.mend()),
    "loading": (
        lambda o: o.proxy.refuse("LOADING Redis is loading the dataset in memory"),
        lambda o: o.proxy.mend(),
    ),
    "readonly": (
        lambda o: o.say("REPLICAOF", "127.0.0.1", 1),
        lambda o: o.say("REPLICAOF", "NO", "ONE"),
    ),
    "oom": (
        lambda o: o.say("CONFIG", "SET", "maxmemory", 1),
        lambda o: o.say("CONFIG", "SET", "maxmemory", 0),
    ),
}
"""Name -> how it begins, and how it ends."""
ANSWERS_READS = {"oom", "pause", "readonly"}


@pytest.fixture(scope="module")
def outside():
    with (
        tempfile.TemporaryDirectory(prefix="stoker-outage-", ignore_cleanup_errors=True) as folder,
        contextlib.closing(Outside(Path(folder))) as made,
    ):
        yield made


def submit(system, app, **given):
    with system.client() as client:
        body = {"app": app, "infra": "private", "input": given}
        return client.post("/apps/run", json=body).raise_for_status().json()["data"]["id"]


def ask(system, path):
    """The gateway's answer; it must give one while Redis is away."""
    with system.client() as client:
        return client.get(path)


def task_in(system, task_id, states):
    def reached():
        answer = ask(system, f"/tasks/{task_id}")
        found = answer.json()["data"] if answer.status_code == httpx.codes.OK else None
        return found if found and found["status"] in states else None

    return wait_until(reached, f"task {task_id} in states {states}", PATIENCE_S * 2)


def lines_of(system, task_id):
    def complete():
        with system.client(Accept="text/plain") as client:
            text = client.get(f"/tasks/{task_id}/logs").text
        found = [line for line in text.splitlines() if re.search(r"line \d+ of", line)]
        return [line[line.index("line ") :] for line in found] if len(found) >= LINES else None

    return wait_until(complete, f"the log of {task_id}")


def silences(system):
    return {loop: float(value) for loop, value in _SILENCE.findall(ask(system, "/metrics").text)}


def wait_until_all_hear(system):
    """Wait until each loop has had a useful read that is later than this moment."""
    since = time.monotonic()

    def deaf():
        found, passed_s = silences(system), time.monotonic() - since
        return {loop for loop in LOOPS if found.get(loop, passed_s) >= passed_s}

    try:
        wait_until(lambda: not deaf(), "every loop to hear")
    except AssertionError:
        raise AssertionError(f"these loops hear nothing: {deaf()}; {system.complaints()}") from None


def three_tasks(system):
    """One that comes to its end soon, one that runs on, and some that wait for a worker."""
    running = submit(system, "examples/slow", seconds=LONG_S, lines=LINES)
    task_in(system, running, {RUNNING})
    # The short one last: it is not to end before the fault begins.
    ending = submit(system, "examples/slow", seconds=SHORT_S, lines=LINES)
    task_in(system, ending, {RUNNING})
    waiting = [submit(system, "infsh/echo", message=str(number)) for number in range(3)]
    return ending, running, waiting


def all_completed(system, ending, running, waiting):
    for task_id in (ending, running, *waiting):
        task = task_in(system, task_id, ENDED)
        assert (task["status"], task["attempt"]) == (COMPLETED, 1), task["error"]
    for task_id in (ending, running):
        assert lines_of(system, task_id) == [f"line {n + 1} of {LINES}" for n in range(LINES)]


@pytest.mark.parametrize(
    "fault",
    [name if name in IN_CI else pytest.param(name, marks=pytest.mark.slow) for name in sorted(FAULTS)],
)
def test_an_outage_costs_no_task_and_no_line(outside, fault):
    begin, end = FAULTS[fault]
    system = outside.system
    wait_until_all_hear(system)
    ending, running, waiting = three_tasks(system)
    begin(outside)
    try:
        path = "/apps/run" if fault in ANSWERS_READS else f"/tasks/{ending}"
        refused = wait_until(lambda: refusal(system, path), "a refusal of the gateway")
        assert int(refused.headers["retry-after"]) > 0
        assert refused.json()["error"]["code"] == "store_unavailable"
        if fault not in ANSWERS_READS:
            assert wait_until(lambda: refusal(system, "/ready"), "readiness to be denied")
            assert "stoker_store_up 0" in ask(system, "/metrics").text
        spool = system.data_dir / "spool"
        wait_until(lambda: list(spool.rglob("*.outcome")), "the outcome in the spool")
    finally:
        end(outside)
    wait_until_all_hear(system)
    all_completed(system, ending, running, waiting)
    assert wait_until(lambda: ask(system, "/ready").status_code == httpx.codes.OK, "readiness")
    wait_until(lambda: not list(spool.rglob("*.outcome")), "an empty spool")


def refusal(system, path):
    """The gateway's 503, or None."""
    with system.client() as client:
        if path == "/apps/run":
            body = {"app": "infsh/echo", "infra": "private", "input": {"message": "refused"}}
            answer = client.post(path, json=body)
        else:
            answer = client.get(path)
    return answer if answer.status_code == httpx.codes.SERVICE_UNAVAILABLE else None


def test_scripts_that_the_server_forgot_are_sent_again(outside):
    system = outside.system
    ending, running, waiting = three_tasks(system)
    outside.say("SCRIPT", "FLUSH")
    all_completed(system, ending, running, waiting)


def test_an_engine_keeps_its_lease_on_a_server_without_memory(outside):
    """Longer than the lease of a server that refuses: renewals take no memory, so nothing is taken back."""
    system = outside.system
    task_id = submit(system, "examples/slow", seconds=LONG_S, lines=LINES)
    task_in(system, task_id, {RUNNING})
    lease = outside.say("ZRANGE", "stoker:{default}:leases", 0, -1, "WITHSCORES")
    outside.say("CONFIG", "SET", "maxmemory", 1)
    try:
        wait_until(
            lambda: outside.say("ZRANGE", "stoker:{default}:leases", 0, -1, "WITHSCORES") != lease,
            "a renewal without memory",
        )
    finally:
        outside.say("CONFIG", "SET", "maxmemory", 0)
    assert task_in(system, task_id, ENDED)["attempt"] == 1
