"""Who may do what: every route with a key that has its scope, and with one that has all others."""

import asyncio
import json
import re
import time

import pytest
from gateways import gateway_settings, running
from helpers import EXAMPLES
from msgspec import structs
from protocol_scene import request, spec
from typer.testing import CliRunner

from stoker.core.messages import Owner
from stoker.core.scopes import PRESETS, Scope
from stoker_cli.main import app as cli
from stoker_gateway.access import SCHEME
from stoker_gateway.door import is_open
from stoker_gateway.problems import media_type_at
from stoker_gateway.routes.keys import NewKey, make_key

OPEN = {
    "GET /health",
    "GET /ready",
    "GET /metrics",
    "GET /files/{file_id}/{secret}/{name}",
    "HEAD /files/{file_id}/{secret}/{name}",
    "PUT /upload/{file_id}",
    "HEAD /upload/{file_id}",
    "PATCH /upload/{file_id}",
}
"""What needs no key: it tells nothing of anybody, or its address carries a secret."""
METHODS = {"get", "head", "post", "put", "patch", "delete"}
RATES = {"run": 0, "get": 0, "upload": 0}


@pytest.fixture
async def gateway(tmp_path, s3_server, store):
    settings = gateway_settings("local", tmp_path, s3_server, store, secrets_reveal=True)
    async with running(settings) as made:
        yield made


@pytest.fixture
def key_with(store):
    """A function that makes a key and answers the headers that use it."""

    async def make(*scopes, **more):
        text, key = make_key("admin", NewKey(scopes=list(scopes), rates=RATES, name="tried", **more))
        await store.keys.put(key)
        return {"authorization": f"Bearer {text}"}

    return make


async def test_who_lost_all_keys_gets_one_on_the_machine_of_the_gateway(gateway, store):
    """With the settings of the gateway, and nothing else."""
    settings = gateway.settings
    for key in await store.keys.list():
        await store.keys.delete(key.id)
    settings.key_file.unlink()
    env = {
        "STOKER_DATA_DIR": str(settings.data_dir),
        "STOKER_REDIS_URL": settings.redis_url,
        "STOKER_POOL": settings.pool,
    }
    done = await asyncio.to_thread(CliRunner().invoke, cli, ["keys", "recover", "--json"], env=env)
    assert json.loads(done.output)["key_file"] == str(settings.key_file), done.output
    bearer = {"authorization": f"Bearer {settings.key_file.read_text().strip()}"}
    listed = (await gateway.open.get("/apikeys", headers=bearer)).json()
    assert [key["name"] for key in listed["data"]["items"]] == ["recovered key"]


async def operations(gateway):
    """Every path and method of the document, with the scope that it declares."""
    document = (await gateway.open.get("/openapi.json")).json()
    return {
        f"{method.upper()} {path}": [s for way in operation.get("security", []) for s in way[SCHEME]]
        for path, entry in document["paths"].items()
        for method, operation in entry.items()
        if method in METHODS
    }


async def call(gateway, operation, headers):
    method, path = operation.split(" ")
    content = {"scopes": [Scope.APIKEYS_WRITE]} if operation == "POST /apikeys" else {}
    body = {"json": content} if method in {"POST", "PUT"} else {}
    return await gateway.open.request(method, re.sub(r"{\w+}", "none", path), headers=headers, **body)


async def test_every_route_but_the_open_ones_declares_a_scope(gateway):
    found = await operations(gateway)
    assert {operation for operation, scopes in found.items() if not scopes} == OPEN
    for operation, scopes in found.items():
        path = re.sub(r"{\w+}", "none", operation.split(" ")[1])
        assert is_open(path) is (operation in OPEN), operation
        assert set(scopes) <= set(Scope)


async def test_every_route_takes_a_key_with_its_scope_and_no_other_one(gateway, key_with):
    with_scope = {scope: await key_with(scope) for scope in Scope}
    without = {scope: await key_with(*(other for other in Scope if other is not scope)) for scope in Scope}
    for operation, scopes in (await operations(gateway)).items():
        if operation in OPEN:
            continue
        [scope] = scopes
        refused = await call(gateway, operation, without[scope])
        assert refused.status_code == 403, operation
        problem = refused.json()
        assert refused.headers["content-type"] == media_type_at(operation.split(" ")[1])
        assert problem["missing_scopes"] == [scope]
        assert problem["type"].endswith("/errors/forbidden")
        assert f"--scope {scope}" in problem["detail"]
        assert (await call(gateway, operation, with_scope[scope])).status_code != 403, operation
        assert (await call(gateway, operation, {})).status_code == 401, operation


