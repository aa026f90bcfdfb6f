"""What an enrolled engine can do on a real server, and what it cannot: tried, not read."""

import asyncio
import itertools

import pytest
from helpers import PATIENCE_S, eventually
from msgspec import json, structs
from protocol_scene import OWNER, Scene, info, request, spec
from redis.asyncio import Redis
from redis.exceptions import NoPermissionError, RedisError, ResponseError

from stoker.core.enrolments import digest
from stoker.core.errors import (
    IncompatibleVersion,
    KeyQueueFull,
    NotFound,
    ScriptFailed,
    StaleAttempt,
    StoreUnavailable,
    Unauthorized,
)
from stoker.core.messages import DrainOrder, EngineReport, Outcome
from stoker.core.states import TaskState
from stoker.core.telemetry import Telemetry
from stoker.protocol import AssignOrder, Room, Store
from stoker.protocol.acl import user_name
from stoker.protocol.keys import Keys

_names = itertools.count()
PASSWORD = "the password of one engine"


@pytest.fixture
async def store(redis_server):
    opened = await Store.open(redis_server.url, f"acl{next(_names)}")
    yield opened
    for each in await opened.enrolments.list():
        await opened.enrolments.expel(each.name)
    await opened.close()


async def enrol(store, name="box", password=PASSWORD):
    """A machine that has joined; the address with its user."""
    await store.enrolments.invite(name, digest("token"), 60, "me")
    await store.enrolments.join(name, digest("token"), digest(password), digest("key"))
    await store.enrolments.admit(await store.enrolments.find(name))
    return f"{store.url}?username={user_name(Keys(store.pool), name)}&password={password.replace(' ', '%20')}"


@pytest.fixture
async def address(store):
    """Where the engine `box` connects to, with its user."""
    return await enrol(store)


@pytest.fixture
async def engine(store, address):
    """A store as the engine `box` sees it."""
    opened = await Store.open(address, store.pool)
    yield opened
    await opened.close()


@pytest.fixture
async def raw(address):
    """Plain commands as the engine `box` may send them."""
    client = Redis.from_url(address)
    yield client
    await client.aclose()


TELEMETRY = Telemetry(cpu_percent=0, ram_used_bytes=0, ram_total_bytes=1)


async def test_an_engine_does_all_of_its_work_as_its_own_user(store, engine):
    scene = Scene(store)
    session, _ = await engine.engines.register(info(), EngineReport(), {}, 30)
    scene.epoch = await store.scheduling.lead("me", 30)
    await scene.submit("t1")
    await scene.assign("t1")
    _, [(entry, order)] = await engine.engines.inbox("box", "0", 100)
    await engine.engines.renew("box", session, TELEMETRY, {"t1": 1}, 30)
    await engine.engines.accept(order, "box", entry, TaskState.RUNNING)
    for partial in (b"1", b"2"):  # the second one takes the event of the first away
        await engine.engines.append("t1", 1, order.token, partial=partial)
    await engine.engines.deltas("t1", 1, order.token, first=1, last=1, deltas=[b"1"])
    await engine.engines.transition("t1", 1, order.token, TaskState.UPLOADING)
    await engine.engines.finish(order, "box", Outcome(state=TaskState.COMPLETED))
    await engine.engines.report("box", session, EngineReport())
    room = Room(key=1)
    await store.tasks.submit(request("t2"), spec("t2"), OWNER, room=room)
    await scene.assign("t2")
    _, [(entry, order)] = await engine.engines.inbox("box", "0", 100)
    await engine.engines.hand_back(order, "box", entry, "drains")
    with pytest.raises(KeyQueueFull):  # what it handed back counts
        await store.tasks.submit(request("t3"), spec("t3"), OWNER, room=room)
    await scene.submit("t3", retry_delay_s=600)
    await scene.assign("t3")
    _, [(entry, order)] = await engine.engines.inbox("box", "0", 100)
    failed = Outcome(state=TaskState.FAILED, error="no network", retryable=True)
    await engine.engines.accept(order, "box", entry, TaskState.PREPARING)
    await engine.engines.finish(order, "box", failed)
    assert "no network" in (await store.tasks.read("t3")).queue_reason
    await scene.submit("t4", max_attempts=1)
    await scene.assign("t4")
    _, [(entry, order)] = await engine.engines.inbox("box", "0", 100)
    await engine.engines.accept(order, "box", entry, TaskState.RUNNING)
    await engine.engines.finish(order, "box", failed)
    assert (await store.tasks.read("t4")).state is TaskState.FAILED
    drain = DrainOrder(reason="new driver")
    await store.scheduling.drain("box", drain)
    session, _ = await engine.engines.register(info(), EngineReport(), {}, 30, returning=True)
    assert [message for _, message in (await engine.engines.inbox("box", "0", 100))[1]] == [drain]
    await engine.engines.deregister("box", session)
    for_another_age = structs.replace(info(), protocol_version=0)
    with pytest.raises(IncompatibleVersion):
        await engine.engines.register(for_another_age, EngineReport(), {}, 30)
    assert (await store.tasks.read("t1")).state is TaskState.COMPLETED
    assert (await store.tasks.read("t2")).state is TaskState.QUEUED


