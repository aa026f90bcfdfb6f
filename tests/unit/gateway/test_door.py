import pytest

from stoker_gateway.door import is_open, plain_path, rate_kind


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/tasks/x", ("/tasks/x", False)),
        ("//apps//run", ("/apps/run", False)),
        ("/v1/run", ("/run", False)),
        ("/compat/v2/apps/run", ("/apps/run", True)),
        ("/compat/v2//apps/run", ("/apps/run", True)),
        ("/compat/v2/v1/run", ("/run", True)),
        ("/v1", ("/v1", False)),
    ],
)
def test_base_url_prefixes_are_taken_off(path, expected):
    assert plain_path(path) == expected


@pytest.mark.parametrize(
    "path", ["/health", "/files/i/secret/n.png", "/upload/i", "/internal/tasks/t/bundle"]
)
def test_addresses_with_a_secret_of_their_own_need_no_key(path):
    assert is_open(path)


@pytest.mark.parametrize("path", ["/files/i", "/files", "/tasks/t", "/apikeys", "/engines", "/files/list"])
def test_everything_else_needs_one(path):
    assert not is_open(path)


@pytest.mark.parametrize(
    ("method", "path", "kind"),
    [("POST", "/run", "run"), ("POST", "/apps/run", "run"), ("POST", "/files", "upload"), ("GET", "/files", "get"),
     ("POST", "/webhooks/test", "run"), ("POST", "/tasks/x/retry", "run"), ("POST", "/tasks/list", "get"), ("DELETE", "/tasks/x", "get"),
     ("POST", "/apps/run/", "run"), ("POST", "/files/", "upload"), ("POST", "/agents/run", "run"), ("POST", "/chats/x/messages", "run"),
     ("GET", "/chats/x/messages", "get"), ("POST", "/chats/x/stop", "get"), ("POST", "/flowruns", "run"), ("GET", "/flowruns", "get"),
     ("POST", "/flowruns/x/clone", "run"), ("POST", "/flowruns/x/cancel", "get"), ("POST", "/flowruns/list", "get"),
     ("POST", "/chat/completions", "run"), ("POST", "/models/openai/chat/completions", "run"),
     ("POST", "/webhooks/deliveries/x/replay", "run"), ("POST", "/webhooks/secret", "get")],
)  # fmt: skip
def test_requests_count_against_their_limit(method, path, kind):
    assert rate_kind(method, path) == kind