async def test_a_key_without_scopes_may_do_everything_but_what_is_not_there(gateway):
    for operation in sorted(set(await operations(gateway)) - OPEN):
        answer = await call(gateway, operation, dict(gateway.client.headers))
        assert answer.status_code not in {401, 403}, operation


@pytest.mark.long
async def test_the_document_names_every_status_that_an_operation_answers(gateway, key_with):
    paths = (await gateway.open.get("/openapi.json")).json()["paths"]
    headers = await key_with("audit:read")
    for operation in await operations(gateway):
        method, path = operation.split(" ")
        documented = set(paths[path][method.lower()]["responses"])
        answers = [
            await call(gateway, operation, each) for each in ({}, headers, dict(gateway.client.headers))
        ]
        assert {str(answer.status_code) for answer in answers} <= documented, operation


async def test_every_scope_is_good_for_something(gateway):
    assert {scope for scopes in (await operations(gateway)).values() for scope in scopes} == set(Scope)


async def test_a_refused_run_is_no_task(gateway, key_with, store):
    headers = await key_with("apps:read")
    assert (await gateway.open.post("/v1//run", json={"app": "x"}, headers=headers)).status_code == 403
    assert (await gateway.open.options("/run")).status_code == 204
    assert await store.tasks.count("admin") == 0


async def test_a_key_makes_keys_with_its_own_scopes_alone(gateway, key_with):
    headers = await key_with("apikeys", "apps:read")
    body = {"name": "child", "scopes": ["apps:read"]}
    made = await gateway.open.post("/apikeys", json=body, headers=headers)
    assert made.json()["data"]["scopes"] == ["apps:read"]
    child = {"authorization": f"Bearer {made.json()['data']['key']}"}
    assert (await gateway.open.get("/tasks", headers=child)).status_code == 200
    assert (await gateway.open.get("/apikeys", headers=child)).status_code == 403
    for scopes in (["apps"], ["secrets:read"], ["*"], [], None):
        refused = await gateway.open.post("/apikeys", json={"name": "x", "scopes": scopes}, headers=headers)
        assert refused.status_code == 403, scopes
        assert refused.json()["missing_scopes"]


async def test_an_unknown_scope_and_a_past_end_are_refused(gateway):
    refused = await gateway.client.post("/apikeys", json={"scopes": ["tasks:run"]})
    assert refused.status_code == 400
    assert "'tasks:run' is unknown; known: apps:read" in refused.json()["detail"]
    refused = await gateway.client.post("/apikeys", json={"expires_at": "2001-01-01T00:00:00Z"})
    assert (refused.status_code, "is past" in refused.json()["detail"]) == (400, True)


async def test_an_expired_key_is_refused_with_the_reason_and_listed_as_expired(gateway, store):
    text, key = make_key("admin", NewKey(name="old one"))
    await store.keys.put(structs.replace(key, expires_ms=1))
    refused = await gateway.open.get("/tasks", headers={"authorization": f"Bearer {text}"})
    assert refused.status_code == 401
    assert "'old one' expired at 1970-01-01" in refused.json()["detail"]
    listed = (await gateway.client.get("/apikeys")).json()["data"]["items"]
    assert {k["name"]: k["expired"] for k in listed} == {"first key": False, "old one": True}


async def test_long_expired_keys_are_forgotten(store):
    now_ms = int(time.time() * 1000)
    for name, expires_ms in (("for ever", 0), ("long ago", 1), ("a moment ago", now_ms - 1000)):
        _, key = make_key("admin", NewKey(name=name))
        await store.keys.put(structs.replace(key, expires_ms=expires_ms))
    assert [key.name for key in await store.keys.sweep(now_ms - 60_000)] == ["long ago"]
    assert {key.name for key in await store.keys.list()} == {"for ever", "a moment ago"}


async def test_the_scopes_describe_themselves(gateway):
    told = (await gateway.client.get("/scopes")).json()["data"]
    assert [each["scope"] for each in told["definitions"]] == list(Scope)
    assert {each["scope"] for each in told["definitions"] if each["admin"]} == {
        "engines:read", "engines:write", "apikeys:read", "apikeys:write", "audit:read",
    }  # fmt: skip


