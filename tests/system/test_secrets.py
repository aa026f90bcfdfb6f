"""Secrets end to end: given to the app that wants them, to nobody else, and visible nowhere."""

import base64
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from app_bundles import app_bundle, version_of
from helpers import TEST_APPS, family, running_system, wait_until

APP = TEST_APPS / "secretive"
VALUE = "tok-3f1c9a77e5d24b68-8842"
SECOND = "second-4c1b77aa90e2"
OPERATORS = "operator-91be02c7d655"
ENDED = {"completed", "failed", "cancelled"}


def digest(value):
    return hashlib.sha256(value.encode()).hexdigest()


@pytest.fixture(scope="module")
def own_system():
    """A system of these tests alone: one worker, so that who is warm is known; variables of the operator."""
    with tempfile.TemporaryDirectory(prefix="stoker secrets ", ignore_cleanup_errors=True) as folder:
        variables = {"FROM_OPERATOR": "plain", "OPERATOR_TOKEN": OPERATORS, "API_TOKEN": "weaker"}
        with running_system(
            Path(folder) / "data",
            "--workers",
            "1",
            STOKER_APP_ENV=json.dumps(variables),
            STOKER_LOG_LEVEL="debug",
        ) as running:
            yield running


@pytest.fixture
def http(own_system):
    """A client of a user without secrets, to whom the app is deployed."""
    own_system.deploy(APP)
    with own_system.client(**{"X-API-Version": "2"}) as http:
        for secret in http.get("/secrets").json()["items"]:
            http.delete(f"/secrets/{secret['key']}").raise_for_status()
        yield http


def put(http, key, value, **fields):
    answer = http.put(f"/secrets/{key}", json={"value": value} | fields)
    assert answer.status_code == 200, answer.text
    return answer.json()


def submit(http, do="tell"):
    answer = http.post("/apps/run", json={"app": "tests/secretive", "infra": "private", "input": {"do": do}})
    assert answer.status_code == 200, answer.text
    return answer.json()


def ended(http, do="tell"):
    return until_ended(http, submit(http, do)["id"])


def until_ended(http, task_id):
    def look():
        task = http.get(f"/tasks/{task_id}").json()
        return task if task["status_text"] in ENDED else None

    return wait_until(look, f"the end of {task_id}")


def log_of(task):
    return [line["content"] for line in task["logs"]]


def test_without_the_secret_the_run_is_refused_with_what_to_do(http):
    answer = http.post("/run", json={"app": "tests/secretive", "input": {}})
    assert answer.status_code == 412
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "satisfied": False,
        "errors": [
            {
                "type": "secret",
                "key": "API_TOKEN",
                "message": "The app needs the secret API_TOKEN (the token of a service), which is missing. "
                "Add it: stoker secrets set API_TOKEN, or POST /secrets.",
                "action": {"type": "add_secret"},
            }
        ],
    }


def test_the_app_gets_it_before_it_is_imported_and_not_in_its_arguments(http):
    put(http, "API_TOKEN", VALUE)
    output = ended(http)["output"]
    assert output["at_import"] == digest(VALUE)
    assert output["digests"] == {
        "API_TOKEN": digest(VALUE),
        "FROM_OPERATOR": digest("plain"),
        "OPERATOR_TOKEN": digest(OPERATORS),
    }
    assert VALUE not in str(output["argv"])


def test_optional_ones_are_given_when_they_are_there_to_another_instance(http):
    put(http, "API_TOKEN", VALUE)
    without = ended(http)["output"]
    put(http, "SECOND_TOKEN", SECOND)
    with_it = ended(http)["output"]
    assert with_it["digests"]["SECOND_TOKEN"] == digest(SECOND)
    assert with_it["pid"] != without["pid"]


def test_the_instance_stays_warm_while_the_secret_stays(http):
    put(http, "API_TOKEN", VALUE, description="first")
    first = ended(http)["output"]
    changed = http.put("/secrets/API_TOKEN", json={"description": "second"}).json()
    assert (changed["description"], changed["version"]) == ("second", 1)
    assert ended(http)["output"]["pid"] == first["pid"]


def test_a_changed_secret_gets_another_instance_and_the_old_one_is_unloaded(http):
    put(http, "API_TOKEN", VALUE)
    first = ended(http)["output"]
    put(http, "API_TOKEN", VALUE + "-new")
    second = ended(http)["output"]
    assert second["at_import"] == digest(VALUE + "-new")
    assert second["pid"] != first["pid"]
    wait_until(
        lambda: not Path(f"/proc/{first['pid']}").exists(), "the end of the instance with the old value"
    )
    assert Path(f"/proc/{second['pid']}").exists()


