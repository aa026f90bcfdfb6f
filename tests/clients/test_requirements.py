"""A run that lacks a secret, as each official client tells it; and the secrets of the JavaScript client."""

import pytest
from clients.plans import task
from clients.sdks import Sdk
from clients.test_every_client import CLIENTS
from helpers import TEST_APPS

pytestmark = pytest.mark.timeout(150)

JS = Sdk("js", "0.6.54")
MESSAGE = (
    "The app needs the secret API_TOKEN (the token of a service), which is missing. "
    "Add it: stoker secrets set API_TOKEN, or POST /secrets."
)


@pytest.fixture(scope="module")
def system_with_secretive(system_with_apps):
    system_with_apps.deploy(TEST_APPS / "secretive")
    return system_with_apps


@pytest.mark.parametrize("sdk", CLIENTS, ids=str)
def test_a_run_that_lacks_a_secret_raises_the_clients_own_exception(sdk, system_with_secretive):
    steps = [
        {"name": "run", "do": "run", "params": task("tests/secretive", do="tell")},
        {"name": "stream", "do": "stream", "params": task("tests/secretive", do="tell")},
    ]
    system = system_with_secretive
    facts = sdk.drive(steps, system.base_url, system.bench_key)
    for name in ("run", "stream"):
        error = facts[name]["error"]
        expected = "RequirementsNotMetException" if sdk.language == "js" else "RequirementsNotMetError"
        assert (error["type"], error["text"]) == (expected, MESSAGE)
        [entry] = error["errors"]
        assert (entry["type"], entry["key"], entry["message"], entry["action"]) == (
            "secret",
            "API_TOKEN",
            MESSAGE,
            "add_secret",
        )


@pytest.mark.parametrize(
    "headers", [{}, {"X-API-Version": "2"}, {"User-Agent": "inference-sdk-py/0.36.0"}], ids=str
)
@pytest.mark.parametrize("path", ["/run", "/apps/run", "/compat/v2/apps/run"])
def test_the_body_is_the_same_in_every_dialect(system_with_secretive, path, headers):
    with system_with_secretive.client(**headers) as http:
        answer = http.post(path, json=task("tests/secretive", do="tell"))
    assert answer.status_code == 412
    assert set(answer.json()) == {"satisfied", "errors"}
    assert answer.json()["satisfied"] is False


def test_the_javascript_client_keeps_secrets(system_with_secretive):
    system = system_with_secretive
    step = {"name": "all", "do": "secrets", "key_name": "FROM_JS", "value": "abcdefghijklmnopqrstuvwxyz"}
    facts = JS.drive([step], system.base_url, system.bench_key)["all"]
    assert "error" not in facts, facts
    assert data_of(facts["created"])["masked_value"] == "********wxyz"
    assert [secret["key"] for secret in items_of(facts["listed"])] == ["FROM_JS"]
    assert data_of(facts["updated"])["version"] == 2
    assert facts["revealed"] == {"failed": 403}
    assert items_of(facts["left"]) == []


def data_of(answer):
    return answer.get("data", answer) if isinstance(answer, dict) else answer


def items_of(answer):
    found = data_of(answer)
    return found["items"] if isinstance(found, dict) else found