async def test_the_retention_of_a_task_that_an_engine_ends_covers_what_only_the_control_plane_sees(
    store, engine
):
    scene = Scene(store)
    await engine.engines.register(info(), EngineReport(), {}, 30)
    scene.epoch = await store.scheduling.lead("me", 30)
    await scene.submit("t1")
    await scene.assign("t1")
    _, [(entry, order)] = await engine.engines.inbox("box", "0", 100)
    await engine.engines.accept(order, "box", entry, TaskState.RUNNING)
    await engine.engines.finish(order, "box", Outcome(state=TaskState.COMPLETED))
    admin = Redis.from_url(store.url)
    keys = Keys(store.pool)
    assert await admin.pttl(keys.control("t1")) == pytest.approx(await admin.pttl(keys.task("t1")), abs=1000)
    await admin.aclose()


def reads(keys):
    """Commands that read, on what an engine must not read."""
    return {
        "another engine's inbox": ("XREAD", "STREAMS", keys.inbox("box-2"), "0"),
        "another engine's inbox by range": ("XRANGE", keys.inbox("box-2"), "-", "+"),
        "another engine": ("HGETALL", keys.engine("box-2")),
        "another engine's tasks": ("HGETALL", keys.engine_tasks("box-2")),
        "the API keys": ("HGETALL", keys.api_keys),
        "one API key": ("HGET", keys.api_keys, "0"),
        "the owners' secrets": ("HGETALL", keys.secrets("admin")),
        "the record of changes": ("XRANGE", keys.audit, "-", "+"),
        "who was refused": ("XRANGE", keys.audit_refused, "-", "+"),
        "what signs webhooks": ("HGETALL", keys.signing_secrets),
        "where an ending is told": ("HGETALL", keys.delivery("d1")),
        "who leads": ("GET", keys.leader),
        "the epoch": ("GET", keys.epoch),
        "who owns a task": ("HGET", keys.control("t1"), "owner"),
        "what a task may be given": ("HGETALL", keys.control("t1")),
        "its own enrolment": ("HGETALL", keys.enrolment("box")),
        "what is pinned, for whom": ("HGETALL", keys.pins),
        "what may be given for an order to load": ("HGETALL", keys.load("load~1")),
        "the wake stream": ("XREAD", "STREAMS", keys.wake, "0"),
        "what waits for a time": ("ZRANGE", keys.delayed, 0, -1),
        "the queue": ("ZRANGE", keys.pending, 0, -1),
        "the sessions": ("HGETALL", keys.session("s")),
        "the files": ("GET", keys.file("f")),
        "the apps": ("HGETALL", keys.apps),
        "another pool": ("HGETALL", Keys("another").task("t1")),
        "what is not of Stoker": ("GET", "other"),
    }


