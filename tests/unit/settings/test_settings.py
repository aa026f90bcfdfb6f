"""Where a value comes from, and what is said of a wrong one."""

import socket
from pathlib import Path

import pytest

from stoker import server_address, settings
from stoker.settings import (
    ALL_SETTINGS,
    GatewaySettings,
    InvalidSettings,
    JobsSettings,
    SchedulerSettings,
    UpSettings,
    WorkerSettings,
    load,
    origins,
)


@pytest.fixture(autouse=True)
def bare(monkeypatch, tmp_path):
    """No setting from outside, and an empty working directory."""
    for name in list(settings.os.environ):
        if name.startswith("STOKER_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)


def test_a_flag_beats_the_environment_which_beats_the_file_which_beats_the_default(monkeypatch, tmp_path):
    assert load(GatewaySettings).port == 8787
    (tmp_path / "stoker.yml").write_text("port: 1001\n")
    assert load(GatewaySettings).port == 1001
    monkeypatch.setenv("STOKER_PORT", "1002")
    assert load(GatewaySettings).port == 1002
    assert load(GatewaySettings, {"port": 1003, "host": None}).port == 1003


def test_origins_name_the_source_of_each_value(monkeypatch, tmp_path):
    (tmp_path / "stoker.yml").write_text("pool: gpus\nport: 1\n")
    monkeypatch.setenv("STOKER_PORT", "2")
    found = origins(GatewaySettings, {"host": "::1"})
    assert found["host"] == "flag"
    assert found["port"] == "environment STOKER_PORT"
    assert found["pool"] == "file stoker.yml"
    assert found["rate_run"] == "default"


@pytest.mark.parametrize("name", ["cache_dir", "spool_dir", "data_dir", "port"])
def test_an_empty_variable_says_nothing(monkeypatch, name):
    """An empty path would be the working directory, and a cache removes what it does not know there."""
    plain = load(WorkerSettings) if name != "port" else load(GatewaySettings)
    monkeypatch.setenv(f"STOKER_{name.upper()}", "")
    assert getattr(load(type(plain)), name) == getattr(plain, name)
    assert origins(type(plain))[name] == "default"


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (WorkerSettings, "cache_dir"),
        (WorkerSettings, "spool_dir"),
        (WorkerSettings, "data_dir"),
        (UpSettings, "examples"),
        (JobsSettings, "secrets_key_file"),
    ],
)
def test_an_empty_path_in_the_file_is_refused(tmp_path, kind, name):
    (tmp_path / "stoker.yml").write_text(f'{name}: ""\n')
    with pytest.raises(InvalidSettings, match=f"{name}: must not be empty"):
        load(kind)


PATHS = {
    GatewaySettings: ("tls_cert_file", "tls_key_file", "ca_file", "redis_cert_file", "redis_key_file"),
    UpSettings: ("tls_cert_file", "tls_key_file", "examples"),
    WorkerSettings: ("data_dir", "cache_dir", "spool_dir"),
    JobsSettings: ("secrets_key_file",),
}


@pytest.mark.parametrize(("kind", "names"), PATHS.items())
@pytest.mark.parametrize("folder", ["~/", ""])
def test_a_path_is_absolute_and_has_no_tilde(monkeypatch, tmp_path, kind, names, folder):
    """uvicorn and others open what they are given: ~/cert.pem was a file to us and none to them."""
    for name in names:
        (tmp_path / name).touch()
        monkeypatch.setenv(f"STOKER_{name.upper()}", f"{folder}{name}")
    loaded = load(kind)
    assert {name: getattr(loaded, name) for name in names} == {name: tmp_path / name for name in names}


def test_every_path_of_the_settings_is_tested_for_that():
    tested = {name for names in PATHS.values() for name in names}
    found = {
        name
        for kind in ALL_SETTINGS
        for name, field in kind.model_fields.items()
        if "Path" in str(field.annotation)
    }
    assert found == tested


def test_a_home_that_this_machine_does_not_know_is_told(tmp_path):
    (tmp_path / "stoker.yml").write_text("data_dir: ~nobody-of-this-name/x\n")
    with pytest.raises(InvalidSettings, match=r"data_dir: .*home"):
        load(WorkerSettings)


