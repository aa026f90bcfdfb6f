"""No key, token, password or secret in a log, an answer to something else, or the arguments of a process.

One story on one system: everything that is secret is made and used, every part is made to complain, and then all
that it wrote is searched. `tests/system/test_secrets.py` searches the database too.
"""

import contextlib
import http.server
import json
import threading
from pathlib import Path

import psutil
import pytest
from app_bundles import app_bundle, version_of
from helpers import TEST_APPS, family, running_system, wait_until
from machines import Machine
from server_groups import free_port

pytestmark = pytest.mark.long

SECRET, SECOND, WRONG_KEY = (
    "tok-77ab41c9e0d34f-first",
    "tok-09ce53a1b7-second",
    "inf_wrongWRONGwrongWRONGwrongWRONG99",
)
OPERATORS, HOOK, SOURCE = "operator-5e2c9077ab", "hook-3c1d5e7790", "signed-8d20c4be11"
ENDED = {"completed", "failed", "cancelled"}
RUN = {"app": "tests/secretive", "infra": "private"}


@pytest.fixture(scope="module")
def receiver():
    """A receiver of webhooks that refuses them, and a source of files that has none."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            self.send_response(500)
            self.end_headers()
            server.asked.append(self.path)

        def do_GET(self):
            self.send_response(404)
            self.end_headers()
            server.asked.append(self.path)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.url = [], f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def open_system(tmp_path_factory):
    folder, port = tmp_path_factory.mktemp("leaks"), free_port()
    with running_system(
        folder / "data",
        "--workers",
        "1",
        "--listen",
        f"127.0.0.1:{port}",
        STOKER_APP_ENV=json.dumps({"OPERATOR_TOKEN": OPERATORS}),
        STOKER_LOG_LEVEL="debug",
        STOKER_SECRETS_REVEAL="true",
        STOKER_WEBHOOK_ALLOW="127.0.0.1",
        STOKER_FETCH_ALLOW="127.0.0.1",
    ) as running:
        yield running


@pytest.fixture
def joined(open_system, tmp_path):
    """A machine that joined; what it holds is secret."""
    machine = Machine(open_system, "leaky", tmp_path / "machine", STOKER_LOG_LEVEL="debug")
    machine.token = open_system.cli_json("workers", "enroll", "leaky")["join"]
    machine.start(machine.token)
    machine.wait_until_idle()
    yield machine
    machine.stop()


@pytest.fixture
def lost(open_system, tmp_path):
    """A machine with a token for a gateway that is not there."""
    machine = Machine(open_system, "lost", tmp_path / "lost")
    token = open_system.cli_json("workers", "enroll", "lost")["join"].replace("lost~", "lost~x")
    machine.token = f"{token.rpartition('@')[0]}@127.0.0.1:{free_port()}"
    machine.start(machine.token)
    wait_until(lambda: "cannot be reached" in machine.log.read_text(), "the complaint")
    yield machine
    machine.stop()


class Story:
    """Sends requests, and keeps what was answered where no secret belongs."""

    def __init__(self, client, own):
        self.client, self.own = client, own  # `own`: the caller's, and shown to it
        self.told = []

    def ask(self, method, path, **options):
        answer = self.client.request(method, path, **options)
        self.told.append(f"{answer.headers} {answer.text.replace(self.own, '')}")
        return answer

    def run(self, do="tell", **more):
        task_id = self.ask("POST", "/run", json=RUN | {"input": {"do": do}} | more).json()["id"]
        self.ended(task_id)
        self.ask("GET", f"/tasks/{task_id}/logs")
        return self.ask("GET", f"/tasks/{task_id}").json()

    def ended(self, task_id):
        def read():
            task = self.client.get(f"/tasks/{task_id}")
            return task if task.json()["status_text"] in ENDED else None

        return wait_until(read, "the end of the task")


def provoke(story, limited):
    """Requests that go wrong, each with something secret in it."""
    ask = story.ask
    for key in (WRONG_KEY, limited):
        headers = {"authorization": f"Bearer {key}"}
        assert ask("DELETE", "/apikeys/none", headers=headers).status_code in {401, 403}
    ask("GET", "/tasks", headers={"authorization": WRONG_KEY})
    ask("POST", "/secrets", content=f'{{"key": "A", "value": "{SECRET}'.encode())
    ask("POST", "/secrets", json={"key": "API_TOKEN", "value": SECRET})
    ask("POST", "/secrets", json={"key": "BAD-NAME", "value": SECRET})
    ask("POST", "/secrets", json={"key": 1, "value": SECRET})
    ask("PUT", "/secrets/API_TOKEN", json={"value": [SECRET]})
    ask("PUT", "/secrets/API_TOKEN", json={"value": SECRET + "\0"})
    ask("PUT", "/secrets/LONG", json={"value": SECRET * 5000})
    ask("PUT", "/secrets/LONG", json={"value": "x", "description": SECRET * 1000})
    ask("POST", "/apikeys", json={"name": limited * 100})
    ask("GET", f"/internal/tasks/none/secrets?token={SECRET}", headers={"authorization": f"Bearer {SECRET}"})
    ask("POST", "/internal/join", headers={"authorization": f"Bearer leaky~{SECRET}"})
    ask("GET", f"/files/none/{SECRET}/x.png")


def fetch(story, receiver):
    """A task whose files cannot be had; its input is its caller's, so that alone is not searched."""
    schema = {"type": "object", "properties": {"f": {"type": "string", "format": "file"}}}
    functions = {"run": {"name": "run", "input_schema": schema, "output_schema": {}}}
    version = version_of(story.client, app_bundle(kernel=""), functions=functions)
    app = {"namespace": "tests", "name": "fetching", "version": version}
    story.client.post("/apps", json=app).raise_for_status()
    host = receiver.url.partition("//")[2]
    for address in (
        f"http://me:{SOURCE}@{host}/x?signature={SOURCE}",
        f"ftp://me:{SOURCE}@{host}/x?s={SOURCE}",
    ):
        body = {"app": "tests/fetching", "infra": "private", "input": {"f": address}}
        made = story.client.post("/run", json=body)
        if made.status_code == 200:
            made = story.ended(made.json()["id"])
            assert made.json()["status_text"] == "failed"
        problem = made.json()
        story.told.append(f"{problem.get('error')} {problem.get('detail')}")


