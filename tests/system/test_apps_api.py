"""The apps API by plain HTTP: what a bundle may be, who sees what, versions, and the app's life."""

import asyncio
import gzip
import hashlib
import io
import tarfile

import pytest
from app_bundles import FUNCTIONS, app_bundle, bundle, data_of, upload, version_of

from stoker.protocol import Store
from stoker.settings import CommonSettings
from stoker_gateway.routes.keys import NewKey, make_key


@pytest.fixture
def http(system):
    with system.client() as client:
        yield client


@pytest.fixture
def stranger(system):
    """A client with the key of another user."""

    async def add(key):
        store = await Store.open(CommonSettings(data_dir=system.data_dir).store_url, "default")
        await store.keys.put(key)
        await store.close()

    text, key = make_key("somebody-else", NewKey(rates={"run": 0, "get": 0, "upload": 0}))
    asyncio.run(add(key))
    with system.client(text) as client:
        yield client


@pytest.fixture
def register(http):
    """A function that registers an app and answers it; the app goes after the test."""
    made = []

    def do(name, data=None, *, client=http, fields=None, **version):
        body = {"namespace": "api", "name": name} | (fields or {})
        answer = client.post(
            "/apps", json=body | {"version": version_of(client, data or app_bundle(), **version)}
        )
        assert answer.status_code == 200, answer.text
        made.append((client, data_of(answer)["id"]))
        return data_of(answer)

    yield do
    for client, app_id in made:
        client.delete(f"/apps/{app_id}")


def refused(http, data, words, status=400, **version):
    body = {"namespace": "api", "name": "refused", "version": version_of(http, data, **version)}
    answer = http.post("/apps", json=body)
    assert answer.status_code == status, answer.text
    assert words in answer.json()["detail"]
    assert http.get("/apps/api/refused").status_code == 404


def test_the_version_is_what_the_bundle_holds(http, register):
    data = app_bundle(
        env={"A": "1"},
        resources={"gpu": {"count": 1, "vram": 8, "type": "any"}, "ram": "4GB"},
        secrets=["TOKEN"],
    )
    app = register("held", data)
    version = app["version"]
    listing = sorted(
        f"{name}\0{0o644:o}\0{hashlib.sha256(text).hexdigest()}\n" for name, text in files_of(data).items()
    )
    assert version["id"] == app["version_id"] == hashlib.sha256("".join(listing).encode()).hexdigest()
    assert version["kernel"] == "python-3.11"
    assert version["env"] == {"A": "1"}
    assert version["resources"] == {
        "gpu": {"count": 1, "vram": 8_000_000_000, "type": "any"},
        "ram": 4_000_000_000,
    }
    assert [need["key"] for need in version["required_secrets"]] == ["TOKEN"]
    again = http.get(f"/apps/{app['id']}/versions/{version['short_id']}")
    assert data_of(again)["id"] == version["id"]
    code = http.get(f"/apps/{app['id']}/versions/{version['id']}/bundle")
    assert code.content == data


def files_of(data):
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return {entry.name: archive.extractfile(entry).read() for entry in archive}


@pytest.mark.parametrize(
    ("declared", "words"),
    [
        ({"id": "f" * 64}, "version.id: 'ffff"),
        ({"checksum": "f" * 64}, "version.checksum"),
        (
            {"kernel": "python-3.12"},
            "version.kernel: 'python-3.12' was declared, the bundle says 'python-3.11'",
        ),
        ({"env": {"A": "1"}}, "version.env"),
        ({"resources": {"gpu": {"count": 1}}}, "version.resources"),
        ({"default_function": "other"}, "version.default_function"),
        ({"functions": {}}, "version.functions: 1 to 200, not 0"),
        ({"functions": {"run": {"name": "walk"}}}, "its name is 'walk'"),
        ({"functions": {"run": {"name": "run", "input_schema": {"type": 5}}}}, "is no JSON schema"),
        ({"setup_schema": {"properties": []}}, "version.setup_schema is no JSON schema"),
        ({"bundle_file_id": "nowhere"}, "upload the bundle first"),
    ],
)
def test_what_is_declared_must_fit_the_bundle(http, declared, words):
    refused(http, app_bundle(), words, **declared)


