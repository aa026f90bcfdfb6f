"""Lists of apps, page by page."""

from types import SimpleNamespace

import pytest

from stoker.core.apps import App
from stoker_gateway import door
from stoker_gateway.routes.apps import apps_page


@pytest.fixture
def asking(fake_store):
    state = SimpleNamespace(services=SimpleNamespace(store=fake_store))
    caller = SimpleNamespace(owner=SimpleNamespace(user_id="u"))
    return SimpleNamespace(app=SimpleNamespace(state=state), scope={door._SCOPE_KEY: caller})


async def test_each_app_is_on_one_page_also_where_a_namespace_begins_like_another(fake_store, asking):
    names = ["acme/a", "acme/b", "acme-labs/x", "acme.old/y", "b/c"]
    for name in names:
        namespace, _, short = name.partition("/")
        app = App(id=name, short_id=name, namespace=namespace, name=short, owner_id="u")
        await fake_store.catalog.add_app(app)
    found, cursor = [], ""
    for _ in names:
        page = await apps_page(asking, cursor, 2, "")
        found.append([item["id"] for item in page["items"]])
        cursor = page["next_cursor"]
        if not cursor:
            break
    assert found == [["acme/a", "acme/b"], ["acme-labs/x", "acme.old/y"], ["b/c"]]
