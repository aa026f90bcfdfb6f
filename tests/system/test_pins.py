"""What is loaded apart from what tasks ask for, on a whole system: pins, loads ahead, unloading, keep-alive."""

import tempfile
from pathlib import Path

import pytest
from helpers import kill, running_system, wait_until

pytestmark = pytest.mark.long

COMPLETED = 9
LOADING = {4, 5, 6}  # preparing, serving, setting_up
APP = """
import os
from dataclasses import dataclass

@dataclass
class Setup:
    model: str = "small"
    broken: bool = False

@dataclass
class Call:
    pass

@dataclass
class Answer:
    pid: int
    model: str
    secret: str

class App:
    async def setup(self, config: Setup):
        if config.broken:
            raise RuntimeError("there is no such model")
        self.model = config.model

    async def run(self, call: Call) -> Answer:
        return Answer(pid=os.getpid(), model=self.model, secret=os.environ["PINNED_SECRET"])
"""
MANIFEST = "name: pinned\nnamespace: tests\nkernel: python-3.11\nsecrets: [{key: PINNED_SECRET}]\n"
REF = "tests/pinned"


class Fleet:
    """A system and what a person asks of it."""

    def __init__(self, system):
        self.system = system
        self.http = system.client()

    def ask(self, method, path, status=200, **options):
        answer = self.http.request(method, path, **options)
        assert answer.status_code == status, answer.text
        return answer.json().get("data", answer.json())

    def run(self, **setup):
        """Run a task to its end: its output, and whether it loaded anything."""
        body = {"app": REF, "infra": "private", "input": {}, "setup": setup}
        made = self.ask("POST", "/apps/run", json=body)

        def ended():
            task = self.ask("GET", f"/tasks/{made['id']}")
            return task if task["status"] in {9, 10, 11} else None

        task = wait_until(ended, f"the end of the task; {self.system.complaints()}")
        assert task["status"] == COMPLETED, task
        events = self.ask("GET", f"/tasks/{made['id']}/timings")["events"]
        return task["output"], bool({event["status"] for event in events} & LOADING)

    def pins(self):
        return {pin["id"]: pin for pin in self.ask("GET", "/pins")["items"]}

    def pinned(self, pin_id, **wanted):
        """A pin, as soon as it is as wanted."""

        def fits():
            pin = self.pins()[pin_id]
            return pin if all(pin[name] == value for name, value in wanted.items()) else None

        return wait_until(fits, f"pin {wanted}; {self.pins()} {self.system.complaints()}")

    def residents(self):
        workers = self.ask("GET", "/workers")["items"]
        return {
            (worker["id"], each["setup_key"], each["since"])
            for worker in workers
            for each in worker["residents"]
        }

    def empty(self):
        """Nothing is pinned or loaded any more."""
        for pin_id in self.pins():
            self.ask("DELETE", f"/pins/{pin_id}")

        def gone():
            self.http.post("/apps/unload", json={"app": REF})
            return not self.residents()

        wait_until(gone, f"nothing to be loaded; {self.system.complaints()}")


@pytest.fixture(scope="module")
def whole():
    """Two CPU workers that hold one instance each, and an app that wants a secret."""
    with tempfile.TemporaryDirectory(prefix="stoker-pins-", ignore_cleanup_errors=True) as folder:
        app = Path(folder) / "pinned"
        app.mkdir()
        (app / "inf.yml").write_text(MANIFEST)
        (app / "inference.py").write_text(APP)
        with running_system(Path(folder) / "data", "--workers", "2", STOKER_MAX_RESIDENTS="1") as system:
            system.deploy(app)
            with system.client() as http:
                secret = {"key": "PINNED_SECRET", "value": "s3cret-value"}
                http.post("/secrets", json=secret).raise_for_status()
            yield Fleet(system)


@pytest.fixture
def fleet(whole):
    yield whole
    whole.empty()


def test_a_pinned_app_is_warm_and_comes_back_when_its_process_or_its_daemon_is_killed(fleet):
    said = fleet.system.cli("apps", "pin", REF, "--setup", "model=large").stdout
    assert "pinned tests/pinned" in said
    [pin_id] = fleet.pins()
    fleet.pinned(pin_id, state="loaded")
    first, loaded = fleet.run(model="large")
    assert (first["model"], first["secret"], loaded) == ("large", "s3cret-value", False)

    kill(first["pid"])
    wait_until(lambda: fleet.pins()[pin_id]["state"] != "loaded", "the loss to be noticed")
    fleet.pinned(pin_id, state="loaded")
    second, loaded = fleet.run(model="large")
    assert (second["pid"] != first["pid"], loaded) == (True, False)

    # Two others, one after the other, have one place left for both: it makes room, the pinned one does not.
    fleet.run(model="other")
    fleet.run(model="third")
    assert fleet.run(model="large") == (second, False)

    loaded_before = fleet.residents()
    fleet.system.kill("worker")
    wait_until(lambda: not fleet.residents() & loaded_before, "the end of the daemon")
    fleet.pinned(pin_id, state="loaded")
    third, loaded = fleet.run(model="large")
    assert (third["pid"] != second["pid"], loaded) == (True, False)

    assert fleet.system.cli("apps", "unpin", REF).stdout.startswith("unpinned tests/pinned")
    assert fleet.run(model="large") == (third, False)  # it stays until its room is wanted


def _workers(fleet):
    return {worker["id"] for worker in fleet.ask("GET", "/workers")["items"]}


