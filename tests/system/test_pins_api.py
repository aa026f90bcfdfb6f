"""Pins, loads and keep-alive by plain HTTP: what is refused, and what follows an app. No worker runs anything."""

import asyncio

import pytest
from app_bundles import app_bundle, data_of, version_of

from stoker.protocol import Store
from stoker.settings import CommonSettings
from stoker_gateway.routes.keys import NewKey, make_key

NOWHERE = ["a-machine-that-never-comes"]


@pytest.fixture(scope="module")
def ask_store(system):
    """A function that asks the system's Redis one thing."""

    def ask(question):
        async def go():
            store = await Store.open(CommonSettings(data_dir=system.data_dir).store_url, "default")
            try:
                return await question(store)
            finally:
                await store.close()

        return asyncio.run(go())

    return ask


@pytest.fixture
def http(system):
    with system.client() as client:
        yield client


@pytest.fixture
def stranger(system, ask_store):
    """A client with the key of another user, who may do everything."""
    text, key = make_key("another-one", NewKey(rates={"run": 0, "get": 0, "upload": 0}))
    ask_store(lambda store: store.keys.put(key))
    with system.client(text) as client:
        yield client


@pytest.fixture
def register(http):
    """A function that registers an app, or a version of it, and answers it; the app goes after the test."""
    made = set()

    def do(name, code="", **manifest):
        data = app_bundle(**({"code": code} if code else {}), **manifest)
        body = {"namespace": "pinned", "name": name, "version": version_of(http, data)}
        answer = http.post("/apps", json=body)
        assert answer.status_code == 200, answer.text
        made.add(data_of(answer)["id"])
        return data_of(answer)

    yield do
    for app_id in made:
        http.delete(f"/apps/{app_id}")


def kept(ask_store, app):
    return ask_store(lambda store: store.pins.keep_alives()).get(app)


def pin(http, app, path="/pins", **fields):
    return http.post(path, json={"app": app, "workers": NOWHERE if path == "/pins" else []} | fields)


def test_how_long_an_app_stays_is_settled_between_its_owner_and_its_manifest(http, register, ask_store):
    app = register("kept", keep_alive=60)
    assert app["version"]["keep_alive_s"] == 60
    assert kept(ask_store, "pinned/kept") == 60
    path = f"/apps/{app['id']}/keep-alive"
    assert data_of(http.post(path, json={"seconds": 5}))["keep_alive_s"] == 5
    assert kept(ask_store, "pinned/kept") == 5
    register("kept", keep_alive=30)
    assert kept(ask_store, "pinned/kept") == 5
    assert data_of(http.post(path, json={"seconds": None}))["keep_alive_s"] is None
    assert kept(ask_store, "pinned/kept") == 30
    http.put(f"/apps/{app['id']}/versions/{app['version']['id']}/current").raise_for_status()
    assert kept(ask_store, "pinned/kept") == 60
    copy = data_of(http.post(f"/apps/{app['id']}/duplicate"))
    assert kept(ask_store, "pinned/kept-copy") == 60
    for app_id in (copy["id"], app["id"]):
        http.delete(f"/apps/{app_id}").raise_for_status()
    assert kept(ask_store, "pinned/kept") is kept(ask_store, "pinned/kept-copy") is None


@pytest.mark.parametrize("seconds", [-1, 1e9, True, "ever"])
def test_a_keep_alive_that_is_none_is_refused(http, register, stranger, seconds):
    app = register("kept")
    refused = http.post(f"/apps/{app['id']}/keep-alive", json={"seconds": seconds})
    assert refused.status_code == 400, refused.text
    assert stranger.post(f"/apps/{app['id']}/keep-alive", json={"seconds": 5}).status_code == 404


def test_a_manifest_with_a_keep_alive_that_is_none_is_refused(http):
    body = {"namespace": "pinned", "name": "bad", "version": version_of(http, app_bundle(keep_alive="ever"))}
    refused = http.post("/apps", json=body)
    assert (refused.status_code, "keep_alive: 'ever' is no number" in refused.json()["detail"]) == (400, True)


@pytest.mark.parametrize("path", ["/pins", "/loads"])
def test_what_cannot_be_run_cannot_be_pinned_or_loaded(http, register, stranger, path):
    register("wants", secrets=["NOBODY_HAS_THIS"])
    register("private")
    for app, status, words in (
        ("pinned/unknown", 404, "App not found"),
        ("not a name", 400, "no app reference"),
        ("pinned/wants", 412, "NOBODY_HAS_THIS"),
    ):
        refused = pin(http, app, path)
        assert (refused.status_code, words in refused.text) == (status, True), refused.text
    assert pin(stranger, "pinned/private", path).status_code == 404
    for fields in ({"copies": -1}, {"copies": 1001}, {"setup": [1]}, {"workers": "one"}):
        assert pin(http, "pinned/private", path, **fields).status_code == 400
    assert http.post(path, json={"app": 7}).status_code == 400
    assert http.post(path, json={}).status_code == 400


def test_pins_are_everybodys_to_see_and_loads_are_ones_own(http, register, stranger):
    register("mine", code="# pinned by its owner alone\n")
    made = data_of(pin(http, "pinned/mine"))
    assert made["state"] in {"waiting", "loading"}
    assert data_of(stranger.get(f"/pins/{made['id']}"))["workers"] == NOWHERE
    load = data_of(pin(http, "pinned/mine", "/loads"))
    assert http.get(f"/loads/{load['id']}").status_code == 200
    for path in (f"/loads/{load['id']}", f"/pins/{load['id']}", f"/loads/{made['id']}", "/pins/unknown"):
        assert stranger.get(path).status_code == 404, path
    assert load["id"] not in {each["id"] for each in data_of(http.get("/pins"))["items"]}
    assert stranger.delete(f"/pins/{made['id']}").status_code == 200  # whoever looks after machines may


def test_a_pin_of_a_version_ends_with_it_and_one_without_goes_with_the_current_one(http, register):
    first = register("moves", code="# one\n")
    register("moves", code="# two\n")
    http.put(f"/apps/{first['id']}/versions/{first['version_id']}/current").raise_for_status()
    following = data_of(pin(http, "pinned/moves"))
    second = next(
        v["id"]
        for v in data_of(http.post(f"/apps/{first['id']}/versions/list", json={}))["items"]
        if v["id"] != first["version_id"]
    )

    def versions():
        items = data_of(http.get("/pins"))["items"]
        return {each["id"]: each["app_version_id"] for each in items if each["app"] == "pinned/moves"}

    http.put(f"/apps/{first['id']}/versions/{second}/current").raise_for_status()
    staying = data_of(pin(http, f"pinned/moves@{first['version_id'][:8]}"))
    assert (following["follows_current"], staying["follows_current"]) == (True, False)
    assert versions() == {following["id"]: second, staying["id"]: first["version_id"]}
    http.delete(f"/apps/{first['id']}/versions/{first['version_id']}").raise_for_status()
    assert versions() == {following["id"]: second}
    http.delete(f"/apps/{first['id']}").raise_for_status()
    assert versions() == {}


def test_a_secret_of_an_order_to_load_is_not_guessed(http):
    for what in ("bundle", "secrets"):
        answer = http.get(f"/internal/tasks/load~unknown/{what}", headers={"authorization": "Bearer guess"})
        assert answer.status_code == 401


def test_nothing_that_is_not_loaded_can_be_unloaded(http):
    refused = http.post("/apps/unload", json={"app": "pinned/nothing"})
    assert (refused.status_code, "Nothing of pinned/nothing is loaded" in refused.json()["detail"]) == (
        404,
        True,
    )
