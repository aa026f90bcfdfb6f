"""Who changed what, as the API and the command line tell it."""

import json

import pytest
from app_bundles import app_bundle, data_of, version_of
from protocol_scene import Scene


@pytest.fixture
def http(system):
    with system.client() as client:
        yield client


def latest(http, count):
    """The latest changes, the first one first."""
    answer = http.get("/audit", params={"limit": count})
    assert answer.status_code == 200, answer.text
    return list(reversed(data_of(answer)["items"]))


def did(changes):
    return [(change["action"], change["target"]) for change in changes]


def test_the_life_of_a_key_is_recorded_with_who_and_from_where(http):
    mine = {key["name"]: key["id"] for key in data_of(http.get("/apikeys"))["items"]}["bench"]
    made = data_of(http.post("/apikeys", json={"name": "recorded", "scopes": ["apps:read"]}))
    http.delete(f"/apikeys/{made['id']}").raise_for_status()
    first, second = latest(http, 2)
    assert did([first, second]) == [("key.created", made["id"]), ("key.deleted", made["id"])]
    assert first["detail"] == {"name": "recorded", "scopes": "apps:read"}
    for change in (first, second):
        assert (change["user_id"], change["key_id"], change["address"]) == ("admin", mine, "127.0.0.1")
        assert change["at"] >= made["created_at"][:19]


def test_changes_of_secrets_are_recorded_without_their_values(http):
    http.put("/secrets/RECORDED", json={"value": "value-of-the-secret"}).raise_for_status()
    http.put("/secrets/RECORDED", json={"value": "another-value", "description": "d"}).raise_for_status()
    http.delete("/secrets/RECORDED").raise_for_status()
    changes = latest(http, 3)
    actions = ["secret.set", "secret.set", "secret.deleted"]
    assert did(changes) == [(action, "RECORDED") for action in actions]
    assert [change["detail"] for change in changes] == [{"version": "1", "new": "yes"}, {"version": "2"}, {}]


def test_changes_of_an_app_are_recorded(http):
    def post(path, body=None):
        answer = http.post(path, json=body or {})
        assert answer.status_code == 200, answer.text
        return data_of(answer)

    body = {"namespace": "api", "name": "recorded", "version": version_of(http, app_bundle())}
    app = post("/apps", body)
    other = {"version": version_of(http, app_bundle(description="2")), "preserve_current_version": True}
    newer = post("/apps", body | other)
    versions = post(f"/apps/{app['id']}/versions/list")["items"]
    [added] = [each["id"] for each in versions if each["id"] != newer["version_id"]]
    post(f"/apps/{app['id']}/visibility", {"visibility": "public"})
    post(f"/apps/{app['id']}", {"title": "T"})
    http.put(f"/apps/{app['id']}/versions/{added}/current").raise_for_status()
    http.delete(f"/apps/{app['id']}/versions/{app['version_id']}").raise_for_status()
    copy = post(f"/apps/{app['id']}/duplicate")
    for each in (copy, app):
        http.delete(f"/apps/{each['id']}").raise_for_status()
    assert did(latest(http, 9)) == [
        ("app.deployed", "api/recorded"),
        ("app.deployed", "api/recorded"),
        ("app.visibility", "api/recorded"),
        ("app.changed", "api/recorded"),
        ("app.version_used", "api/recorded"),
        ("app.version_deleted", "api/recorded"),
        ("app.copied", "api/recorded-copy"),
        ("app.deleted", "api/recorded-copy"),
        ("app.deleted", "api/recorded"),
    ]


async def test_a_drained_machine_is_recorded_with_the_reason(gateway, store):
    await Scene(store).set_up()
    for _ in range(2):
        await gateway.client.post("/engines/ghost/drain")
    drained = await gateway.client.post("/engines/box/drain", json={"reason": "new driver"})
    assert drained.status_code == 200, drained.text
    await gateway.client.post("/engines/box/update")
    [restart, drain, *_], _ = await store.audit.page("", 10)
    assert (drain.change.action, drain.change.target) == ("worker.drained", "box")
    assert drain.change.detail == {"reason": "new driver"}
    assert restart.change.action == "worker.restarted"


def test_what_was_refused_is_no_change(http):
    before = latest(http, 1)
    assert http.post("/apikeys", json={"scopes": ["fly"]}).status_code == 400
    assert http.delete("/secrets/NO_SUCH").status_code == 404
    assert http.delete("/apikeys/none").status_code == 404
    assert latest(http, 1) == before


def test_pages_and_the_command_line_tell_the_same(http, system):
    for _ in range(3):
        http.put("/secrets/PAGED", json={"value": "x"}).raise_for_status()
    first = data_of(http.get("/audit", params={"limit": 2}))
    second = data_of(http.post("/audit/list", json={"limit": 1, "cursor": first["next_cursor"]}))
    assert first["total_items"] >= 3
    told = [change["id"] for change in (*first["items"], *second["items"])]
    assert told == [change["id"] for change in system.cli_json("audit", "list", "--limit", "3")]
    assert system.cli_json("audit", "list", "--limit", "1", "--before", told[0])[0]["id"] == told[1]
    assert "PAGED" in system.cli("audit", "list", "--limit", "1").stdout
    assert http.get("/audit", params={"cursor": "x"}).status_code == 400
    http.delete("/secrets/PAGED")


def test_the_first_key_is_the_first_entry(http, system):
    oldest = system.cli_json("audit", "list", "--limit", "10000")[-1]
    assert (oldest["action"], oldest["detail"]["name"], oldest["user_id"]) == (
        "key.created",
        "first key",
        None,
    )
    assert (system.data_dir / "api-key").read_text().strip() not in json.dumps(oldest)
