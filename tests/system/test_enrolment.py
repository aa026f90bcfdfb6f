"""A second machine joins a system over TCP: with a token once, with its identity from then on, until it is revoked."""

import contextlib
import itertools
import json
import stat
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from helpers import EXAMPLES, environment, family, running_system, wait_until
from machines import Machine
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError
from server_groups import free_port

pytestmark = pytest.mark.long

QUEUED, RUNNING, COMPLETED = 2, 7, 9
_names = itertools.count()


@pytest.fixture(scope="module")
def listening(tmp_path_factory):
    """A whole system that takes further machines on a port of loopback."""
    folder = tmp_path_factory.mktemp("listening")
    port = free_port()
    listen = ("--workers", "1", "--listen", f"127.0.0.1:{port}")
    with running_system(folder / "data", *listen, STOKER_LEASE_S="3") as running:
        running.redis_port = port
        running.deploy(EXAMPLES / "echo")
        running.deploy(EXAMPLES / "slow")
        yield running


@pytest.fixture
def machine(listening, tmp_path):
    """A machine that has joined; named for its test."""
    name = f"box-{next(_names)}"
    made = Machine(listening, name, tmp_path / "machine", STOKER_LEASE_S="3")
    made.start(enrol(listening, name)["join"])
    made.wait_until_idle()
    yield made
    made.stop()


def enrol(system, name):
    return system.cli_json("workers", "enroll", name)


def run_there(system, machine, app="infsh/echo", **given):
    with system.client() as client:
        body = {"app": app, "infra": "private", "input": given, "workers": [f"{machine.name}-cpu-0"]}
        return client.post("/apps/run", json=body).raise_for_status().json()["data"]["id"]


def read(system, task_id):
    with system.client() as client:
        return client.get(f"/tasks/{task_id}").raise_for_status().json()["data"]


def ended(system, task_id):
    return wait_until(
        lambda: (t := read(system, task_id))["status"] >= COMPLETED and t, f"the end of {task_id}"
    )


def test_a_machine_that_joined_runs_tasks_with_its_own_user_and_key(listening, machine):
    task = ended(listening, run_there(listening, machine, message="from afar"))
    assert (task["status"], task["worker_id"]) == (COMPLETED, f"{machine.name}-cpu-0")
    assert stat.S_IMODE(machine.identity_file.stat().st_mode) == 0o600


def test_a_machine_starts_again_with_its_identity_and_without_a_token(listening, machine):
    machine.stop()
    machine.start()
    machine.wait_until_idle()
    assert ended(listening, run_there(listening, machine, message="again"))["status"] == COMPLETED


def test_a_token_is_good_once(listening, tmp_path):
    join = enrol(listening, "twice")["join"]
    base, token = "http://" + join.rpartition("@")[2], join.partition("://")[2].partition("@")[0]
    headers = {"authorization": f"Bearer {token}"}
    first, second = (httpx.post(f"{base}/internal/join", headers=headers, trust_env=False) for _ in range(2))
    assert (first.status_code, second.status_code) == (200, 401)
    assert "used already" in second.json()["detail"]


def test_a_worker_with_a_used_token_says_so_and_ends(listening, tmp_path):
    other = Machine(listening, "nobody", tmp_path / "other")
    other.start(enrol(listening, "nobody")["join"].replace("nobody~", "nobody~x"))
    assert other.process.wait(60) == 2
    assert "stoker workers enroll nobody" in other.tail()


def test_a_name_that_has_joined_is_not_given_away(listening, machine):
    refused = listening.cli("workers", "enroll", machine.name, check=False)
    assert refused.returncode == 2
    assert f"stoker workers revoke {machine.name}" in refused.stderr


def test_a_revoked_machine_is_out_at_once_and_its_task_is_taken_back(listening, machine):
    task_id = run_there(listening, machine, "examples/slow", seconds=600, lines=1)
    wait_until(lambda: read(listening, task_id)["status"] == RUNNING, "the run")
    listening.cli("workers", "revoke", machine.name)
    with pytest.raises(AuthenticationError):
        user_of(listening, json.loads(machine.identity_file.read_text())).ping()
    wait_until(lambda: read(listening, task_id)["status"] == QUEUED, "the task to be queued again")
    cancel(listening, task_id)
    recorded = [c for c in listening.cli_json("audit", "list") if c["target"] == machine.name]
    assert [(c["action"], c["user_id"]) for c in reversed(recorded)] == [
        ("worker.invited", "admin"),
        ("worker.joined", None),
        ("worker.revoked", "admin"),
    ]
    assert {c["address"] for c in recorded} == {"127.0.0.1"}