def test_a_deleted_secret_unloads_its_instances_and_refuses_runs(http):
    put(http, "API_TOKEN", VALUE)
    pid = ended(http)["output"]["pid"]
    assert http.delete("/secrets/API_TOKEN").json() == {"key": "API_TOKEN", "deleted": True}
    wait_until(lambda: not Path(f"/proc/{pid}").exists(), "the end of the instance")
    assert http.post("/run", json={"app": "tests/secretive"}).status_code == 412
    assert http.delete("/secrets/API_TOKEN").status_code == 404


def test_a_waiting_task_whose_secret_is_deleted_fails_with_what_is_missing(http, own_system):
    put(http, "API_TOKEN", VALUE)
    released = own_system.data_dir / "released"
    running = submit(http, f"hold {released}")["id"]
    wait_until(
        lambda: http.get(f"/tasks/{running}").json()["status_text"] == "running", "the first task to run"
    )
    put(http, "SECOND_TOKEN", SECOND)  # the next task needs another instance
    waiting = submit(http)["id"]
    http.delete("/secrets/API_TOKEN").raise_for_status()
    released.touch()
    task = until_ended(http, waiting)
    assert (task["status_text"], task["error_code"]) == ("failed", "requirements_not_met")
    assert "API_TOKEN" in task["error"]
    assert "It was deleted while the task waited." in task["error"]
    assert until_ended(http, running)["output"]["at_import"] == digest(VALUE)


def test_what_the_app_prints_and_its_error_are_redacted(http):
    put(http, "API_TOKEN", VALUE)
    lines = log_of(ended(http, "print"))
    assert "setup with [redacted:API_TOKEN]" in lines
    assert "the token is [redacted:API_TOKEN], as the app prints it" in lines
    assert "begun [redacted:API_TOKEN] ended" in lines
    [encoded] = [line for line in lines if line.startswith("encoded [redacted:API_TOKEN] ")]
    assert base64.b64encode(f"user:{VALUE}".encode()).decode()[9:-4] not in encoded
    failed = ended(http, "fail")
    assert failed["error"].endswith("the service refused [redacted:API_TOKEN]")
    assert not any(VALUE[:14] in line or VALUE[-14:] in line for line in (*lines, *log_of(failed)))


def test_no_log_file_database_or_process_list_holds_a_value(http, own_system):
    """Only the app's own process has it in its environment; the encrypted form is nowhere to be mistaken for it."""
    put(http, "API_TOKEN", VALUE)
    put(http, "SECOND_TOKEN", SECOND)
    pid = ended(http, "print")["output"]["pid"]
    assert ended(http, "fail")["error"]
    http.get("/secrets").raise_for_status()
    values = [
        VALUE,
        SECOND,
        *(base64.b64encode(value.encode()).decode().rstrip("=") for value in (VALUE, SECOND)),
    ]
    needles = [value.encode() for value in values]
    files = [path for path in own_system.data_dir.rglob("*") if path.is_file() and not path.is_symlink()]
    assert {"gateway.log", "worker.log"} <= {path.name for path in files}
    assert any("appendonly" in str(path) for path in files)
    assert [path for path in files if holds(path, needles)] == []
    processes = family(own_system.process.pid) | {pid}
    assert len(processes) > 5
    assert [p for p in processes if holds(Path(f"/proc/{p}/cmdline"), needles)] == []
    wait_until(  # an instance of the test before may be on its way out
        lambda: [p for p in processes if holds(Path(f"/proc/{p}/environ"), needles)] == [pid],
        "the app's own process to be the only one that has it",
    )


