"""Drive one version of the `inferencesh` package, and print what it saw as JSON.

Run by the interpreter of that version's own environment, not imported by the tests. Reads a plan from stdin:

    {"mode": "sync" | "async", "base_url": ..., "key": ..., "steps": [{"name": ..., "do": ..., ...}]}

and prints {name: facts}. A step that raises gives `error` beside the facts collected until then.
"""

import asyncio
import base64
import hashlib
import inspect
import json
import pathlib
import sys
import time
import urllib.error
import urllib.request

import inferencesh
import sessions

POLL_S = 0.05  # between two reads of a task; only as fine as the tests need
PATIENCE_S = 40.0  # for a task to end; the whole driver is bounded by its caller


class Caller:
    """One surface over the sync and the async client: every call is awaited."""

    def __init__(self, mode, base_url, key):
        make = inferencesh.AsyncInference if mode == "async" else inferencesh.Inference
        self.client = make(api_key=key, base_url=base_url)

    async def call(self, name, *args, **kwargs):
        answer = getattr(self.client, name)(*args, **kwargs)
        return await answer if inspect.isawaitable(answer) else answer

    async def updates(self, params):
        stream = await self.call("run", params, stream=True)
        if hasattr(stream, "__aiter__"):
            async for update in stream:
                yield update
        else:
            for update in stream:
                yield update

    async def task(self, task_id):
        answer = await self.call("get_task", task_id)
        return getattr(answer, "data", answer)


async def run(caller, step, facts):
    """Run and wait."""
    facts["result"] = await caller.call("run", step["params"])


async def get(caller, step, facts):
    """Run without waiting, then read the task until it has ended."""
    facts["handle"] = await caller.call("run", step["params"], wait=False)
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        facts["result"] = await caller.task(facts["handle"]["id"])
        if facts["result"]["status"] in step["terminal"]:
            return
        await asyncio.sleep(POLL_S)


async def stream(caller, step, facts):
    """Follow the updates; with `cancel_when_logged`, cancel at the first log line of the running app."""
    seen = facts["updates"] = []
    cancelled = False
    async for update in caller.updates(step["params"]):
        seen.append(update)
        if step.get("cancel_when_logged") and not cancelled and update["status"] == 7 and update["logs"]:
            cancelled = True
            await caller.call("cancel", update["id"])
            facts["cancelled"] = update["id"]


async def wait_again(caller, step, facts):
    """Wait for a task that has ended already, and cancel it: neither may raise."""
    first = await caller.call("run", step["params"])
    facts["result"] = await caller.call("wait_for_completion", first["id"])
    facts["cancel"] = await caller.call("cancel", first["id"])


async def upload(caller, step, facts):
    """Upload a local file, then download it from its address without a key."""
    data = step["path"] if step.get("from_path", True) else pathlib.Path(step["path"]).read_bytes()
    record = await caller.call("upload_file", data)
    facts["result"] = record if isinstance(record, dict) else getattr(record, "data", record)
    with urllib.request.urlopen(facts["result"]["uri"], timeout=10) as answer:
        facts["sha256"] = hashlib.sha256(answer.read()).hexdigest()


async def run_on_file(caller, step, facts):
    """Run an app on a file that the SDK uploads by itself, and download what it gives back."""
    path = pathlib.Path(step["path"])
    image = str(path)
    if not step.get("from_path", True):
        image = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    params = {**step["params"], "input": {**step["params"]["input"], step["field"]: image}}
    facts["result"] = await caller.call("run", params)
    output = facts["result"]["output"][step["output_field"]]
    uri = output["uri"] if isinstance(output, dict) else output
    with urllib.request.urlopen(uri, timeout=10) as answer:
        facts["head"] = answer.read(8).hex()


async def files_of_a_task(caller, step, facts):
    """Run an app on a file, list the task's files, delete those that it made, then the task with the rest."""

    async def told(answer):
        answer = await answer if inspect.isawaitable(answer) else answer
        return getattr(answer, "data", answer)

    tasks = caller.client.tasks
    await run_on_file(caller, step, facts)
    task_id = facts["result"]["id"]
    facts["files"] = await told(tasks.files(task_id))
    facts["made"] = await told(tasks.files(task_id, role="output"))
    facts["deleted"] = await told(tasks.delete_files(task_id, role="output"))
    facts["left"] = await told(tasks.files(task_id))
    await told(tasks.delete(task_id, files=True))
    facts["gone"] = []
    for file in facts["files"]:
        try:
            urllib.request.urlopen(file["uri"], timeout=10).close()
        except urllib.error.HTTPError as error:
            facts["gone"].append(error.code)


VERBS = {
    "run": run,
    "get": get,
    "stream": stream,
    "wait_again": wait_again,
    "upload": upload,
    "run_on_file": run_on_file,
    "files_of_a_task": files_of_a_task,
    **sessions.VERBS,
}


def told_requirement(entry):
    """One entry of what a run lacks, as the client made it."""
    action = getattr(entry, "action", None)
    return {
        "type": entry.type,
        "key": entry.key,
        "message": entry.message,
        "action": getattr(action, "type", None),
        "provider": getattr(action, "provider", None),
    }


def told(error):
    return {
        "type": type(error).__name__,
        "text": str(error),
        "status_code": getattr(error, "status_code", None),
        "code": getattr(error, "code", None),
        "is_runtime_error": isinstance(error, RuntimeError),
        "errors": [told_requirement(entry) for entry in getattr(error, "errors", None) or []],
    }


async def main():
    plan = json.load(sys.stdin)
    facts = {}
    for step in plan["steps"]:
        known = facts[step["name"]] = {}
        caller = Caller(plan["mode"], step.get("base_url", plan["base_url"]), step.get("key", plan["key"]))
        try:
            await VERBS[step["do"]](caller, step, known)
        except Exception as error:
            known["error"] = told(error)
    json.dump(facts, sys.stdout)


asyncio.run(main())
