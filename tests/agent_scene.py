"""Chats without a system: a store, the jobs' desk, a language model that is deployed, and an address that is called."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from stoker.agents.chat import CallStatus, Chat
from stoker.agents.chats import load_chat, save_chat
from stoker.agents.config import read_config
from stoker.agents.step import Said, steps_now
from stoker.core.apps import App, AppFunction, AppVersion
from stoker.core.audit import Actor
from stoker.core.messages import Owner
from stoker.llm.contract import LlmOutput
from stoker.llm.contract import ToolCall as Asked
from stoker.outbound import checked_client
from stoker.runs.registry import Registry
from stoker.runs.submit import Submitter
from stoker.settings import GatewaySettings, JobsSettings
from stoker_gateway.secret_store import SecretStore
from stoker_jobs.desk import Desk

ANN = Owner(user_id="ann", key_id="k1")
MODEL = "ns/model"


class Receiver:
    """An address that is called: what came, and the answer to it. `{key}` in an answer is the header X-Key that came."""

    def __init__(self):
        self.requests = []
        self.answer = (200, "fine")
        self.hold = threading.Event()  # cleared by a test: no answer comes
        self.hold.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_line):
                """Tests print nothing."""

            def do_GET(self):
                self.answered(b"")

            def do_POST(self):
                self.answered(self.rfile.read(int(self.headers["Content-Length"])))

            def answered(self, body):
                receiver.requests.append((self.path, dict(self.headers), body))
                receiver.hold.wait(60)
                status, text = receiver.answer
                data = text.replace("{key}", self.headers.get("X-Key", "")).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def close(self):
        self.hold.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class AgentScene:
    """What a chat needs, on one store."""

    def __init__(self, store, folder, **settings):
        self.store = store
        reach = {"webhook_allow": ("127.0.0.1",)}
        self.settings = JobsSettings(data_dir=folder, pool=store.pool, **(reach | settings))
        registry = Registry(store)
        submitter = Submitter(store, registry, self.settings, base_url="http://gateway")
        self.desk = Desk(store=store, settings=self.settings, submitter=submitter, registry=registry)
        self.secrets = SecretStore(store, GatewaySettings(data_dir=folder))

    async def deploy_model(self, fields=("text", "context", "tools", "tool_call_id")):
        function = AppFunction(
            name="run",
            input_schema={"type": "object", "properties": {name: {} for name in fields}},
            output_schema={"type": "object", "properties": {"response": {"type": "string"}}},
        )
        version = AppVersion(id="v", short_id="v", app_id="model", created_ms=0, functions={"run": function})
        app = App(
            id="model", short_id="model", namespace="ns", name="model", owner_id="admin", visibility="public",
            current_version_id="v",
        )  # fmt: skip
        await self.store.catalog.put_version(version)
        await self.store.catalog.add_app(app)

    async def set_secret(self, name, value, user="ann"):
        await self.secrets.set(Actor(user_id=user, key_id="k"), name, value, None)

    async def called(self, name, arguments="{}", chat_id="c", **config):
        """A stored chat whose model has just called a tool; its id."""
        chat = Chat(id=chat_id, owner=ANN, config=read_config({"core_app_ref": MODEL} | config))
        steps = steps_now(self.settings)
        chat = steps.say(chat, Said(text="Go"))
        asked = Asked(id="m0", name=name, arguments=arguments)
        chat = steps.answered(chat, chat.turn.id, LlmOutput(tool_calls=(asked,)))
        await save_chat(self.store, None, chat, self.settings, steps.now_ms, wake=False)
        return chat.id

    async def call_address(self, make, part_id):
        """Have an address called for a part of the chat, by `call_tool` or `ask_hook`."""
        async with checked_client(httpx.Timeout(5)) as client:
            await make(self.desk, client, "c", part_id)

    async def chat(self, chat_id="c"):
        return (await load_chat(self.store, chat_id)).chat

    async def results(self, chat_id="c"):
        """What came of the calls of a chat."""
        calls = [call for message in (await self.chat(chat_id)).messages for call in message.calls]
        return [(str(call.status), call.result) for call in calls if call.status is not CallStatus.PENDING]