def test_the_gateway_refuses_an_attempt_without_the_key_of_its_machine(listening, machine):
    """The token of an attempt is of use to the machine alone that it was given to."""
    task_id = run_there(listening, machine, "examples/slow", seconds=600, lines=1)
    wait_until(lambda: read(listening, task_id)["status"] == RUNNING, "the run")
    identity = json.loads(machine.identity_file.read_text())
    token = attempt_token(listening, machine, task_id)
    url = f"{listening.base_url}/internal/tasks/{task_id}/bundle"
    statuses = [
        httpx.get(url, headers={"authorization": f"Bearer {token}", **extra}, trust_env=False).status_code
        for extra in (
            {},
            {"x-stoker-engine": f"{machine.name}:guess"},
            {"x-stoker-engine": f"another:{identity['gateway_key']}"},
            {"x-stoker-engine": f"{machine.name}:{identity['gateway_key']}"},
        )
    ]
    assert statuses == [401, 401, 401, 200]
    listening.cli("workers", "revoke", machine.name)  # its attempt is not its own any more
    cancel(listening, task_id)


def cancel(system, task_id):
    with system.client() as client:
        client.post(f"/tasks/{task_id}/cancel").raise_for_status()
    ended(system, task_id)


def attempt_token(system, machine, task_id):
    """A token for the task's attempt that the test knows, as if it had been read from the inbox."""
    import hashlib

    from stoker.protocol.keys import Keys
    from stoker.server_address import embedded_url

    admin, keys, token = Redis.from_url(embedded_url(system.data_dir)), Keys("default"), "of the test"
    digest = hashlib.sha1(token.encode(), usedforsecurity=False).hexdigest()
    with admin:
        admin.hset(keys.task(task_id), "token_hash", digest)
        admin.hset(keys.control(task_id), "writer:1", f"{digest} {machine.name}")
    return token


def user_of(system, identity):
    return Redis(
        host="127.0.0.1",
        port=system.redis_port,
        username=identity["redis_user"],
        password=identity["redis_password"],
    )


def test_the_port_is_closed_to_those_without_a_user(listening, machine):
    with pytest.raises(AuthenticationError, match=r"(?i)auth"), Redis(port=listening.redis_port) as nobody:
        nobody.ping()
    with pytest.raises(AuthenticationError), Redis(port=listening.redis_port, password="guess") as guesser:
        guesser.ping()
    with user_of(listening, json.loads(machine.identity_file.read_text())) as own:
        assert own.ping()
        with pytest.raises(NoPermissionError):
            own.keys()


def test_a_restarted_server_knows_its_machines_again(listening, machine):
    listening.kill("server")
    task = ended(listening, run_again(listening, machine))
    assert task["status"] == COMPLETED


def run_again(system, machine):
    def attempt():
        try:
            return run_there(system, machine, message="after")
        except httpx.HTTPError:
            return None

    return wait_until(attempt, "the system after the restart")


def test_no_secret_is_in_a_log_or_a_process_list(listening, machine):
    ended(listening, run_there(listening, machine, message="quiet"))
    identity = json.loads(machine.identity_file.read_text())
    secrets = [identity["redis_password"], identity["gateway_key"]]
    secrets.append((listening.data_dir / "redis-password").read_text())
    texts = [machine.log.read_text(), *(p.read_text() for p in (listening.data_dir / "logs").glob("*.log"))]
    for pid in family(machine.process.pid) | set(listening.pids.values()):
        with contextlib.suppress(OSError):  # it has ended
            texts.append(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace"))
    assert not [text for text in texts for secret in secrets if secret in text]


def test_a_token_is_not_sent_over_a_network_in_the_clear(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "stoker_cli", "worker", "--data-dir", str(tmp_path)],
        env=environment(STOKER_JOIN="http://box~token@gateway.example:8787"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert "STOKER_TLS_CERT_FILE" in done.stderr
    assert "box~token" not in done.stderr + done.stdout