def test_the_workers_part_has_the_shape_of_engine_yml(tmp_path):
    (tmp_path / "stoker.yml").write_text(
        "workers:\n  gpu:\n    - gpus: [0]\n    - gpus: [1, 2]\n  cpu:\n    count: 3\n"
    )
    slots = load(WorkerSettings).workers
    assert [slot.gpus for slot in slots.gpu] == [(0,), (1, 2)]
    assert slots.cpu.count == 3


def test_the_environment_adds_to_the_workers_of_the_file(monkeypatch, tmp_path):
    (tmp_path / "stoker.yml").write_text("workers: {gpu: [{gpus: [0]}]}\n")
    monkeypatch.setenv("STOKER_WORKERS", '{"cpu": {"count": 1}}')
    slots = load(WorkerSettings).workers
    assert slots.gpu[0].gpus == (0,)
    assert slots.cpu.count == 1


@pytest.mark.parametrize(
    ("kind", "environment", "said"),
    [
        (GatewaySettings, {"STOKER_PORT": "abc"}, ["port", "'abc'", "environment STOKER_PORT"]),
        (GatewaySettings, {"STOKER_PORT": "70000"}, ["port", "65535", "'70000'"]),
        (GatewaySettings, {"STOKER_PUBLIC_URL": "ftp://x"}, ["public_url", "http://"]),
        (GatewaySettings, {"STOKER_POOL": "a:b"}, ["pool", "'a:b'"]),
        (WorkerSettings, {"STOKER_WORKERS": "{"}, ["environment", "workers"]),
        (
            SchedulerSettings,
            {"STOKER_QUEUE_TIMEOUT_S": "60"},
            ["no_match_timeout_s (600)", "queue_timeout_s (60)"],
        ),
    ],
)
def test_a_wrong_value_is_named_with_what_was_found(monkeypatch, kind, environment, said):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings) as caught:
        load(kind)
    for words in said:
        assert words in caught.value.message


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot: 1", "unknown names: prot"),
        ("- 1", "must be a mapping"),
        ("a: [", "cannot read the settings file"),
    ],
)
def test_a_wrong_file_is_named(tmp_path, text, said):
    (tmp_path / "stoker.yml").write_text(text)
    with pytest.raises(InvalidSettings, match=said):
        load(GatewaySettings)


def test_a_named_file_that_is_not_there_is_an_error(monkeypatch):
    monkeypatch.setenv("STOKER_CONFIG", "/nowhere/stoker.yml")
    with pytest.raises(InvalidSettings, match="/nowhere/stoker"):
        load(GatewaySettings)


def test_every_field_has_a_default_and_one_sentence():
    for kind in ALL_SETTINGS:
        for name, field in kind.model_fields.items():
            assert not field.is_required(), name
            assert (field.description or "").endswith("."), f"{kind.__name__}.{name}"


def test_typing_errors_in_the_environment_are_found(monkeypatch):
    monkeypatch.setenv("STOKER_PROT", "1")
    monkeypatch.setenv("STOKER_PORT", "1")
    assert settings.unknown_variables() == ["STOKER_PROT"]


@pytest.mark.parametrize(
    ("name", "plain"), [("data", True), ("a b", False), ("a=b", False), ("x" * 120, False), ("ü", False)]
)
def test_the_socket_has_a_path_that_every_tool_can_read(name, plain):
    path = server_address.redis_socket(Path("/srv") / name)
    assert (path.parent.name == name) is plain
    assert len(str(path)) <= server_address.SOCKET_PATH_MAX
    assert server_address.PLAIN_PATH.fullmatch(str(path))


def test_two_data_directories_have_two_sockets():
    assert server_address.redis_socket(Path("/srv/a b")) != server_address.redis_socket(Path("/srv/a c"))


def test_the_store_is_the_named_one_else_the_embedded_one(tmp_path):
    assert load(UpSettings, {"redis_url": "redis://db:1"}).store_url == "redis://db:1"
    assert load(UpSettings, {"data_dir": "/srv/data"}).store_url == "unix:///srv/data/redis.sock"


def test_the_data_directory_is_absolute(tmp_path):
    assert load(UpSettings, {"data_dir": "here"}).data_dir == tmp_path / "here"
    assert load(UpSettings, {"data_dir": "~/x"}).data_dir == tmp_path / "x"


