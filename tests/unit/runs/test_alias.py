import pytest

from stoker.core.apps import App, AppVersion
from stoker.core.setup_key import fill_defaults, setup_key
from stoker.runs.registry import Registry, set_up

pytestmark = pytest.mark.unit

SCHEMA = {
    "type": "object",
    "properties": {"url": {"type": "string", "default": "a"}, "size": {"type": "integer"}},
}
VERSION = AppVersion(id="v", short_id="v", app_id="t", created_ms=0, setup_schema=SCHEMA)


class Catalog:
    """Two apps: one, and a name for it."""

    def __init__(self):
        target = App(id="t", short_id="t", namespace="ours", name="llm", owner_id="u", current_version_id="v")
        alias = App(
            id="a",
            short_id="a",
            namespace="infsh",
            name="claude",
            owner_id="u",
            visibility="public",
            alias_of="ours/llm",
            alias_setup={"url": "b"},
        )
        self.apps = {"ours/llm": target, "infsh/claude": alias}

    async def find_app(self, namespace, name):
        return self.apps.get(f"{namespace}/{name}")

    async def get_app(self, app_id):
        return next(app for app in self.apps.values() if app.id == app_id)

    async def get_version(self, app_id, version):
        assert (app_id, version) == ("t", "v")
        return VERSION

    async def list_apps(self):
        return list(self.apps.values())


class Store:
    catalog = Catalog()


@pytest.mark.parametrize("ref", ["infsh/claude", "infsh/claude@4zx9", "infsh/claude:run"])
async def test_an_alias_is_its_app_set_up(ref):
    found, app, version = await Registry(Store()).resolve(ref, "u")
    assert (app.id, version.id, found.function) == ("t", "v", "run" if ref.endswith("run") else "")
    assert fill_defaults(version.setup_schema, {}) == {"url": "b"}
    assert fill_defaults(version.setup_schema, {"url": "c", "size": 1}) == {"url": "c", "size": 1}


async def test_an_alias_by_its_id():
    app, _ = await Registry(Store()).by_id("a", "", "u")
    assert app.id == "t"


async def test_a_public_alias_of_a_private_app_opens_it_to_nobody():
    from stoker.core.errors import NotFound

    with pytest.raises(NotFound):
        await Registry(Store()).resolve("infsh/claude", "somebody else")


def test_it_shares_the_instance_of_who_spells_the_setup_out():
    spelled = fill_defaults(SCHEMA, {"url": "b"})
    assert setup_key("v", spelled) == setup_key(
        "v", fill_defaults(set_up(VERSION, {"url": "b"}).setup_schema, {})
    )