def writes(keys):
    """Commands that change what an engine must not change."""
    return {
        "lead": ("SET", keys.leader, "9:me"),
        "the owner of a task": ("HSET", keys.control("t1"), "owner", "me"),
        "remove what the control plane knows": ("DEL", keys.control("t1")),
        "remove a task": ("DEL", keys.task("t1")),
        "where an ending is told": ("HSET", keys.delivery("d1"), "about", "{}"),
        "another engine's inbox": ("XADD", keys.inbox("box-2"), "*", "k", "drain"),
        "another engine's entry": ("HSET", keys.engine("box-2"), "status", "stopped"),
        "an API key": ("HSET", keys.api_keys, "0", "{}"),
        "empty the wake stream": ("XTRIM", keys.wake, "MAXLEN", 0),
        "remove what waits for a time": ("DEL", keys.delayed),
        "take from what waits for a time": ("ZREM", keys.delayed, "t1"),
        "remove the queue": ("DEL", keys.pending),
        "take from the queue": ("ZREM", keys.pending, "t1"),
        "the record of changes": ("XADD", keys.audit, "*", "change", "{}"),
        "the record of refused attempts": ("XADD", keys.audit_refused, "*", "change", "{}"),
        "the length of the record of changes": ("XTRIM", keys.audit, "MAXLEN", 0),
        "its own enrolment": ("HSET", keys.enrolment("box"), "state", "joined"),
        "what is pinned": ("HSET", keys.pins, "p", "{}"),
        "what may be given for an order to load": ("HSET", keys.load("load~1"), "token_hash", "x"),
        "what is not of Stoker": ("SET", "other", "1"),
        "a key beside the pool": ("SET", "stoker:{default}x", "1"),
        "another channel": ("PUBLISH", "other", "x"),
    }