def test_a_load_ahead_makes_the_first_task_warm_and_an_unload_takes_it_away(fleet):
    done = fleet.system.cli(
        "apps", "warm", REF, "--setup", "model=ahead", "--workers", sorted(_workers(fleet))[1]
    )
    assert "loaded tests/pinned on" in done.stdout
    output, loaded = fleet.run(model="ahead")
    assert (output["model"], loaded) == ("ahead", False)
    said = fleet.system.cli("apps", "unload", REF, "--setup", "model=ahead").stdout
    assert "is unloaded now" in said
    wait_until(lambda: not fleet.residents(), "the instance to be gone")
    nothing = fleet.system.cli("apps", "unload", REF, check=False)
    assert (nothing.returncode, "Nothing is loaded at all" in nothing.stderr) == (2, True)
    nowhere = fleet.system.cli("apps", "warm", REF, "--workers", "nowhere", check=False)
    assert (nowhere.returncode, "workers: 'nowhere' unknown; known: " in nowhere.stderr) == (2, True)
    failed = fleet.system.cli("apps", "warm", REF, "--setup", "broken=true", check=False)
    assert (failed.returncode, "there is no such model" in failed.stderr) == (1, True)


def test_keep_alive_ends_an_idle_instance(fleet):
    fleet.run(model="kept")
    assert len(fleet.residents()) == 1
    answer = fleet.system.cli("apps", "keep", REF, "0").stdout
    assert "0 s after its last task" in answer
    wait_until(lambda: not fleet.residents(), f"its end; {fleet.system.complaints()}")
    fleet.run(model="kept")
    wait_until(lambda: not fleet.residents(), f"its end; {fleet.system.complaints()}")
    assert "as its inf.yml says" in fleet.system.cli("apps", "keep", REF, "default").stdout


def test_a_pin_that_cannot_be_satisfied_says_why(fleet):
    ask = fleet.ask
    unknown = ask("POST", "/pins", json={"app": REF, "setup": {"model": "a"}, "workers": ["nowhere"]})
    broken = ask("POST", "/pins", json={"app": REF, "setup": {"broken": True}})
    many = ask("POST", "/pins", json={"app": REF, "setup": {"model": "b"}, "copies": 3})

    def reason(pin, *texts):
        def said():
            found = fleet.pins()[pin["id"]]["reason"] or ""
            return all(text in found for text in texts)

        wait_until(said, f"{texts}; {fleet.pins()}")

    reason(unknown, "workers: ['nowhere'] is unknown; known: ")
    reason(broken, "there is no such model", "It is tried again in ~")
    reason(many, "3 copies are wanted, and 2 workers can hold one each")
    ask("DELETE", f"/pins/{unknown['id']}")
    full = ask("POST", "/pins", json={"app": REF, "setup": {"model": "c"}})
    reason(full, "holds 1 of at most 1 instances; 1 of them are pinned")
    refused = fleet.http.post("/apps/unload", json={"app": REF, "setup": {"model": "b"}})
    assert (refused.status_code, "stoker apps unpin" in refused.json()["detail"]) == (409, True)
    measured = fleet.http.get("/metrics").text
    assert 'stoker_pins{state="waiting"} 3' in measured
    assert "tests/pinned (pinned)" in fleet.system.cli("workers", "list").stdout
    shown = fleet.system.cli("apps", "pins").stdout
    assert "there is no such model" in shown
    assert "2/3" in shown


def test_a_pin_goes_with_the_current_version(fleet):
    made = fleet.ask("POST", "/pins", json={"app": REF})
    fleet.pinned(made["id"], state="loaded")
    folder = fleet.system.data_dir.parent / "pinned"
    (folder / "inference.py").write_text(APP + "\n# changed\n")
    fleet.system.cli("apps", "deploy", str(folder))
    assert fleet.pins()[made["id"]]["app_version_id"] != made["app_version_id"]
    fleet.pinned(made["id"], state="loaded")
    _, loaded = fleet.run()
    assert not loaded


def test_a_pin_goes_with_the_secret_of_whoever_pinned_it(fleet):
    made = fleet.ask("POST", "/pins", json={"app": REF})
    fleet.pinned(made["id"], state="loaded")
    fleet.ask("PUT", "/secrets/PINNED_SECRET", json={"value": "another-value"})
    fleet.pinned(made["id"], state="loaded")
    output, loaded = fleet.run()
    assert (output["secret"], loaded) == ("another-value", False)
    fleet.ask("PUT", "/secrets/PINNED_SECRET", json={"value": "s3cret-value"})


def test_pins_need_the_scope_of_whoever_runs_machines_and_are_recorded(fleet):
    made = fleet.ask("POST", "/apikeys", json={"name": "runs", "scopes": ["apps:read", "apps:execute"]})
    with fleet.system.client(made["key"]) as runner:
        assert runner.post("/pins", json={"app": REF}).status_code == 403
        assert runner.post("/apps/unload", json={"app": REF}).status_code == 403
        assert runner.post("/loads", json={"app": REF, "copies": 5000}).status_code == 400
    pin = fleet.ask("POST", "/pins", json={"app": REF})
    again = fleet.ask("POST", "/pins", json={"app": REF, "copies": 2})
    assert (again["id"], again["copies"]) == (pin["id"], 2)
    fleet.ask("DELETE", f"/pins/{pin['id']}")
    fleet.ask("DELETE", f"/pins/{pin['id']}", status=404)
    recorded = [change["action"] for change in fleet.ask("GET", "/audit")["items"]]
    assert recorded[:3] == ["app.unpinned", "app.pinned", "app.pinned"]