def test_a_schema_is_never_fetched(http):
    """`$schema` is an address; who registers must not send the gateway there."""
    app = {"run": {"name": "run", "input_schema": {"$schema": "http://127.0.0.1:1/x", "type": "object"}}}
    answer = http.post(
        "/apps",
        json={"namespace": "api", "name": "asks", "version": version_of(http, app_bundle(), functions=app)},
    )
    assert answer.status_code == 200
    http.delete(f"/apps/{data_of(answer)['id']}")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"inference.py": ""}, "it has no inf.yml"),
        ({"inf.yml": "name: x"}, "it has no inference.py"),
        ({"inf.yml": "name: [", "inference.py": ""}, "not valid YAML"),
        ({"inf.yml": "x: 1", "inference.py": ""}, "has no name"),
        ({"inf.yml": "name: &a [*a]", "inference.py": ""}, "more than 20000 values"),
        ({"inf.yml": "name: x\ndefault_function: sing", "inference.py": ""}, "default_function: 'sing'"),
        ({"../inf.yml": "name: x"}, "leads out of its folder"),
        ({"/inf.yml": "name: x"}, "leads out of its folder"),
    ],
)
def test_what_is_no_app_is_refused(http, files, words):
    refused(http, bundle(files), words)


def test_harmful_archives_are_refused(http):
    refused(http, b"no archive", "cannot be unpacked")
    refused(http, gzip.compress(bytes(40 * 1024**2)), "larger than any file name needs")
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        link = tarfile.TarInfo("inf.yml")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    refused(http, out.getvalue(), "neither a plain file nor a folder")


def test_a_version_never_changes(http, register):
    data = app_bundle()
    first = register("fixed", data)
    changed = {"run": {"name": "run", "description": "another", "input_schema": {}}}
    body = {"namespace": "api", "name": "fixed", "version": version_of(http, data, functions=changed)}
    answer = http.post("/apps", json=body)
    assert data_of(answer)["version"]["functions"] == first["version"]["functions"]
    assert "version_exists" in answer.text
    assert http.get(f"/files/{body['version']['bundle_file_id']}").status_code == 404  # nobody needs it


def test_the_code_of_a_version_is_no_file_to_delete(http, register):
    version = version_of(http, app_bundle())
    app = data_of(http.post("/apps", json={"namespace": "api", "name": "guarded", "version": version}))
    answer = http.delete(f"/files/{version['bundle_file_id']}")
    assert (answer.status_code, "Delete the version instead" in answer.text) == (409, True)
    http.delete(f"/apps/{app['id']}")


