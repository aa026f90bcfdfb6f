"""What a Python client does with sessions; a step of `py_client.py`."""

import asyncio
import inspect
import time

POLL_S = 0.05
PATIENCE_S = 40.0


async def awaited(answer):
    """The sync client's answer, or the async one's once it is there."""
    return await answer if inspect.isawaitable(answer) else answer


def plain(value):
    """An answer of the sessions API as a dict, whatever the client makes of it."""
    return value if isinstance(value, dict) else dict(vars(value))


async def refusal(call):
    """The status and the code of what is raised."""
    try:
        await awaited(call())
    except Exception as error:
        return [error.status_code, error.code]
    return None


async def session(caller, step, facts):
    """Three calls of one session, then everything that may be asked of it while it lives and afterwards."""
    client, params = caller.client, step["params"]
    first = facts["first"] = await caller.call("run", {**params, "session": "new"})
    session_id = facts["id"] = first["session_id"]
    within = {**params, "session": session_id}
    facts["second"] = await caller.call("run", within)
    updates = [update async for update in caller.updates(within)]
    facts["streamed"] = [update.get("session_id") for update in updates]
    facts["third"] = updates[-1]
    sessions = client.sessions
    facts["info"] = plain(await awaited(sessions.get(session_id)))
    facts["kept"] = plain(await awaited(sessions.keepalive(session_id)))
    facts["list"] = [plain(found)["id"] for found in await awaited(sessions.list())]
    facts["mismatch"] = await refusal(lambda: client.run({**within, "app": step["other_app"]}))
    facts["leased"] = await refusal(lambda: client.run({**params, "workers": [facts["info"]["worker_id"]]}))
    await awaited(sessions.end(session_id))
    await awaited(sessions.end(session_id))
    facts["ended"] = await refusal(lambda: client.run(within))
    facts["ended_info"] = plain(await awaited(sessions.get(session_id)))
    facts["unknown"] = await refusal(lambda: sessions.get("sess_unknown"))


async def handle(caller, step, facts):
    """The client's own context manager for a session."""
    opened = await awaited(caller.client.session(step["params"]["app"], input=step["params"]["input"]))
    facts["id"] = opened.session_id
    facts["outputs"] = [(await awaited(opened.call()))["output"] for _ in range(3)]
    facts["info"] = plain(await awaited(opened.info()))
    await awaited(opened.end())
    facts["after"] = plain(await awaited(caller.client.sessions.get(opened.session_id)))


async def expiry(caller, step, facts):
    """A session that nobody calls."""
    params = {**step["params"], "session": "new", "session_timeout": 1}
    session_id = (await caller.call("run", params))["session_id"]
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        facts["info"] = plain(await awaited(caller.client.sessions.get(session_id)))
        if facts["info"]["status"] != "active":
            break
        await asyncio.sleep(POLL_S)
    within = {**step["params"], "session": session_id}
    facts["expired"] = await refusal(lambda: caller.client.run(within))


VERBS = {"session": session, "handle": handle, "expiry": expiry}
