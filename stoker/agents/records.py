"""Stored agents: a name and its versions, each a config as it was sent."""

import hashlib
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from stoker.core.errors import NotFound
from stoker.core.ids import derived_id
from stoker.core.refs import parse_ref
from stoker.protocol import Store
from stoker.protocol.documents import Change

AGENT_KIND: Final = "agent"
MAX_VERSIONS: Final = 100
"""Of one agent; the oldest go."""
MAX_BYTES: Final = 4 * 1024 * 1024
"""Of their configs together, with the texts of skills: all are read with each message. The latest stays in any case."""
_encode = msgspec.json.Encoder(order="sorted").encode


class AgentVersion(Struct, frozen=True, kw_only=True):
    """A version; its id is the hash of its config."""

    id: str
    config: dict[str, Any]
    created_ms: int


class Agent(Struct, frozen=True, kw_only=True):
    """An agent. The last version is the current one."""

    id: str
    namespace: str
    name: str
    owner_id: str
    title: str = ""
    visibility: str = "private"
    images: dict[str, str] = {}
    versions: tuple[AgentVersion, ...] = ()
    created_ms: int = 0
    updated_ms: int = 0
    revision: int = 0

    def version(self, wanted: str = "") -> AgentVersion:
        """A version by its id or the first characters of it; '' is the current one.

        Raises:
            NotFound: it has no such version.
        """
        found = [v for v in self.versions if v.id.startswith(wanted)] if wanted else list(self.versions[-1:])
        if not found:
            known = ", ".join(v.id[:8] for v in self.versions) or "none"
            raise NotFound(
                f"Agent not found: {self.namespace}/{self.name} has no version {wanted!r}; known: {known}"
            )
        return found[-1]


_agent = msgspec.json.Decoder(Agent)


def agent_id(namespace: str, name: str) -> str:
    """The id that belongs to a name."""
    return derived_id(AGENT_KIND, namespace, name)


def version_of(config: dict[str, Any], now_ms: int) -> AgentVersion:
    """A config as a version."""
    digest = hashlib.sha256(_encode(config)).hexdigest()[:32]
    return AgentVersion(id=digest, config=config, created_ms=now_ms)


async def read_agent(store: Store, wanted_id: str, user_id: str) -> Agent:
    """An agent that a user may use, by its id.

    Raises:
        NotFound: there is none for him.
    """
    document = await store.documents.get(AGENT_KIND, wanted_id)
    agent = msgspec.structs.replace(
        _agent.decode(document.body),
        created_ms=document.created_ms,
        updated_ms=document.updated_ms,
        revision=document.revision,
    )
    if agent.owner_id != user_id and agent.visibility not in {"public", "unlisted"}:
        raise NotFound("Agent not found")
    return agent


async def find_agent(store: Store, ref: str, user_id: str) -> tuple[Agent, AgentVersion]:
    """An agent and its version by a reference: namespace/name, with @version if wanted.

    Raises:
        NotFound: there is none for this user.
        InvalidRequest: the text is no reference.
    """
    parsed = parse_ref(ref)
    try:
        agent = await read_agent(store, agent_id(parsed.namespace, parsed.name), user_id)
    except NotFound:
        raise NotFound(f"Agent not found: {ref}") from None
    return agent, agent.version(parsed.version)


def latest(versions: Sequence[AgentVersion]) -> tuple[AgentVersion, ...]:
    """The versions of an agent that are kept."""
    kept, left = deque[AgentVersion](), MAX_BYTES
    for version in reversed(versions[-MAX_VERSIONS:]):
        left -= len(_encode(version.config))
        if kept and left < 0:
            break
        kept.appendleft(version)
    return tuple(kept)


async def write_agent(store: Store, agent: Agent) -> Agent:
    """Write an agent that has not changed since it was read (revision 0: it is new).

    Raises:
        DocumentChanged: somebody else changed or made it.
    """
    kept = msgspec.structs.replace(agent, versions=latest(agent.versions))
    revision = await store.documents.put(
        AGENT_KIND, agent.id, agent.owner_id, agent.revision, Change(body=_encode(kept))
    )
    return msgspec.structs.replace(kept, revision=revision)
