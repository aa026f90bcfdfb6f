"""Apps by the command line, on a whole system: deploy, versions, pull, remove, and what goes wrong."""

import json

import pytest
from helpers import EXAMPLES, TEST_APPS, wait_until

INFERENCE = """
from pydantic import BaseModel


class AppInput(BaseModel):
    text: str = "x"


class AppOutput(BaseModel):
    text: str


class App:
    async def run(self, input_data: AppInput) -> AppOutput:
        return AppOutput(text=input_data.text + "SUFFIX")
"""


@pytest.fixture
def folder(tmp_path):
    """A function that writes an app and gives its folder; `suffix` is what the app adds to its input."""

    def write(name="words", suffix="!", **manifest):
        path = tmp_path / name
        path.mkdir(exist_ok=True)
        lines = {"name": name, "namespace": "tests", "kernel": "python-3.11", "description": "d"} | manifest
        text = json.dumps(lines | {"resources": {"gpu": {"count": 0, "vram": 0, "type": "none"}, "ram": 0}})
        (path / "inf.yml").write_text(text)
        (path / "inference.py").write_text(INFERENCE.replace("SUFFIX", suffix))
        return path

    return write


def run(system, ref, **values):
    return system.cli_json("run", ref, "--input", json.dumps(values))


def deploy(system, path, *options):
    [result] = system.cli_json("apps", "deploy", str(path), *options)
    return result


@pytest.mark.long
def test_a_version_goes_from_deploy_to_removal(system, folder, tmp_path):
    first = deploy(system, folder(suffix="1"))
    assert first["ref"].startswith("tests/words@")
    assert (first["changed"], first["current"], first["functions"]) == (True, True, ["run"])
    again = deploy(system, folder(suffix="1"))
    assert (again["changed"], again["version_id"]) == (False, first["version_id"])
    second = deploy(system, folder(suffix="2"), "--stage")
    assert (second["changed"], second["current"]) == (True, False)
    assert run(system, "tests/words", text="a")["output"]["text"] == "a1"
    assert run(system, second["ref"], text="a")["output"]["text"] == "a2"
    assert system.cli_json("apps", "use", second["ref"])["version_id"] == second["version_id"]
    assert run(system, "tests/words@latest", text="a")["output"]["text"] == "a2"
    back = deploy(system, folder(suffix="1"))  # what is there is used again
    assert (back["changed"], back["current"]) == (False, True)
    assert run(system, "words:run", text="a")["output"]["text"] == "a1"

    listed = system.cli_json("apps", "versions", "tests/words")
    assert [item["id"] for item in listed["items"]] == [second["version_id"], first["version_id"]]
    assert listed["version_id"] == first["version_id"]
    shown = system.cli_json("apps", "show", second["ref"])
    assert shown["version"]["id"] == second["version_id"]
    assert system.cli_json("apps", "sample", "words") == {}

    pulled = system.cli_json("apps", "pull", second["ref"], str(tmp_path / "pulled"))
    assert "2" in (tmp_path / "pulled" / "inference.py").read_text()
    assert pulled["ref"] == second["ref"]
    assert deploy(system, tmp_path / "pulled", "--dry-run")["version_id"] == second["version_id"]

    refused = system.cli("apps", "remove", first["ref"], "--yes", check=False)
    assert refused.returncode == 2
    assert "is the current one" in refused.stderr
    assert system.cli_json("apps", "remove", second["ref"])["removed"] == second["ref"]
    assert len(system.cli_json("apps", "versions", "tests/words")["items"]) == 1
    assert system.cli_json("apps", "remove", "tests/words")["removed"] == "tests/words"
    gone = system.cli("run", "tests/words", check=False)
    assert (gone.returncode, "App not found" in gone.stderr) == (2, True)


def test_every_finding_is_told_at_once(system, folder):
    path = folder("broken", kernel="python-2.7", env={"a b": "1"}, colour="red")
    (path / "inference.py").write_text("class Apps:\n    pass\n")
    (path / "helper.py").symlink_to("../nowhere.py")
    done = system.cli("apps", "deploy", str(path), "--json", check=False)
    assert done.returncode == 2
    [result] = json.loads(done.stdout)
    found = {(finding["severity"], finding["file"]) for finding in result["findings"]}
    assert {("error", "inf.yml"), ("warning", "inf.yml"), ("error", "helper.py")} <= found
    text = json.dumps(result["findings"])
    assert "python-2.7" in text
    assert "'a b'" in text
    assert "colour" in text
    assert "nowhere.py" in text


def test_the_build_log_is_shown_when_the_build_fails(system, folder):
    path = folder("unbuildable")
    (path / "requirements.txt").write_text("./no-such-wheel-1.0-py3-none-any.whl\n")
    done = system.cli("apps", "deploy", str(path), check=False)
    assert done.returncode == 2
    assert "no-such-wheel" in done.stderr
    path = folder("unimportable")
    (path / "inference.py").write_text('print("look here")\nimport no_such_module\n\n' + INFERENCE)
    done = system.cli("apps", "deploy", str(path), check=False)
    assert "look here" in done.stderr
    assert "No module named 'no_such_module'" in done.stderr


def test_a_name_and_who_may_see_it_can_be_chosen(system, folder):
    result = deploy(system, folder("plain"), "--name", "others/better", "--public")
    assert result["app"] == "others/better"
    assert system.cli_json("apps", "show", "better")["visibility"] == "public"
    deploy(system, folder("plain"), "--name", "others/better", "--private")
    assert system.cli_json("apps", "show", "better")["visibility"] == "private"


