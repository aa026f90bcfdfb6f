"""Ways to break the protocol, each against one of its rules. The state machine must notice every one."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from stoker.protocol import scheduling
from stoker.protocol.scripts import scripts


@dataclass(frozen=True)
class Edit:
    """Replaces a piece of a script as it is sent, libraries included."""

    script: str
    old: str
    new: str


OWNED = "local old, problem = owned_state(KEYS[1], attempt, token)"

MUTATIONS: dict[str, tuple[Edit, ...]] = {
    "a move without the attempt check": (
        Edit("transition", OWNED, "local old, problem = redis.call('HGET', KEYS[1], 'state'), nil"),
    ),
    "an ending that does not absorb": (
        Edit("finish", "redis.call('HDEL', task, unpack(END_FIELDS))", ""),
        Edit("finish", "local END_FIELDS", "ALLOWED['9'] = {['10'] = true}\nlocal END_FIELDS"),
        Edit(
            "finish",
            "if redis.call('HGET', task, 'ended_by') ==",
            "if false and redis.call('HGET', task, 'x') ==",
        ),
    ),
    "an assignment by anybody": (Edit("assign", "if not leads(KEYS[4], epoch) then", "if false then"),),
    "a second assignment with the attempt of the first": (
        Edit(
            "assign",
            "text(redis.call('HINCRBY', task, 'attempt', 1))",
            "have[2] == '0' and text(redis.call('HINCRBY', task, 'attempt', 1)) or have[2]",
        ),
    ),
    "a finish that cannot be repeated": (
        Edit(
            "finish",
            "if redis.call('HGET', task, 'ended_by') ==",
            "if false and redis.call('HGET', task, 'x') ==",
        ),
    ),
    "a pop, and then a write": (),
    "log lines that a repeat doubles": (
        Edit("append", "if have[1] == attempt and last <= tonumber(have[2] or '0') then", "if false then"),
    ),
    "a lost attempt that is not spent": (Edit("requeue", "redis.call('HINCRBY', k.task, 'spent', 1)", ""),),
    "an attempt that no engine took, and that is spent": (
        Edit("requeue", "local taken, loss = have[1] ~= '3', nil", "local taken, loss = true, nil"),
    ),
    "an only attempt that begins a second time": (Edit("hand_back", "(old == '7' or old == '8')", "false"),),
    "an old loss that takes the next attempt off its engine": (
        Edit("requeue", "if owned and string.match(owned, '^%d+') == attempt then", "if owned then"),
    ),
    "a failure that queues its task twice": (
        Edit("retry", "if have[1] == writer then", "if false then"),
        Edit("retry", "if have[2] ~= attempt or have[3] ~= redis.sha1hex(token) then", "if false then"),
    ),
    "a time that is over for the attempt after it": (Edit("expire", "if have[2] ~= attempt or", "if"),),
    "a pause that nobody keeps": (Edit("assign", "or (have[6] and have[6] ~= '')", ""),),
    "a cancelled task that comes back when its time has come": (
        Edit("cancel", "redis.call('ZREM', KEYS[10], task_id)", ""),
    ),
    "an engine's entry that stays": (Edit("finish", "redis.call('HDEL', KEYS[6], task_id)", ""),),
    "a cancel that an engine never hears of": (
        Edit("renew", "elseif string.find(owned, ' ') then", "elseif false then"),
    ),
    "a count of waiting tasks that an assignment leaves": (
        Edit("assign", "count_out(KEYS[10], have[5])", ""),
    ),
    "a count of waiting tasks that one taken back does not enter": (
        Edit("requeue", "count_in(k.queued, redis.call('HGET', k.task, 'counted'))", ""),
    ),
    "a count of waiting tasks that a cancelled one stays in": (
        Edit("cancel", "count_out(KEYS[9], have[4])", ""),
    ),
    "a drain that a report undoes": (
        Edit("report", "drain and drain ~= '' and 'draining' or ARGV[4]", "ARGV[4]"),
    ),
    "a drain that a return undoes": (
        Edit("register", "ARGV[7] == '1' and redis.call('HGET', KEYS[2], 'drain') or ''", "''"),
    ),
    "a task that a deleted owner's index keeps": (
        Edit("delete", "redis.call('ZREM', KEYS[4], ARGV[1])", ""),
    ),
}


def apply(name: str, monkeypatch: Any) -> None:
    """Break the protocol for one test.

    Raises:
        AssertionError: the piece to replace is not in the script any more.
    """
    for edit in MUTATIONS[name]:
        script = scripts()[edit.script]
        assert edit.old in script.source, f"{edit.script}.lua has no {edit.old!r}"
        source = script.source.replace(edit.old, edit.new)
        sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()
        monkeypatch.setitem(scripts(), edit.script, msgspec.structs.replace(script, source=source, sha=sha))
    if name == "a pop, and then a write":
        monkeypatch.setattr(
            scheduling.Scheduling, "assign_many", _in_two_calls(scheduling.Scheduling.assign_many)
        )


def _in_two_calls(assign_many: Callable[..., Any]) -> Callable[..., Any]:
    async def popping(self: Any, epoch: int, orders: Any) -> Any:
        for order in orders:
            await self._connection.command("ZREM", self._keys.pending, order.task_id)
        return await assign_many(self, epoch, orders)

    return popping