def test_the_command_line_makes_limited_keys_and_lists_them(system):
    made = system.cli_json(
        "keys", "create", "--name", "ci", "--scope", "apps:read", "--scope", "files", "--expires", "30d"
    )
    assert made["scopes"] == ["apps:read", "files"]
    shown = {key["id"]: key for key in system.cli_json("keys", "list")["items"]}[made["id"]]
    assert (shown["scopes"], shown["expired"]) == (["apps:read", "files"], False)
    with system.client(made["key"]) as client:
        assert client.get("/tasks").status_code == 200
        assert client.post("/run", json={}).status_code == 403
    refused = system.cli("keys", "create", "--name", "x", "--scope", "apps:fly", check=False)
    assert refused.returncode == 2
    assert "known: apps:read" in refused.stderr.replace("\n", " ")
    system.cli_json("keys", "delete", made["id"])


@pytest.mark.parametrize(
    ("preset", "commands", "refused"),
    [
        ("run", [("run", "infsh/echo", "--input", "message=x"), ("tasks", "list"), ("apps", "list")], ("workers", "list")),
        ("deploy", [("apps", "deploy", str(EXAMPLES / "echo")), ("run", "infsh/echo", "--input", "message=x")], ("secrets", "list")),
        ("watch", [("workers", "list"), ("tasks", "list")], ("run", "infsh/echo", "--input", "message=x")),
        ("admin", [("keys", "list"), ("audit", "list"), ("workers", "list")], ()),
    ],
)  # fmt: skip
def test_a_preset_is_enough_for_what_it_is_called(system, preset, commands, refused):
    system.deploy(EXAMPLES / "echo")
    scopes = [part for scope in PRESETS[preset] for part in ("--scope", scope)]
    made = system.cli_json("keys", "create", "--name", preset, *scopes)
    for command in commands:
        system.cli(*command, STOKER_API_KEY=made["key"])
    if refused:
        done = system.cli(*refused, check=False, STOKER_API_KEY=made["key"])
        assert done.returncode == 4, done.stderr
        assert "needs the scope" in done.stderr
    system.cli_json("keys", "delete", made["id"])


async def test_refused_attempts_are_in_the_record(gateway, key_with):
    async def refused():
        items = (await gateway.client.get("/audit")).json()["data"]["items"]
        return [each for each in items if each["action"] == "access.refused"]

    for _ in range(2):
        assert (await gateway.open.get("/audit", headers=await key_with("apps:read"))).status_code == 403
    wrong = {"authorization": "Bearer inf_wrong"}
    for path in ("/tasks", "/secrets/reveal/none"):
        assert (await gateway.open.get(path, headers=wrong)).status_code == 401
    assert (await gateway.open.get("/tasks")).status_code == 401
    maker = await key_with("apikeys:write")
    assert (await gateway.open.post("/apikeys", json={}, headers=maker)).status_code == 403
    told = [
        (each["user_id"], each["detail"]["request"], each["detail"]["reason"]) for each in await refused()
    ]
    assert told == [
        ("admin", "POST /apikeys", "the key lacks everything"),
        (None, "GET /tasks", "the key is unknown"),
        ("admin", "GET /audit", "the key lacks audit:read"),
        ("admin", "GET /audit", "the key lacks audit:read"),  # the keys are two
    ]
    assert "inf_wrong" not in str(await refused())


async def test_who_may_not_delete_files_does_not_by_deleting_a_task(gateway, key_with, store):
    await store.tasks.submit(request("t1"), spec("t1"), Owner(user_id="admin", key_id="k"))
    await store.tasks.cancel("t1")
    headers = await key_with("apps:read", "apps:execute")
    refused = await gateway.open.delete("/tasks/t1", params={"files": "true"}, headers=headers)
    assert (refused.status_code, refused.json()["missing_scopes"]) == (403, ["files:write"])
    assert (await gateway.open.get("/tasks/t1", headers=headers)).status_code == 200
    headers = await key_with("apps:execute", "files:write")
    assert (
        await gateway.open.delete("/tasks/t1", params={"files": "true"}, headers=headers)
    ).status_code == 200


async def test_a_config_that_comes_with_the_request_needs_the_right_to_the_secrets_that_it_sends(
    gateway, key_with
):
    call = {"url": "https://mine.example", "headers": {"X": "${{secrets.HF_TOKEN}}"}}
    tool = {"name": "send", "type": "http", "http": call}
    body = {"agent_config": {"core_app": {"ref": "a/b"}, "tools": [tool]}, "input": {"text": "Go"}}
    headers = await key_with("agents:execute")
    for path in ("/agents/run", "/chats"):
        refused = await gateway.open.post(path, json=body, headers=headers)
        assert (refused.status_code, refused.json()["missing_scopes"]) == (403, ["secrets:read"])
        assert "HF_TOKEN" in refused.json()["detail"]
    headers = await key_with("agents:execute", "secrets:read")
    assert (await gateway.open.post("/agents/run", json=body, headers=headers)).status_code == 404  # the app