def test_an_engine_is_named_for_its_host_and_safely(monkeypatch):
    monkeypatch.setattr(socket, "gethostname", lambda: "GPU Box:1.example.org")
    assert load(WorkerSettings).engine_name == "gpu-box-1"
    assert load(WorkerSettings, {"name": "Über:all"}).engine_name == "ber-all"


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        (WorkerSettings, "STOKER_APP_ENV", '{"A_TOKEN": ["hidden-value"]}'),
        (WorkerSettings, "STOKER_APP_ENV", "hidden-value"),
    ],
)
def test_a_wrong_value_of_a_secret_setting_is_not_shown(monkeypatch, kind, name, value):
    monkeypatch.setenv(name, value)
    with pytest.raises(InvalidSettings) as refusal:
        load(kind)
    assert "hidden-value" not in refusal.value.message
    assert "app_env" in refusal.value.message


def test_variables_of_the_operator_are_read_from_the_settings_file_and_not_printed(monkeypatch):
    Path("stoker.yml").write_text("app_env: {HF_TOKEN: hidden-value}\nsecrets_key: hidden-key\n")
    found = load(WorkerSettings)
    assert {name: value.get_secret_value() for name, value in found.app_env.items()} == {
        "HF_TOKEN": "hidden-value"
    }
    assert "hidden" not in f"{found!r} {found} {load(GatewaySettings)!r}"


@pytest.mark.parametrize(
    ("kind", "variable"),
    [(GatewaySettings, "STOKER_FILES_URL"), (GatewaySettings, "STOKER_WORKER_REDIS_URL")],
)
def test_a_wrong_address_is_shown_without_its_password(monkeypatch, kind, variable):
    monkeypatch.setenv(variable, "nothing://me:hidden@host/rest")
    with pytest.raises(InvalidSettings) as error:
        load(kind)
    assert "'nothing://...@host/rest'" in error.value.message


@pytest.mark.parametrize(
    "text",
    ['secrets_key: "hidden\n', "secrets_key: [hidden, a: b: c]", "a:\n  K: hidden\n\tB: 1", "k: *hidden"],
)
def test_a_mistake_in_the_settings_file_is_named_without_the_line(tmp_path, text):
    (tmp_path / "stoker.yml").write_text(text)
    with pytest.raises(InvalidSettings, match=r"cannot read .* in line \d+, column \d+") as error:
        load(GatewaySettings)
    assert "hidden" not in error.value.message
    assert error.value.__suppress_context__


def test_redis_may_be_a_primary_with_sentinels_or_a_cluster(monkeypatch):
    monkeypatch.setenv("STOKER_REDIS_URL", "redis+sentinel://u:p@a,b/prim")
    assert load(JobsSettings).jobs_url == "redis+sentinel://u:p@a,b/prim"
    monkeypatch.setenv("STOKER_REDIS_URL", "rediss+cluster://a,b")
    assert load(SchedulerSettings).store_url == "rediss+cluster://a,b"
    with pytest.raises(InvalidSettings, match="RQ does not run on Redis Cluster"):
        load(JobsSettings)
    monkeypatch.setenv("STOKER_JOBS_REDIS_URL", "redis://c")
    assert load(JobsSettings).jobs_url == "redis://c"


@pytest.mark.parametrize("url", ["unix:///x", "redis+cluster://a", "redis://u@a", "redis+sentinel://a"])
def test_machines_that_join_get_an_address_that_they_can_use(monkeypatch, url):
    monkeypatch.setenv("STOKER_WORKER_REDIS_URL", url)
    with pytest.raises(InvalidSettings):
        load(GatewaySettings)
    monkeypatch.setenv("STOKER_WORKER_REDIS_URL", "rediss+sentinel://a,b/prim")
    assert load(GatewaySettings).worker_redis_url == "rediss+sentinel://a,b/prim"


@pytest.mark.parametrize("url", ["http://h", "redis+sentinel://h", "h:6379"])
def test_an_address_of_redis_in_no_known_form_is_told(monkeypatch, url):
    monkeypatch.setenv("STOKER_REDIS_URL", url)
    with pytest.raises(InvalidSettings, match="redis_url"):
        load(SchedulerSettings)