def process_texts():
    """The arguments of every process that this test run can see."""
    for process in psutil.process_iter():
        with contextlib.suppress(OSError):
            yield (
                f"/proc/{process.pid}/cmdline",
                Path(f"/proc/{process.pid}/cmdline").read_text(errors="replace"),
            )


def test_nothing_secret_is_in_logs_answers_and_process_lists(open_system, joined, lost, receiver):
    data, hook = open_system.data_dir, f"{receiver.url}/hook?token={HOOK}"
    open_system.deploy(TEST_APPS / "secretive")
    limited = open_system.cli_json("keys", "create", "--name", "limited", "--scope", "files:read")["key"]
    with open_system.client(**{"X-API-Version": "2"}) as client:
        for name, value in (("API_TOKEN", SECRET), ("SECOND_TOKEN", SECOND)):
            client.put(f"/secrets/{name}", json={"value": value}).raise_for_status()
        assert client.get("/secrets/reveal/API_TOKEN").json()["value"] == SECRET
        signing = client.post("/webhooks/secret", json={}).json()["secret"]
        story = Story(client, hook)
        assert story.run("print", webhook=hook)["status_text"] == "completed"
        assert story.run("fail", workers=["leaky-cpu-0"])["status_text"] == "failed"
        [uploaded] = client.post("/files", json={"files": [{"filename": "a", "size": 1}]}).json()
        provoke(story, limited)
        fetch(story, receiver)
        for path in (
            "/secrets",
            "/apikeys",
            "/audit?limit=100",
            "/engines",
            "/engines/enrolments",
            "/metrics",
            "/queue",
            "/webhooks/secret",
        ):
            assert story.ask("GET", path).status_code == 200
        wait_until(lambda: any(HOOK in path for path in receiver.asked), "the webhook")
        jobs_log = data / "logs" / "jobs.log"
        wait_until(lambda: "webhook.delayed" in jobs_log.read_text(), "the complaint of the jobs")
        [delivery] = story.ask("GET", "/webhooks/deliveries").json()["items"]
        shown = story.ask("GET", f"/webhooks/deliveries/{delivery['id']}").json()
        assert shown["tries"][0]["status"] == 500
    open_system.cli("workers", "revoke", "leaky")
    identity = json.loads(joined.identity_file.read_text())
    secret = {
        "a secret": SECRET,
        "another secret": SECOND,
        "a variable of the operator": OPERATORS,
        "the first key": open_system.api_key,
        "another key": open_system.bench_key,
        "a limited key": limited,
        "a key that is none": WRONG_KEY,
        "the token of a machine": joined.token.partition("~")[2].partition("@")[0],
        "the token of a lost machine": lost.token.partition("~")[2].partition("@")[0],
        "a machine's password": identity["redis_password"],
        "a machine's key": identity["gateway_key"],
        "the password of Redis": (data / "redis-password").read_text().strip(),
        "the key of the secrets": (data / "secrets-key").read_text().split()[-1],
        "the signature of an upload": uploaded["upload_url"].partition("signature=")[2].partition("&")[0],
        "the secret of a webhook": HOOK,
        "what signs webhooks": signing,
        "the password of a source": SOURCE,
    }
    assert all(len(value) > 8 for value in secret.values())
    texts = {
        str(path): path.read_text(errors="replace") for path in (data / "logs").rglob("*") if path.is_file()
    }
    texts |= {
        "stderr of stoker up": "\n".join(open_system.stderr),
        "stoker doctor": said(open_system, "doctor"),
    }
    texts |= {machine.name: machine.log.read_text(errors="replace") for machine in (joined, lost)}
    texts |= {"answers": "\n".join(story.told), "stoker audit list": said(open_system, "audit", "list")}
    texts |= dict(process_texts())
    assert len(family(open_system.process.pid)) > 5
    found = [
        f"{what} is in {where}: {text[max(0, at - 120) : at + 60]!r}"
        for what, value in secret.items()
        for where, text in texts.items()
        if (at := text.find(value)) >= 0
    ]
    assert not found, "\n".join(found)


def said(system, *arguments):
    done = system.cli(*arguments, check=False)
    return done.stdout + done.stderr
