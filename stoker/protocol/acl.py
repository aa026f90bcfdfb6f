"""What the Redis user of one engine may do. Derived from what the engine's scripts touch, and from nothing else.

Three kinds of rules, each a selector of its own (Redis 7, Valkey):

- The root may run scripts on the keys that the engine's scripts name. Redis asks both rights for every key of a
  script, because it cannot know what the script does with it; but a script runs with its caller's rights, and no
  command on data belongs to the root.
- So each command of a script must be allowed by one of the selectors: these commands, on these keys.
- One channel, to announce what happened to a task.

No command that lists, configures, empties or watches the server is in any of them.
"""

from typing import Final

from stoker.core.errors import Conflict
from stoker.core.messages import EngineId
from stoker.protocol.keys import Keys

SELECTORS_SINCE: Final = 7
"""Redis 6 knows one list of commands for all keys of a user: an engine could then read what it may only append to."""

ENGINE_SCRIPTS: Final = (
    "accept",
    "append",
    "deltas",
    "deregister",
    "finish",
    "hand_back",
    "register",
    "renew",
    "report",
    "retry",
    "transition",
)
"""What `stoker.protocol.engines.Engines` calls for a daemon."""


class AclUnsupported(Conflict):
    """This Redis cannot keep a worker within its own keys. Use Redis 7 or newer, or Valkey."""

    code = "acl_unsupported"


def user_name(keys: Keys, engine_id: EngineId) -> str:
    """The Redis user of an engine. A pool has no dot in its name, so two pools of one server never share a user."""
    return f"stoker.{keys.pool}.{engine_id}"


def patterns(keys: Keys, engine_id: EngineId) -> dict[str, tuple[str, ...]]:
    """Which commands an engine may use on which keys: key pattern with its right -> commands.

    ``%R~`` may be read, ``%W~`` written, ``~`` both.
    """
    any_task = "*"
    return {
        # Its own registration, inbox and list of tasks. An id holds neither ':' nor a character of a pattern.
        f"~{keys.engine(engine_id)}": ("hget", "hset"),
        f"~{keys.engine_tasks(engine_id)}": ("hget", "hgetall", "hdel"),
        f"~{keys.inbox(engine_id)}": ("xread", "xdel", "del", "xadd"),
        # Indexes of the pool: it adds itself.
        f"~{keys.leases}": ("zadd", "zscore", "zrem"),
        f"%W~{keys.engines}": ("zadd",),
        # What the control plane speaks.
        f"%R~{keys.protocol}": ("hmget",),
        # What it tells the scheduler and the jobs; it reads neither.
        f"%W~{keys.wake}": ("xadd",),
        f"%W~{keys.outbox}": ("xadd",),
        f"%W~{keys.pending}": ("zadd",),
        f"%W~{keys.delayed}": ("zadd",),
        # A task that it hands back waits again; Redis asks both rights for a count.
        f"~{keys.queued}": ("hincrby",),
        # Tasks: which one is its own changes by the second; the attempt's token guards a single write.
        f"~{keys.task(any_task)}": (  # type: ignore[arg-type]
            "hget",
            "hmget",
            "hset",
            "hdel",
            "hincrby",
            "pexpire",
            "xadd",
            "xdel",
            "xlen",
            "xtrim",
        ),
        f"%W~{keys.task_deltas(any_task)}": ("del",),  # type: ignore[arg-type]
        # The retention of an ended task. It cannot read who owns a task, or change what the task may be given.
        f"%W~{keys.control(any_task)}": ("pexpire",),  # type: ignore[arg-type]
    }


def rules(keys: Keys, engine_id: EngineId, password_sha256: str) -> list[str]:
    """The arguments of ACL SETUSER for an engine's user; they replace whatever it had."""
    allowed = patterns(keys, engine_id)
    script_keys = ["~" + pattern.partition("~")[2] for pattern in allowed]
    root = ["+ping", "+time", "+eval", "+evalsha", "+publish", f"&{keys.channel}"]
    selectors = [
        f"(resetchannels {pattern} {' '.join(f'+{command}' for command in commands)})"
        for pattern, commands in allowed.items()
    ]
    return ["reset", "on", f"#{password_sha256}", "resetchannels", *script_keys, *root, *selectors]


def check_server(info: dict[str, str]) -> None:
    """Refuse a server that cannot hold an engine within its keys.

    Args:
        info: what the server says of itself (`Store.info`).

    Raises:
        AclUnsupported: it is older than Redis 7.
    """
    version = info.get("redis_version", "")  # Valkey says the Redis version that it is compatible with
    major = version.split(".")[0]
    if not major.isdecimal() or int(major) < SELECTORS_SINCE:
        raise AclUnsupported(
            f"The Redis of this system is version {version or 'unknown'}: its ACL cannot say which commands are "
            "for which keys, so a worker could read what is not its own. Use Redis 7 or newer, or Valkey; "
            "or run the worker on this machine, where it needs no user."
        )
