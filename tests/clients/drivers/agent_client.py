"""Drive the agents of one version of the `inferencesh` package, and print what it saw as JSON.

As py_client.py; a step has a `config`, and `do` says what is done with the agent.
"""

import asyncio
import inspect
import json
import sys
import time
import urllib.request

import inferencesh
from inferencesh import number, string, tool

POLL_S = 0.05
PATIENCE_S = 40.0


class Talker:
    """One agent, sync or async: every call is awaited."""

    def __init__(self, plan, step):
        self.base_url, self.key = plan["base_url"], plan["key"]
        make = inferencesh.async_inference if plan["mode"] == "async" else inferencesh.inference
        self.agent = make(api_key=self.key, base_url=self.base_url).agent(config_of(step))
        self.facts = {"messages": [], "calls": [], "deltas": [], "approved": []}
        self.step = step

    async def do(self, name, *args, **kwargs):
        answer = getattr(self.agent, name)(*args, **kwargs)
        return await answer if inspect.isawaitable(answer) else answer

    def post(self, path, body=None):
        request = urllib.request.Request(
            self.base_url + path,
            data=json.dumps(body or {}).encode(),
            headers={"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=10) as answer:
            return json.load(answer)

    def on_message(self, message):
        calls = [
            [call["type"], call["status"], call["function"]["name"]] for call in message["tool_invocations"]
        ]
        text = "".join(part.get("text", "") for part in message["content"] if part["type"] == "text")
        self.facts["messages"].append([message["role"], message["status"], text, calls])
        for call in message["tool_invocations"]:
            if self.step.get("decide") and call["status"] == "awaiting_approval":
                self.decide(call["id"])

    def decide(self, call_id):
        if call_id not in self.facts["approved"]:
            self.facts["approved"].append(call_id)
            self.post(f"/tools/{call_id}/{self.step['decide']}")

    def result_of(self, name, args):
        self.facts["calls"].append([name, args])
        if self.step.get("failing"):
            return json.dumps({"error": "the tool broke"})
        return str(args["a"] * args["b"])

    def on_tool_call(self, call):
        self.agent.submit_tool_result(call.id, self.result_of(call.name, call.args))

    async def on_tool_call_async(self, call):
        await self.agent.submit_tool_result(call.id, self.result_of(call.name, call.args))

    async def follow(self):
        """Open the stream anew, after a decision."""
        await self.do("stream_all", on_message=self.on_message, on_tool_call=self.handler())

    def handler(self):
        is_async = inspect.iscoroutinefunction(self.agent.send_message)
        return self.on_tool_call_async if is_async else self.on_tool_call

    async def say(self, text):
        """Say something, and follow the stream to its end."""
        given = {"on_message": self.on_message, "on_tool_call": self.handler()}
        if "on_delta" in inspect.signature(self.agent.send_message).parameters:
            given["on_delta"] = lambda delta: self.facts["deltas"].append(delta.delta)
        if self.step.get("picture") and "files" in inspect.signature(self.agent.send_message).parameters:
            given["files"] = [self.step["picture"]]
        return await self.do("send_message", text, **given)

    async def chat(self, until=lambda chat: chat["status"] == "idle"):
        """The chat, once it is as wanted."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            chat = await self.do("get_chat")
            if until(chat):
                return chat
            await asyncio.sleep(POLL_S)
        raise TimeoutError(f"the chat stays {chat['status']}")


def config_of(step):
    config = dict(step["config"])
    if step.get("calculator"):
        made = (
            tool("calculator")
            .describe("Multiplies two numbers")
            .param("a", number("The first"))
            .param("b", number("The second"))
        )
        if step.get("decide"):
            made = made.require_approval()
        config["tools"] = [*config.get("tools", []), made.build()]
    return config


async def talk(talker, step):
    """Say each text, and follow the stream each time."""
    talker.facts["first"] = []
    for text in step["texts"]:
        talker.facts["first"].append(await talker.say(text))
        if step.get("decide") and (await talker.do("get_chat"))["status"] != "idle":
            await talker.follow()
    talker.facts["chat"] = await talker.do("get_chat")


async def poll(talker, step):
    """Say something without a callback, give the result by hand, and read the chat until it is idle."""
    talker.facts["first"] = await talker.do("send_message", step["texts"][0])

    def waits(chat):
        return any(
            c["status"] == "awaiting_input" for m in chat["chat_messages"] for c in m["tool_invocations"]
        )

    chat = await talker.chat(waits)
    talker.facts["waiting"] = chat
    [call] = [c for m in chat["chat_messages"] for c in m["tool_invocations"]]
    await talker.do(
        "submit_tool_result", call["id"], talker.result_of("calculator", call["function"]["arguments"])
    )
    talker.facts["chat"] = await talker.chat()
    try:
        await talker.do("submit_tool_result", call["id"], "again")
    except RuntimeError as error:
        talker.facts["twice"] = str(error)


async def finish(talker, step):
    """Say something, and wait for the output."""
    await talker.say(step["texts"][0])
    talker.facts["chat"] = await talker.do("get_chat")
    talker.facts["result"] = talker.facts["chat"]["output"]


async def late(talker, step):
    """Open the stream when all is over."""
    await talker.do("send_message", step["texts"][0])
    await talker.chat()
    await talker.follow()


async def stop(talker, step):
    """Say something, stop the chat once the model was asked, and read it."""
    await talker.do("send_message", step["texts"][0])
    await talker.chat(lambda chat: any(m["task_id"] for m in chat["chat_messages"]))
    await talker.do("stop_chat")
    talker.facts["chat"] = await talker.chat()


async def refused(talker, step):
    """Say something that is refused."""
    try:
        await talker.do("send_message", step["texts"][0])
    except RuntimeError as error:
        talker.facts["error"] = str(error)


VERBS = {"talk": talk, "poll": poll, "finish": finish, "late": late, "stop": stop, "refused": refused}


async def main():
    plan = json.load(sys.stdin)
    facts = {}
    for step in plan["steps"]:
        talker = Talker(plan, step)
        facts[step["name"]] = talker.facts
        try:
            await asyncio.wait_for(VERBS[step["do"]](talker, step), PATIENCE_S * 2)
        except Exception as error:
            talker.facts["raised"] = f"{type(error).__name__}: {error}"
    json.dump(facts, sys.stdout)


assert string  # part of the builders that the examples use
asyncio.run(main())
