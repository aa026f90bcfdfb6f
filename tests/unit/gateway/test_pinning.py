"""A pin of an alias stays what the alias stands for."""

import pytest
from msgspec import structs

from stoker.core.apps import App, AppVersion
from stoker.core.audit import Actor
from stoker.core.setup_key import fill_defaults, setup_key
from stoker.runs.registry import Registry
from stoker.settings import GatewaySettings
from stoker_gateway.pinning import PinBody, Pinner

OPERATOR = Actor(user_id="u", key_id="k")
SCHEMA = {
    "type": "object",
    "properties": {
        "model": {"type": "string", "default": "small"},
        "size": {"type": "integer", "default": 1},
    },
}
LLM = App(id="t", short_id="t", namespace="ours", name="llm", owner_id="u", current_version_id="v1")
GPT = App(
    id="a",
    short_id="a",
    namespace="acme",
    name="gpt",
    owner_id="u",
    alias_of="ours/llm",
    alias_setup={"model": "large"},
)


def version(name):
    return AppVersion(id=name, short_id=name, app_id="t", created_ms=0, setup_schema=SCHEMA)


@pytest.fixture
async def scene(fake_store, tmp_path):
    """A pinner, and its store with an app, an alias of it, and a second version that is not current."""
    for app in (LLM, GPT):
        await fake_store.catalog.add_app(app)
    for name in ("v1", "v2"):
        await fake_store.catalog.put_version(version(name))
    return fake_store, Pinner(fake_store, Registry(fake_store), GatewaySettings(data_dir=tmp_path))


async def deployed(store, pinner):
    """The second version is the current one."""
    app = structs.replace(LLM, current_version_id="v2")
    await store.catalog.put_app(app)
    await pinner.settle(app)


async def pinned(store):
    [pin] = await store.pins.list()
    return pin.request.version_id, pin.request.setup, pin.setup_key


async def as_a_task(store):
    """What a task is given that names the alias."""
    _, app, found = await Registry(store).resolve("acme/gpt", "u")
    setup = fill_defaults(found.setup_schema, {"size": 2})
    return app.current_version_id, setup, setup_key(found.id, setup)


async def test_a_pinned_alias_keeps_its_setup_in_the_next_version(scene):
    store, pinner = scene
    await pinner.pin(PinBody(app="acme/gpt", setup={"size": 2}), OPERATOR, once=False)
    await deployed(store, pinner)
    assert (await pinned(store))[:2] == ("v2", {"model": "large", "size": 2})
    assert await pinned(store) == await as_a_task(store)


async def test_a_pinned_alias_keeps_its_setup_when_a_secret_changes(scene):
    store, pinner = scene
    await pinner.pin(PinBody(app="acme/gpt", setup={"size": 2}), OPERATOR, once=False)
    before = await pinned(store)
    await pinner.renew("u")
    assert await pinned(store) == before == await as_a_task(store)


async def test_who_pins_an_alias_may_say_another_value_than_it(scene):
    store, pinner = scene
    await pinner.pin(PinBody(app="acme/gpt", setup={"model": "huge"}), OPERATOR, once=False)
    await deployed(store, pinner)
    assert (await pinned(store))[1] == {"model": "huge", "size": 1}


@pytest.mark.parametrize(
    ("stands_for", "ref", "after"),
    [
        ("ours/llm@v1", "acme/gpt", "v1"),
        ("ours/llm", "acme/gpt@v1", "v2"),
        ("ours/llm", "ours/llm@v1", "v1"),
    ],
)
async def test_a_pin_goes_with_the_current_version_unless_its_app_is_one_version(
    scene, stands_for, ref, after
):
    store, pinner = scene
    await store.catalog.put_app(structs.replace(GPT, alias_of=stands_for))
    await pinner.pin(PinBody(app=ref), OPERATOR, once=False)
    await deployed(store, pinner)
    assert (await pinned(store))[0] == after