def holds(path, needles):
    """Whether a file that is there holds one of some byte strings."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return any(needle in data for needle in needles)


def test_values_of_the_operator_are_redacted_and_kept_from_the_other_parts(http, own_system):
    put(http, "API_TOKEN", OPERATORS + "!")
    put(http, "SECOND_TOKEN", OPERATORS)
    assert "setup with [redacted:API_TOKEN]" in log_of(ended(http, "print"))
    holders = {
        part
        for part, pid in own_system.pids.items()
        if holds(Path(f"/proc/{pid}/environ"), [OPERATORS.encode()])
    }
    assert {"worker"} <= holders <= {"up", "worker"}


def test_changes_are_logged_with_who_and_what(http, own_system):
    put(http, "AUDITED", VALUE)
    http.delete("/secrets/AUDITED")
    log = own_system.data_dir / "logs" / "gateway.log"

    def audited():
        lines = log.read_text().splitlines(keepends=True)
        events = [json.loads(line) for line in lines if line.endswith("\n")]
        found = [event for event in events if event.get("name") == "AUDITED"]
        return found if len(found) > 1 else None

    events = wait_until(audited, "both lines")
    assert [event["event"] for event in events] == ["secret.set", "secret.deleted"]
    assert all(event["owner"] == "admin" and event["api_key_id"] for event in events)


def test_the_rest_interface(http):
    made = http.post(
        "/secrets", json={"key": "LONG", "value": "abcdefghijklmnopqrstuvwxyz", "description": "d"}
    )
    assert made.status_code == 200
    assert made.json()["masked_value"] == "********wxyz"
    put(http, "SHORT", "abcdefghij")
    for listed in (http.get("/secrets").json(), http.post("/secrets/list", json={}).json()):
        assert [(s["key"], s["masked_value"]) for s in listed["items"]] == [
            ("LONG", "********wxyz"),
            ("SHORT", "********"),
        ]
        assert "abcdef" not in str(listed)
    again = http.post("/secrets", json={"key": "LONG", "value": "other"})
    assert (again.status_code, "PUT /secrets/LONG" in again.json()["detail"]) == (409, True)
    assert http.put("/secrets/LONG", json={}).status_code == 400
    assert http.put("/secrets/NONE", json={"description": "d"}).status_code == 404
    assert http.put("/secrets/LONG", json={"value": "second"}).json()["version"] == 2
    refused = http.get("/secrets/reveal/LONG")
    assert refused.status_code == 403
    assert "STOKER_SECRETS_REVEAL" in refused.json()["detail"]


@pytest.mark.parametrize("key", ["LD_PRELOAD", "PATH", "PYTHONPATH", "STOKER_SECRETS_KEY", "A-B", "1X"])
def test_bad_names_and_values_are_refused(http, key):
    refused = http.post("/secrets", json={"key": key, "value": "the-hidden-value"})
    assert refused.status_code == 400
    assert "the-hidden-value" not in refused.text
    assert http.put(f"/secrets/{key}", json={"value": "the-hidden-value"}).status_code == 400
    assert http.post("/secrets", json={"key": "GOOD", "value": "x" * 70_000}).status_code == 400


def test_an_app_cannot_declare_a_variable_that_changes_how_processes_run(http):
    version = version_of(http, app_bundle(secrets=["LD_PRELOAD"]))
    refused = http.post("/apps", json={"namespace": "tests", "name": "evil", "version": version})
    assert refused.status_code == 400
    assert "LD_PRELOAD" in refused.json()["detail"]


def test_the_version_of_an_app_tells_what_it_needs(http):
    version = http.get("/apps/tests/secretive").json()["version"]
    assert [(s["key"], s["optional"]) for s in version["required_secrets"]] == [
        ("API_TOKEN", False),
        ("SECOND_TOKEN", True),
    ]
    assert version["required_integrations"] == []


def test_a_wrong_token_gets_no_values(http):
    put(http, "API_TOKEN", VALUE)
    task = ended(http)
    for key in ("", "Bearer wrong", http.headers["authorization"]):
        answer = http.get(f"/internal/tasks/{task['id']}/secrets", headers={"authorization": key})
        assert answer.status_code == 401
        assert VALUE not in answer.text


def test_the_command_line_takes_the_value_from_stdin(http, own_system):
    def stoker(*arguments, given=None, check=True):
        return subprocess.run(
            [sys.executable, "-m", "stoker_cli", "secrets", *arguments],
            env=own_system.env,
            input=given,
            capture_output=True,
            text=True,
            timeout=60,
            check=check,
        )

    done = stoker("set", "FROM_CLI", "--description", "d", "--json", given="abcdefghijklmnopqrstuvwxyz\n")
    assert json.loads(done.stdout)["masked_value"] == "********wxyz"
    assert "FROM_CLI" in stoker("list").stdout
    [listed] = json.loads(stoker("list", "--json").stdout)["items"]
    assert (listed["key"], listed["description"]) == ("FROM_CLI", "d")
    assert json.loads(stoker("delete", "FROM_CLI", "--json").stdout) == {"key": "FROM_CLI", "deleted": True}
    assert stoker("set", "PATH", given="x", check=False).returncode == 2
    failed = subprocess.run(
        [sys.executable, "-m", "stoker_cli", "run", "tests/secretive", "-i", "do=tell"],
        env=own_system.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert failed.returncode == 2
    assert "stoker secrets set API_TOKEN" in failed.stderr


def test_keys_are_rotated_while_the_system_runs(http, own_system):
    put(http, "API_TOKEN", VALUE)
    first = ended(http)["output"]
    key_file = own_system.data_dir / "secrets-key"
    old = key_file.read_text().split()
    for _ in range(2):  # the one before signs too for a while
        http.post("/webhooks/secret", json={}).raise_for_status()
    done = own_system.cli_json("secrets", "rotate-key", "--drop-old")
    assert done["reencrypted"] == 3
    assert not set(old) & set(key_file.read_text().split())
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert http.get("/secrets").json()["items"][0]["masked_value"] == "********" + VALUE[-4:]
    assert ended(http)["output"] == first  # the value is the same, and so is the instance
    put(http, "SECOND_TOKEN", SECOND)
    assert ended(http)["output"]["digests"]["API_TOKEN"] == digest(VALUE)
