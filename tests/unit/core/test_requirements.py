"""What an app asks for, what is missing of it, and what that does to the setup key."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stoker.core.errors import InvalidRequest
from stoker.core.messages import IntegrationNeed, Secret, SecretNeed
from stoker.core.requirements import (
    MAX_VALUE_BYTES,
    check_name,
    check_value,
    decide_missing,
    masked,
    secrets_digest,
    variables_of,
    wanted,
)


def need(key, **fields):
    return SecretNeed(key=key, **fields)


def secret(key="A", number="1", version=1, **fields):
    return Secret(id=number, owner_id="ann", key=key, version=version, revision="r", **fields)


@pytest.mark.parametrize("name", ["FAL_KEY", "_x", "a", "HF_TOKEN", "X" * 128, "PATHS", "KEY_LD_"])
def test_names_of_variables_are_taken(name):
    assert name == check_name(name)


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=B", "Ä", "X" * 129, "A\n", "A\0"])
def test_what_is_no_name_is_refused(name):
    with pytest.raises(InvalidRequest, match="no name of an environment variable"):
        check_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "PATH",
        "path",
        "HOME",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "DYLD_INSERT_LIBRARIES",
        "PYTHONPATH",
        "PYTHONHOME",
        "PYTHONSTARTUP",
        "STOKER_REDIS_URL",
        "stoker_api_key",
        "BASH_ENV",
        "IFS",
        "NODE_OPTIONS",
        "TMPDIR",
        "CUDA_VISIBLE_DEVICES",
        "LC_ALL",
        "SSLKEYLOGFILE",
    ],
)
def test_a_variable_that_changes_how_processes_run_cannot_be_a_secret(name):
    with pytest.raises(InvalidRequest, match="changes how processes run"):
        check_name(name)


@pytest.mark.parametrize("value", ["x", "ä" * (MAX_VALUE_BYTES // 2), "two\nlines", "x" * MAX_VALUE_BYTES])
def test_what_an_environment_can_hold_is_taken(value):
    assert value == check_value(value)


@pytest.mark.parametrize("value", ["", "ä" * (MAX_VALUE_BYTES // 2) + "x", "hidden\0part", "hidden\ud800"])
def test_what_it_cannot_hold_is_refused_without_being_shown(value):
    with pytest.raises(InvalidRequest) as refusal:
        check_value(value)
    assert "hidden" not in refusal.value.message


@given(st.text(min_size=1, max_size=80))
def test_a_masked_value_shows_four_characters_of_a_long_one_at_most(value):
    shown = masked(value).removeprefix("********")
    assert len(shown) <= 4
    assert not shown or len(value) >= 20


def test_required_ones_that_are_missing_are_told_with_what_to_do():
    [entry] = decide_missing(
        [need("FAL_KEY", description="key of fal.ai."), need("B", optional=True)], (), ["C"]
    )
    assert (entry["type"], entry["key"], entry["action"]) == ("secret", "FAL_KEY", {"type": "add_secret"})
    assert entry["message"] == (
        "The app needs the secret FAL_KEY (key of fal.ai), which is missing. "
        "Add it: stoker secrets set FAL_KEY, or POST /secrets."
    )


def test_nothing_is_missing_when_all_is_there():
    assert decide_missing([need("A")], [IntegrationNeed(key="x.tweet.read")], ["A", "X_ACCESS_TOKEN"]) == ()


def test_an_integration_is_what_its_variables_are():
    gcp = IntegrationNeed(key="gcp.vertex_ai")
    [entry] = decide_missing((), [gcp, IntegrationNeed(key="x", optional=True)], ["GCP_ACCESS_TOKEN"])
    assert (entry["type"], entry["action"]) == ("integration", {"type": "connect", "provider": "gcp"})
    assert "GCP_PROJECT_NUMBER" in entry["message"]
    assert "GCP_ACCESS_TOKEN" not in entry["message"]


@pytest.mark.parametrize(
    ("integration", "names"),
    [
        (IntegrationNeed(key="google.gmail.send"), ("GOOGLE_OAUTH_ACCESS_TOKEN",)),
        (IntegrationNeed(key="discord.bot"), ("DISCORD_BOT_TOKEN",)),
        (IntegrationNeed(key="my-crm.read"), ("MY_CRM_ACCESS_TOKEN",)),
        (IntegrationNeed(key="x.post", secrets=("ONE", "TWO")), ("ONE", "TWO")),
    ],
)
def test_variables_of_an_integration(integration, names):
    assert names == variables_of(integration)


def test_a_variable_is_wanted_once_and_required_when_anything_requires_it():
    integrations = [IntegrationNeed(key="x", optional=True), IntegrationNeed(key="own", secrets=("A",))]
    assert wanted([need("A", optional=True), need("B", description="b")], integrations) == (
        need("A"),
        need("B"),
        need("X_ACCESS_TOKEN", optional=True),
    )


def test_no_secrets_add_nothing_to_the_setup_key():
    assert secrets_digest("ann", {}) == ""


def test_owner_name_secret_and_version_each_make_another_digest():
    digests = {
        secrets_digest("ann", {"A": secret()}),
        secrets_digest("bob", {"A": secret()}),
        secrets_digest("ann", {"B": secret()}),
        secrets_digest("ann", {"A": secret(number="2")}),
        secrets_digest("ann", {"A": secret(version=2)}),
        secrets_digest("ann", {"A": secret(), "B": secret()}),
    }
    assert len(digests) == 6


def test_the_digest_depends_on_nothing_else():
    plain = secrets_digest("ann", {"A": secret("A"), "B": secret("B")})
    again = {"B": secret("B", sealed="other", description="other"), "A": secret("A", sealed_by="other key")}
    assert plain == secrets_digest("ann", again)
