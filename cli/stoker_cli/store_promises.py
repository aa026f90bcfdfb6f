"""What a Redis or Valkey promises to a system that keeps its accepted tasks there, from what it says of itself."""

import re
from collections.abc import Iterator, Mapping
from typing import Final

from stoker_cli.findings import Finding, Verdict

LEAST_VERSION: Final = (6, 2)
"""The first with every command that the scripts use."""
FULL: Final = 0.9
"""Share of maxmemory from which on it is worth a word: at the end of it nothing is accepted."""
CONFIG: Final = ("appendonly", "appendfsync", "save", "maxmemory-policy", "min-replicas-to-write")
"""The configuration that is looked at. A managed server may not tell it: ''."""

Facts = Mapping[str, str]


def judge_store(where: str, info: Facts, config: Facts) -> Iterator[Finding]:
    """All findings.

    Args:
        where: the server's address, without a password.
        info: the answer to INFO.
        config: the values of `CONFIG`.
    """
    yield _server(where, info)
    yield _durability(info, config)
    yield _replicas(info, config)
    yield _eviction(info, config)
    if (memory := _memory(info)) is not None:
        yield memory


def _server(where: str, info: Facts) -> Finding:
    version = info.get("valkey_version") or info.get("redis_version") or "unknown"
    role = info.get("role", "master")
    text = f"{where}, version {version}, {role}"
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:2])
    if role != "master":
        advice = "give the address of the primary"
        return Finding(name="database", verdict=Verdict.FAIL, text=text, advice=advice)
    if numbers and numbers < LEAST_VERSION:
        advice = "Redis 6.2 or newer is needed, or any Valkey"
        return Finding(name="database", verdict=Verdict.FAIL, text=text, advice=advice)
    return Finding(name="database", verdict=Verdict.OK, text=text)


def _durability(info: Facts, config: Facts) -> Finding:
    if info.get("aof_last_write_status", "ok").strip() != "ok":
        return Finding(
            name="durability",
            verdict=Verdict.FAIL,
            text="its last write to the append-only file failed: it takes no more tasks, or loses them",
            advice="look into its log, and at the space on its disk",
        )
    if config.get("appendonly") != "yes" and info.get("aof_enabled", "").strip() != "1":
        kept = "only snapshots" if config.get("save") else "no persistence"
        return Finding(
            name="durability",
            verdict=Verdict.WARN,
            text=f"no append-only file, {kept}: accepted tasks are lost when the server restarts",
            advice="set appendonly yes and appendfsync always (or everysec)",
        )
    policy = config.get("appendfsync") or "unknown"
    if policy == "always":
        return Finding(name="durability", verdict=Verdict.OK, text="append-only file, synced at every write")
    return Finding(
        name="durability",
        verdict=Verdict.WARN,
        text=f"append-only file, appendfsync {policy}: the last {_lost(policy)} of accepted tasks may be lost",
        advice="set appendfsync always where that is not acceptable",
    )


def _lost(policy: str) -> str:
    return "half minute" if policy == "no" else "second"


def _replicas(info: Facts, config: Facts) -> Finding:
    count = int(info.get("connected_slaves", "0").strip() or 0)
    needed = config.get("min-replicas-to-write") or "0"
    if not count:
        text = "none: this server's disk is the only copy"
        return Finding(name="replicas", verdict=Verdict.OK, text=text)
    if needed == "0":
        return Finding(
            name="replicas",
            verdict=Verdict.WARN,
            text=f"{count}, not waited for: a failover may lose the last accepted tasks",
            advice="set min-replicas-to-write 1, so that a primary that was cut off accepts nothing",
        )
    text = f"{count}; writes are refused with fewer than {needed} (replication stays asynchronous)"
    return Finding(name="replicas", verdict=Verdict.OK, text=text)


def _eviction(info: Facts, config: Facts) -> Finding:
    policy = config.get("maxmemory-policy") or info.get("maxmemory_policy", "").strip() or "unknown"
    if policy == "noeviction":
        return Finding(name="eviction", verdict=Verdict.OK, text="maxmemory-policy noeviction")
    return Finding(
        name="eviction",
        verdict=Verdict.FAIL if policy != "unknown" else Verdict.WARN,
        text=f"maxmemory-policy {policy}: a full server may throw tasks away",
        advice="set maxmemory-policy noeviction",
    )


def _memory(info: Facts) -> Finding | None:
    """How full it is, if it has a limit."""
    used, limit = (int(info.get(name, "0").strip() or 0) for name in ("used_memory", "maxmemory"))
    if not limit:
        return None
    text = f"{used / 1e6:.0f} of {limit / 1e6:.0f} MB used"
    if used < limit * FULL:
        return Finding(name="memory", verdict=Verdict.OK, text=text)
    advice = "raise maxmemory, or lower STOKER_RETENTION_S: a full server accepts no task"
    return Finding(name="memory", verdict=Verdict.WARN, text=text, advice=advice)