def test_private_apps_are_invisible_and_public_ones_usable_by_all(http, stranger, register):
    app = register("mine")
    version = f"/apps/{app['id']}/versions/{app['version_id']}"
    paths = (f"/apps/{app['id']}", "/apps/api/mine", "/apps/mine", version, f"/apps/{app['id']}/license")
    run = {"app": "api/mine", "infra": "private", "input": {}}
    assert [stranger.get(path).status_code for path in paths] == [404] * 5
    assert stranger.post("/apps/run", json=run).status_code == 404
    assert "mine" not in stranger.post("/apps/list", json={}).text

    http.post(f"/apps/{app['id']}/visibility", json={"visibility": "unlisted"})
    assert [stranger.get(path).status_code for path in paths] == [200] * 5
    assert "api/mine" not in [
        name_of(item) for item in data_of(stranger.post("/apps/list", json={}))["items"]
    ]

    http.post(f"/apps/{app['id']}/visibility", json={"visibility": "public"})
    assert stranger.post("/apps/run", json=run).status_code == 200
    assert "api/mine" in [
        name_of(item) for item in data_of(stranger.post("/apps/list", json={"limit": 100}))["items"]
    ]
    changes = [
        stranger.post(f"/apps/{app['id']}", json={"title": "stolen"}),
        stranger.post(f"/apps/{app['id']}/visibility", json={"visibility": "private"}),
        stranger.post(f"/apps/{app['id']}/status", json={"status": "retired"}),
        stranger.post(f"/apps/{app['id']}/duplicate"),
        stranger.post(f"/apps/{app['id']}/transfer", json={"team_id": "stranger"}),
        stranger.post(f"/apps/{app['id']}/license", json={"license": "mine"}),
        stranger.put(f"{version}/current"),
        stranger.get(f"{version}/bundle"),
        stranger.delete(version),
        stranger.delete(f"/apps/{app['id']}"),
    ]
    assert [answer.status_code for answer in changes] == [404] * len(changes)
    taken = stranger.post("/apps", json={"namespace": "api", "name": "mine"})
    assert (taken.status_code, "belongs to somebody else" in taken.text) == (409, True)
    stolen = {"bundle_file_id": upload(http, app_bundle()), "functions": FUNCTIONS}
    answer = stranger.post("/apps", json={"namespace": "api", "name": "thief", "version": stolen})
    assert (answer.status_code, "upload the bundle first" in answer.text) == (400, True)


def name_of(app):
    return f"{app['namespace']}/{app['name']}"


def test_changes_keep_what_they_do_not_name(http, register):
    app = register("kept", fields={"title": "Kept", "description": "d", "images": {"card": "c"}})
    changed = data_of(http.post(f"/apps/{app['id']}", json={"description": "e", "agent_description": "a"}))
    assert (changed["title"], changed["description"], changed["agent_description"]) == ("Kept", "e", "a")
    assert changed["images"] == {"card": "c", "thumbnail": "", "banner": ""}
    assert changed["version_id"] == app["version_id"]
    renamed = http.post(f"/apps/{app['id']}", json={"name": "other"})
    assert (renamed.status_code, "cannot become" in renamed.text) == (400, True)
    unknown = http.post(f"/apps/{app['id']}/visibility", json={"visibility": "team"})
    assert (unknown.status_code, "private, public, unlisted" in unknown.text) == (400, True)


def test_versions_are_added_by_id_and_chosen(http, register):
    app = register("growing")
    second = version_of(http, app_bundle("# 2\n"))
    grown = http.post("/apps", json={"id": app["id"], "version": second, "preserve_current_version": True})
    assert data_of(grown)["version_id"] == app["version_id"]
    listed = data_of(http.post(f"/apps/{app['id']}/versions/list"))
    assert listed["total_items"] == 2
    page = data_of(http.post(f"/apps/{app['id']}/versions/list", json={"limit": 1}))
    rest = data_of(
        http.post(f"/apps/{app['id']}/versions/list", json={"limit": 1, "cursor": page["next_cursor"]})
    )
    assert [page["items"][0]["id"], rest["items"][0]["id"]] == [item["id"] for item in listed["items"]]
    assert rest["has_next"] is False
    new = listed["items"][0]["id"]
    assert data_of(http.put(f"/apps/{app['id']}/versions/{new[:8]}/current"))["version_id"] == new
    assert http.delete(f"/apps/{app['id']}/versions/{new}").status_code == 409
    assert http.delete(f"/apps/{app['id']}/versions/{app['version_id']}").status_code == 200
    gone = http.get(f"/apps/{app['id']}/versions/{app['version_id']}")
    assert (gone.status_code, "App not found" in gone.text) == (404, True)


def test_a_copy_lives_on_its_own(http, register):
    app = register("model", fields={"visibility": "public"})
    names = []
    for _ in range(2):
        copy = data_of(http.post(f"/apps/{app['id']}/duplicate"))
        names.append(copy["name"])
        assert (copy["version_id"], copy["visibility"]) == (app["version_id"], "private")
        assert http.get(f"/apps/{copy['id']}/versions/{copy['version_id']}/bundle").status_code == 200
        http.delete(f"/apps/{copy['id']}") if len(names) == 2 else None
    assert names == ["model-copy", "model-copy-2"]
    assert http.get(f"/apps/{app['id']}").status_code == 200