COMMANDS = [
    ("CONFIG", "GET", "*"),
    ("CONFIG", "SET", "maxmemory", "1"),
    ("KEYS", "*"),
    ("SCAN", "0"),
    ("RANDOMKEY",),
    ("DBSIZE",),
    ("INFO",),
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("SCRIPT", "FLUSH"),
    ("SCRIPT", "KILL"),
    ("FUNCTION", "FLUSH"),
    ("ACL", "LIST"),
    ("ACL", "WHOAMI"),
    ("ACL", "SETUSER", "me", "on"),
    ("DEBUG", "SLEEP", "0"),
    ("CLIENT", "LIST"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("CLIENT", "PAUSE", "1"),
    ("MONITOR",),
    ("SHUTDOWN", "NOSAVE"),
    ("SUBSCRIBE", "x"),
    ("PSUBSCRIBE", "*"),
    ("SELECT", "1"),
    ("REPLICAOF", "NO", "ONE"),
    ("MODULE", "LIST"),
    ("SLOWLOG", "GET"),
    ("MULTI",),
]


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
async def test_no_command_beside_the_protocol(raw, command):
    with pytest.raises(ResponseError, match=r"permission|DEBUG command not allowed"):
        await raw.execute_command(*command)


@pytest.mark.parametrize("what", list(reads(Keys("any"))))
async def test_cannot_read(store, raw, what):
    with pytest.raises(NoPermissionError):
        await raw.execute_command(*reads(Keys(store.pool))[what])


@pytest.mark.parametrize("what", list(writes(Keys("any"))))
async def test_cannot_write(store, raw, what):
    with pytest.raises(NoPermissionError):
        await raw.execute_command(*writes(Keys(store.pool))[what])


@pytest.mark.parametrize("what", [*reads(Keys("any")), *writes(Keys("any"))])
@pytest.mark.parametrize("declared", [True, False])
async def test_a_script_can_do_no_more_than_its_caller(store, raw, what, declared):
    """Also when it is given the key of which the caller may do something else."""
    keys = Keys(store.pool)
    command = (reads(keys) | writes(keys))[what]
    call = ", ".join(f"'{part}'" for part in command)
    given = [part for part in command if str(part).startswith("stoker:")] if declared else []
    with pytest.raises(RedisError, match=r"(?i)permission|NOPERM|can't run this command|not allowed"):
        await raw.execute_command("EVAL", f"return redis.call({call})", len(given), *given)


@pytest.mark.parametrize("command", [c for c in COMMANDS if c[0] not in ("MULTI", "MONITOR")], ids=" ".join)
async def test_a_script_runs_no_command_beside_the_protocol(raw, command):
    call = ", ".join(f"'{part}'" for part in command)
    with pytest.raises(RedisError):
        await raw.execute_command("EVAL", f"return redis.call({call})", 0)


async def test_a_revoked_engine_is_cut_off_at_once(store, engine):
    await engine.engines.register(info(), EngineReport(), {}, 30)
    await store.enrolments.revoke("box", "me")
    await store.enrolments.expel("box")
    with pytest.raises(StoreUnavailable, match=r"(?i)auth|user|connection|closed"):
        await engine.ping()


async def test_a_blocking_read_of_a_revoked_engine_ends(store, raw):
    keys = Keys(store.pool)
    read = ("XREAD", "BLOCK", 0, "STREAMS", keys.inbox("box"), "0")
    reading = asyncio.ensure_future(raw.execute_command(*read))

    async def blocks():
        clients = (await store._connection.command("CLIENT", "LIST")).decode().splitlines()
        return any(f" user={user_name(keys, 'box')} " in one and " cmd=xread " in one for one in clients)

    try:
        await eventually(blocks, "the read to block")
        await store.enrolments.revoke("box", "me")
        await store.enrolments.expel("box")
        await asyncio.wait({reading}, timeout=PATIENCE_S)
        assert reading.done()
        with pytest.raises((RedisError, OSError)):
            reading.result()
    finally:
        reading.cancel()


async def test_users_that_the_server_forgot_are_made_again(store, engine):
    await store.enrolments.expel("box")
    await store.enrolments.settle()
    await engine.ping()


async def test_a_user_of_an_older_version_gets_the_rights_of_this_one(store, engine):
    admin = Redis.from_url(store.url)
    user = user_name(Keys(store.pool), "box")
    await admin.execute_command("ACL", "SETUSER", user, "clearselectors")
    with pytest.raises(ScriptFailed):
        await engine.engines.register(info(), EngineReport(), {}, 30)
    started = await Store.open(store.url, store.pool)  # the gateway, after an upgrade
    await started.enrolments.settle()
    await engine.engines.register(info(), EngineReport(), {}, 30)
    await started.close()
    await admin.aclose()


async def test_a_user_that_must_not_be_is_removed(store, engine):
    await store.enrolments.revoke("box", "me")  # the gateway ended here
    await store.enrolments.settle()
    with pytest.raises(StoreUnavailable):
        await engine.ping()


async def test_a_user_of_a_revoked_enrolment_is_not_made(store):
    """As when one gateway revokes between another's look and its deed."""
    await enrol(store)
    seen = await store.enrolments.find("box")
    await store.enrolments.revoke("box", "me")
    await store.enrolments.admit(seen)
    admin = Redis.from_url(store.url)
    assert user_name(Keys(store.pool), "box").encode() not in [
        u if isinstance(u, bytes) else u.encode() for u in await admin.execute_command("ACL", "USERS")
    ]
    await admin.aclose()


async def test_the_number_of_an_attempt_alone_changes_nothing(store, engine):
    """A worker that counts attempts cannot end another's task: it lacks the token."""
    scene = Scene(store)
    await engine.engines.register(info(), EngineReport(), {}, 30)
    scene.epoch = await store.scheduling.lead("me", 30)
    await scene.submit("t1")
    await scene.assign("t1")
    _, [(_, order)] = await store.engines.inbox("box", "0", 100)
    guess = type(order)(
        task=order.task, attempt=order.attempt, token="guess", worker_id=order.worker_id, evict=()
    )
    for call in (
        engine.engines.accept(guess, "box", "0-1", TaskState.RUNNING),
        engine.engines.transition("t1", 1, "guess", TaskState.RUNNING),
        engine.engines.append("t1", 1, "guess", partial=b"1"),
        engine.engines.finish(guess, "box", Outcome(state=TaskState.COMPLETED)),
        engine.engines.hand_back(guess, "box", "0-1", "mine"),
    ):
        with pytest.raises(StaleAttempt):
            await call
    assert (await store.tasks.read("t1")).state is TaskState.SCHEDULED


async def test_a_hostile_engine_that_writes_itself_into_a_task_gets_nothing_from_the_gateway(store, raw):
    """It can write the hash of any task, but whose attempt that is the gateway reads elsewhere."""
    scene = Scene(store)
    await scene.set_up()
    await scene.assign("t1")
    keys = Keys(store.pool)
    forged = "a9993e364706816aba3e25717850c26c9cd0d89d"  # SHA-1 of "abc"
    await raw.execute_command("HSET", keys.task("t1"), "token_hash", forged, "writer:1", forged)
    with pytest.raises(Unauthorized):
        await store.tasks.check_token("t1", "abc")
    with pytest.raises(Unauthorized):
        await store.logs.check("t1", 1, "abc")
    # Nor the code of another app, by writing its version into a task of its own.
    await raw.execute_command("HSET", keys.task("t1"), "request", "{}")
    assert await store.tasks.version_id("t1") == spec("t1").version_id


NONSENSE = [
    *({field: value} for field in ("state", "attempt", "created", "history") for value in ("x", "", b"\xff")),
    {"request": "{"},
    {"log_last": "x"},
    {"delta_attempt": "0", "delta_last": "x"},
]


@pytest.mark.parametrize("fields", NONSENSE, ids=str)
async def test_a_task_that_an_engine_spoils_harms_no_other_task(store, raw, fields):
    """Neither those that read many at once, nor the scheduler that goes through all of them."""
    scene, keys = Scene(store), Keys(store.pool)
    await scene.set_up()
    await scene.submit("t2")
    await raw.execute_command("HSET", keys.task("t1"), *itertools.chain(*fields.items()))
    await raw.execute_command("XADD", keys.task_events("t1"), "*", "l", "{")
    _, good = await store.tasks.read_many(["t1", "t2"])
    assert good.request.id == "t2"
    orders = [AssignOrder(task_id=t, engine_id="box", worker_id="box-cpu-0") for t in ("t1", "t2")]
    _, result = await store.scheduling.assign_many(scene.epoch, orders)
    assert (result.attempt, result.refusal) == (1, "")
    last, messages = await store.engines.inbox("box", "0", 100)
    assert "t2" in {message.task.id for _, message in messages}
    assert (await store.engines.inbox("box", last, 1))[1] == []
    await store.scheduling.requeue(scene.epoch, "t1", "box", 1, "lost")
    await store.scheduling.fail_queued(scene.epoch, "t1", "code", "error")


async def test_an_ending_that_nobody_can_read_holds_no_other_up(store, raw):
    keys = Keys(store.pool)
    await store.outbox.open()
    good = {"task": "t1", "attempt": "1", "state": "9", "notify": "http://x/"}
    changes = (
        *({"attempt": "x"}, {"state": "99"}, {"task": "a:b"}, {"task": b"\xff"}),
        *(
            {"waiter": "{"},
            {"waiter": '{"kind": "chat", "id": "a:b"}'},
            {"document": "flowrun"},
        ),
    )
    for entry in ({"x": "y"}, *(good | change for change in changes), good):
        await raw.execute_command("XADD", keys.outbox, "*", *itertools.chain(*entry.items()))
    found = await store.outbox.read("me", 10)
    assert [ending.task_id for ending in found] == ["t1"]
    for ending in found:
        await store.outbox.done([ending])
    admin = Redis.from_url(store.url)
    assert await admin.xlen(keys.outbox) == 0
    await admin.aclose()


def still(keys):
    """What docs/security.md says of a hostile machine: each is a command that its user may send."""
    return {
        "read the task of another engine": ("HGET", keys.task("t1"), "request"),
        "change its output": ("HSET", keys.task("t1"), "output", "1"),
        "put words into its log": ("XADD", keys.task_events("t1"), "*", "l", "[]"),
        "claim any hardware": ("HSET", keys.engine("box"), "info", "{}"),
        "take the lease of another machine": ("ZREM", keys.leases, "box-2"),
        "put nonsense into the queue": ("ZADD", keys.pending, "0", "none"),
        "put nonsense into the wake stream": ("XADD", keys.wake, "*", "k", "x"),
        "have a webhook sent": ("XADD", keys.outbox, "*", "task", "t1", "notify", "http://x/"),
        "make what the control plane knows of a task expire": ("PEXPIRE", keys.control("t1"), "1"),
        "close the wake stream": ("XADD", keys.wake, f"{2**64 - 1}-{2**64 - 1}", "k", "x"),
    }


@pytest.mark.parametrize("what", list(still(Keys("any"))))
async def test_a_hostile_engine_can_still(store, raw, what):
    await Scene(store).set_up()
    await raw.execute_command(*still(Keys(store.pool))[what])


async def test_a_run_that_cannot_be_queued_is_refused_as_what_it_is(store, raw):
    """A script that breaks off is no refusal of the request."""
    scene, keys = Scene(store), Keys(store.pool)
    await scene.set_up()
    await raw.execute_command(*still(keys)["close the wake stream"])
    with pytest.raises(ScriptFailed) as failed:
        await scene.submit("t2")
    assert (failed.value.http, failed.value.fields) == (500, {"script": "submit"})


@pytest.mark.parametrize("name", [b"\xff", "box:inbox"], ids=("no text", "another key"))
async def test_what_is_no_id_in_an_index_or_on_the_wake_stream_is_passed_over(store, engine, raw, name):
    keys = Keys(store.pool)
    await engine.engines.register(info(), EngineReport(), {}, 30)
    await raw.execute_command("XADD", keys.inbox("box"), "*", "k", "x")
    for index in (keys.engines, keys.leases, keys.pending, keys.delayed):
        await raw.execute_command("ZADD", index, "0", name)
    await raw.execute_command("XADD", keys.wake, "*", "k", "engine", "engine", name)
    assert [each.info.id for each in await store.engines.list()] == ["box"]
    assert [each.engine_id for each in (await store.scheduling.wake("0", 1))[1]] == ["box"]
    assert (await store.scheduling.expired(), await store.scheduling.pending()) == ([], [])
    assert (await store.work.waiting(5)).items == ()
    epoch = await store.scheduling.lead("test", 60)
    assert (await store.scheduling.release(epoch, await store.now_ms()))[0] == []
    assert await store.scheduling.delayed_count() == 0


async def test_a_task_that_is_due_at_no_time_is_never_looked_for(store, raw):
    await raw.execute_command("ZADD", Keys(store.pool).delayed, "inf", "t1")
    assert await store.scheduling.release(1, await store.now_ms()) == ([], 0)


@pytest.mark.parametrize("told", ["{", json.encode(structs.asdict(info()) | {"fetch_timeout_s": 1e300})])
async def test_an_engine_that_writes_nonsense_disturbs_nobody_else(store, engine, raw, told):
    keys = Keys(store.pool)
    await engine.engines.register(info(), EngineReport(), {}, 30)
    await store.engines.register(info("box-2"), EngineReport(), {}, 30)
    await raw.execute_command("HSET", keys.engine("box"), "info", told)
    await raw.execute_command("XADD", keys.wake, "*", "k", "nonsense")
    await raw.execute_command("XADD", keys.wake, "*", "k", "submitted", "spec", "{")
    await raw.execute_command("XADD", keys.wake, "*", "k", "session", "session", "s1", "reason", "x")
    with pytest.raises(NotFound):
        await store.engines.get("box")
    assert [each.info.id for each in await store.engines.list()] == ["box-2"]
    _, events = await store.scheduling.wake("0", 1)
    assert {event.kind for event in events} == {"engine"}
