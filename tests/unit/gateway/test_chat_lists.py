"""Lists of chats."""

from types import SimpleNamespace

from stoker.agents.chat import Chat
from stoker.agents.chats import load_chat, save_chat
from stoker.agents.config import read_config
from stoker.core.messages import Owner
from stoker.settings import GatewaySettings
from stoker_gateway import door
from stoker_gateway.chat_dto import chat_dto
from stoker_gateway.routes.chats import _page

OWNER = Owner(user_id="u", key_id="k")


async def test_a_chat_in_which_nobody_has_said_anything_is_listed_with_its_times(fake_store, tmp_path):
    settings = GatewaySettings(data_dir=tmp_path)
    chat = Chat(id="c", owner=OWNER, config=read_config({"core_app_ref": "a/b"}))
    await save_chat(fake_store, None, chat, settings, await fake_store.now_ms(), wake=False)
    state = SimpleNamespace(services=SimpleNamespace(store=fake_store))
    request = SimpleNamespace(
        app=SimpleNamespace(state=state), scope={door._SCOPE_KEY: SimpleNamespace(owner=OWNER)}
    )
    [listed] = (await _page(request, "", 20))["items"]
    whole = chat_dto((await load_chat(fake_store, "c")).chat)
    assert {name: listed[name] for name in ("created_at", "updated_at")} == {
        name: whole[name] for name in ("created_at", "updated_at")
    }
    assert listed["created_at"] > "2020"