def test_an_app_stays_with_its_user_for_there_are_no_teams(http, register):
    app = register("settled")
    same = http.post(f"/apps/{app['id']}/transfer", json={"team_id": "admin"})
    assert (same.status_code, data_of(same)["id"]) == (200, app["id"])
    other = http.post(f"/apps/{app['id']}/transfer", json={"team_id": "t-1"})
    assert (other.status_code, "Team not found: 't-1'" in other.text) == (404, True)


def test_a_status_decides_whether_it_runs(http, register):
    app = register("ageing")
    run = {"app": "api/ageing", "infra": "private", "input": {}}

    def status(value, message=""):
        return data_of(http.post(f"/apps/{app['id']}/status", json={"status": value, "message": message}))

    assert status("maintenance", "Back at noon.")["status_message"] == "Back at noon."
    answer = http.post("/apps/run", json=run)
    assert (answer.status_code, "Back at noon." in answer.text) == (409, True)
    status("deprecated", "Use api/new.")
    told = http.post("/apps/run", json=run).json()["messages"]
    assert [m["message"] for m in told if m["code"] == "app_deprecated"] == [
        "api/ageing is deprecated. Use api/new."
    ]
    status("active")
    assert http.post("/apps/run", json=run).json()["messages"] == []
    assert http.post(f"/apps/{app['id']}/status", json={"status": "odd"}).status_code == 400


def test_a_licence_is_kept(http, register):
    app = register("licensed")
    assert data_of(http.get(f"/apps/{app['id']}/license"))["license"] == ""
    http.post(f"/apps/{app['id']}/license", json={"license": "Be kind."})
    assert data_of(http.get(f"/apps/{app['id']}/license"))["license"] == "Be kind."


def test_lists_have_pages_and_a_search(http, register):
    for name in ("list-a", "list-b", "list-c"):
        register(name, fields={"description": "needle in hay"})
    body = {"limit": 2, "search": {"term": "NEEDLE"}}
    first = data_of(http.post("/apps/list", json=body))
    rest = data_of(http.post("/apps/list", json=body | {"cursor": first["next_cursor"]}))
    assert [app["name"] for app in (*first["items"], *rest["items"])] == ["list-a", "list-b", "list-c"]
    assert (first["total_items"], first["has_next"], rest["has_next"]) == (3, True, False)
    assert (rest["prev_cursor"], rest["has_previous"]) == (None, False)  # this list goes forward only


SETUP = {"type": "object", "properties": {"model": {"type": "string", "default": "small"}}}


@pytest.mark.parametrize(
    ("schema", "setup", "dropped"),
    [
        (SETUP, {"model": "large"}, None),
        (SETUP, {"model": "large", "modell": "x"}, "modell"),
        ({}, {"anything": 1}, "anything"),
    ],
)
def test_unknown_setup_values_are_left_out_and_told(http, register, schema, setup, dropped):
    register("prepared", app_bundle(f"# {dropped}"), setup_schema=schema)
    answer = http.post(
        "/apps/run", json={"app": "api/prepared", "infra": "private", "input": {}, "setup": setup}
    )
    told = [m["message"] for m in answer.json()["messages"] if m["code"] == "setup_unknown"]
    assert len(told) == (dropped is not None)
    assert all(f"setup: {dropped} unknown to api/prepared" in message for message in told)
    setup.pop(dropped, None)
    assert data_of(answer)["setup"] == setup


def test_a_closed_setup_refuses_what_it_does_not_know(http, register):
    register("closed", setup_schema=SETUP | {"additionalProperties": False})
    body = {"app": "api/closed", "infra": "private", "input": {}, "setup": {"modell": "x"}}
    answer = http.post("/apps/run", json=body)
    assert (answer.status_code, "modell" in answer.json()["detail"]) == (400, True)