def test_names_alone_must_be_unique_and_candidates_are_told(system, folder):
    for namespace in ("one", "two"):
        deploy(system, folder("twin"), "--name", f"{namespace}/twin")
    several = system.cli("run", "twin", check=False).stderr
    assert "one/twin, two/twin" in several
    assert "did you mean one/twin" in system.cli("run", "one/twins", check=False).stderr
    assert run(system, "two/twin", text="a")["output"]["text"] == "a!"


def test_two_folders_of_one_name_are_not_deployed_over_each_other(system):
    folder = TEST_APPS / "traps" / "twins"
    refused = system.cli("apps", "deploy", str(folder), check=False)
    assert refused.returncode == 2
    assert "traps/twin" in refused.stderr
    assert str(folder / "one") in refused.stderr
    assert str(folder / "two") in refused.stderr
    assert "--name" in refused.stderr
    assert system.cli("apps", "show", "traps/twin", check=False).returncode != 0, "nothing was deployed"
    for name in ("one", "two"):
        deploy(system, folder / name, "--name", f"traps/{name}")
        assert run(system, f"traps/{name}")["output"] == name


def test_a_folder_of_folders_deploys_each(system, folder, tmp_path):
    folder("first", "1")
    folder("second", "2")
    results = system.cli_json("apps", "deploy", str(tmp_path))
    assert [result["app"] for result in results] == ["tests/first", "tests/second"]
    assert run(system, "tests/second", text="a")["output"]["text"] == "a2"


def test_what_a_run_leaves_out_has_its_default_in_the_app_and_what_it_adds_is_kept(system, folder):
    deploy(system, folder("defaults"))
    task = run(system, "tests/defaults", more=1)
    with system.client() as http:
        stored = http.get(f"/tasks/{task['id']}").json()["data"]
    assert stored["input"] == {"more": 1}, "as it was sent: an app can tell what its caller set"
    assert task["output"]["text"] == "x!"


@pytest.mark.long
@pytest.mark.parametrize("template", ["basic", "files", "setup", "stream"])
def test_a_new_app_runs_and_deploys_as_it_is(system, tmp_path, monkeypatch, template):
    monkeypatch.chdir(tmp_path)
    name = f"new-{template}"
    assert system.cli_json("apps", "init", name, "--template", template)["folder"] == name
    values = f"@{name}/input.json"
    tried = system.cli_json("apps", "test", name, "--input", values, "--save", str(tmp_path / "out"))
    assert tried["state"] == "completed", tried
    assert set(tried["took_s"]) == {"preparing", "serving", "setting_up", "running"}
    result = deploy(system, tmp_path / name)
    assert result["findings"] == []
    task = system.cli_json("run", result["ref"], "--input", values)
    if template == "files":
        assert (tmp_path / "out" / "upper.txt").read_text() == "HELLO"
        assert task["output"]["characters"] == tried["output"]["characters"] == 5
    else:
        assert tried["output"].items() <= task["output"].items()
    sampled = system.cli_json("apps", "sample", result["ref"])
    assert sampled == json.loads((tmp_path / name / "input.json").read_text())


def test_trying_an_app_tells_how_it_failed(system, folder):
    path = folder("failing")
    code = INFERENCE.replace(
        "return", 'raise RuntimeError("no luck with " + input_data.text)\n        return'
    )
    (path / "inference.py").write_text(code)
    done = system.cli("apps", "test", str(path), "--input", "text=this", "--json", check=False)
    assert (done.returncode, json.loads(done.stdout)["error"]) == (1, "no luck with this")
    wrong = system.cli("apps", "test", str(path), "--input", "text=[1]", check=False)
    assert (wrong.returncode, "text: [1] is not of type" in wrong.stderr) == (2, True)
    other = system.cli("apps", "test", str(path), "--function", "other", check=False)
    assert (other.returncode, "'other' is no function of the app; it has run" in other.stderr) == (2, True)


def test_tasks_of_a_removed_app_still_run(system):
    """Some run, some wait behind them; none has its code before it is removed for all others."""
    slow = EXAMPLES / "slow"
    deploy(system, slow, "--name", "tests/leaving")
    with system.client() as http:
        body = {"app": "tests/leaving", "infra": "private", "input": {"seconds": 1.5, "lines": 3}}
        tasks = [http.post("/apps/run", json=body).json()["data"] for _ in range(4)]
        app_id = http.get("/apps/tests/leaving").json()["data"]["id"]
        assert http.delete(f"/apps/{app_id}").status_code == 200
        assert http.post("/apps/run", json=body).status_code == 404
        for task in tasks:
            ended = wait_ended(http, task["id"])
            assert ended["error"] in ("", None), ended


def wait_ended(http, task_id):
    def look():
        task = http.get(f"/tasks/{task_id}").json()["data"]
        return task if task["output"] is not None or task["error"] else None

    return wait_until(look, f"the end of task {task_id}")


def test_a_run_may_name_a_machine_or_one_of_its_workers(system):
    system.deploy(EXAMPLES / "plain")
    with system.client() as http:
        [engine] = http.get("/engines").json()["data"]["items"]
        workers = [worker["id"] for worker in engine["workers"]]
        for wanted, allowed in (([engine["name"]], workers), ([workers[-1]], workers[-1:])):
            body = {"app": "examples/plain", "infra": "private", "input": {}, "workers": wanted}
            task = http.post("/apps/run", json=body).raise_for_status().json()["data"]
            assert wait_ended(http, task["id"])["worker_id"] in allowed
