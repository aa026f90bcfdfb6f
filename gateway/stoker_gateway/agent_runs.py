"""A message to an agent on its way into a chat: what was sent, which agent is meant, the chat that goes on."""

import hashlib
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from stoker.agents.beginning import TRIES, commit, pause_after
from stoker.agents.chat import Chat, Message
from stoker.agents.chats import Kept, load_chat
from stoker.agents.config import AgentConfig, fill_context, read_config
from stoker.agents.masking import unmasked
from stoker.agents.prepare import prepare
from stoker.agents.records import Agent, find_agent, read_agent
from stoker.agents.step import Said, steps_now
from stoker.core.errors import Conflict, DocumentChanged, InvalidRequest, NotFound
from stoker.core.ids import new_id
from stoker.core.scopes import Scope
from stoker_gateway.access import lacks, refuse
from stoker_gateway.door import Caller
from stoker_gateway.services import Services
from stoker_gateway.skills import with_skills

_PICTURE: Final = "image/"
_FILE_KEYS: Final = ("uri", "filename", "content_type", "size")
_encode = msgspec.json.Encoder(order="sorted").encode


class AgentRunBody(Struct, kw_only=True):
    """A message to an agent: one that is stored (`agent`, a reference), or one that is described (`agent_config`)."""

    chat_id: str | None = None
    agent: str | None = None
    agent_id: str | None = None
    agent_version_id: str | None = None
    agent_config: dict[str, Any] | None = None
    agent_name: str | None = None
    context: dict[str, Any] | None = None
    input: dict[str, Any] = {}
    stream: bool | None = None


class Meant(Struct, frozen=True, kw_only=True):
    """The agent that a request means."""

    config: AgentConfig
    digest: str
    agent_id: str = ""
    version_id: str = ""


class AgentRuns:
    """Puts messages of a caller into chats."""

    def __init__(self, services: Services, caller: Caller) -> None:
        self._services = services
        self._caller = caller

    async def send(self, body: AgentRunBody) -> tuple[Chat, Message, Message]:
        """Say something to an agent.

        Returns:
            The chat, the user's message, and the assistant's that answers it (or the one that goes on before it).

        Raises:
            InvalidRequest: names the field.
            NotFound: no such chat, agent or app for this user.
            MissingScope: the agent is described, refers to secrets, and the key may not read them.
        """
        said = said_of(body.input)
        if not body.chat_id:
            chat = await self.begin(body)
            return await self._said(None, chat, said)
        for number in range(TRIES):
            before = await load_chat(self._services.store, body.chat_id)
            if before.chat.owner.user_id != self._caller.owner.user_id:
                raise NotFound("Chat not found")
            chat = await self._as_sent(before.chat, body)
            try:
                return await self._said(before, chat, said)
            except DocumentChanged:
                await pause_after(number)
        raise Conflict("The chat changes all the time just now. Send this again.")

    async def begin(self, body: AgentRunBody) -> Chat:
        """A new chat with the agent that a request means; not stored yet."""
        meant = await self.meant(body)
        return Chat(
            id=new_id(),
            owner=self._caller.owner,
            config=meant.config,
            config_digest=meant.digest,
            agent_id=meant.agent_id,
            agent_version_id=meant.version_id,
            context=fill_context(meant.config.context, body.context),
            files_url=self._services.base_url,
        )

    async def _said(self, before: Kept | None, chat: Chat, said: Said) -> tuple[Chat, Message, Message]:
        settings = self._services.settings
        check_files(chat.config, said)
        steps = steps_now(settings)
        after = steps.say(chat, said)
        after = await commit(self._services, steps, before, after)
        asked = next(message for message in reversed(after.messages) if message.role == "user")
        answer = after.turn
        assert answer is not None  # noqa: S101 - whoever speaks is answered
        return after, asked, answer

    async def _as_sent(self, chat: Chat, body: AgentRunBody) -> Chat:
        """The chat with what the request says anew of its agent; not while a run is under way."""
        if body.context:
            chat = replace(chat, context=chat.context | fill_context((), body.context))
        digest = digest_of(body.agent_config) if body.agent_config else ""
        if not digest or digest == chat.config_digest or chat.busy:
            return chat
        return with_agent(chat, await self.meant(body))

    async def meant(self, body: AgentRunBody) -> Meant:
        """The agent that a request means, looked up and completed.

        Raises:
            InvalidRequest: names the field.
            NotFound: no such agent or app for this user.
            MissingScope: see `send`.
        """
        user_id = self._caller.owner.user_id
        given, agent, version_id = await self._config(body, user_id)
        if body.agent_name and not given.get("name"):
            given = given | {"name": body.agent_name}
        config = read_config(given)
        if agent is None:
            await self._check_secrets(config)
        prepared = await prepare(config, self._services, user_id, agent)
        digest = digest_of(body.agent_config) if body.agent_config else ""
        agent_id = agent.id if agent is not None else ""
        return Meant(config=prepared, digest=digest, agent_id=agent_id, version_id=version_id)

    async def _check_secrets(self, config: AgentConfig) -> None:
        """Whether the caller's key may have secrets sent to an address that the same request names."""
        wanted = sorted({name for tool in config.tools for name in tool.secrets})
        if wanted and lacks(self._caller, Scope.SECRETS_READ):
            what = (
                f"An agent_config that refers to secrets ({', '.join(wanted)}) and says where their values go"
            )
            tried = "secrets in an agent_config"
            await refuse(self._services, self._caller, Scope.SECRETS_READ, tried, what)

    async def _config(self, body: AgentRunBody, user_id: str) -> tuple[dict[str, Any], Agent | None, str]:
        store = self._services.store
        if body.agent_config:
            return await with_skills(unmasked(body.agent_config), self._services.settings), None, ""
        if body.agent_id:
            agent = await read_agent(store, body.agent_id, user_id)
            version = agent.version(body.agent_version_id or "")
            return version.config, agent, version.id
        if not body.agent:
            raise InvalidRequest(
                "Input validation failed: agent: say which agent (namespace/name), or describe one in agent_config"
            )
        try:
            agent, version = await find_agent(store, body.agent, user_id)
        except NotFound as error:
            # An app of that name is an agent without tools: pages name an agent that was described by its app.
            try:
                await self._services.registry.resolve(body.agent, user_id)
            except NotFound:
                raise error from None
            return {"core_app_ref": body.agent}, None, ""
        return version.config, agent, version.id


def with_agent(chat: Chat, meant: Meant) -> Chat:
    """A chat that goes on with another agent; refused while one works.

    Raises:
        Conflict: a run is under way.
    """
    if chat.busy:
        raise Conflict(
            "The agent is at work. Wait until the chat is idle, or stop it (POST /chats/{id}/stop)."
        )
    same = {tool.name for tool in chat.config.tools if tool in meant.config.tools}
    return replace(
        chat,
        config=meant.config,
        config_digest=meant.digest,
        agent_id=meant.agent_id,
        agent_version_id=meant.version_id,
        sessions={},  # of the tools that the other one had
        always_allowed=tuple(name for name in chat.always_allowed if name in same),
    )


def digest_of(config: Mapping[str, Any]) -> str:
    """What tells whether a config is the same as the last time."""
    return hashlib.sha256(_encode(config)).hexdigest()


def said_of(given: Mapping[str, Any]) -> Said:
    """What a user says, in any generation's form.

    Raises:
        InvalidRequest: it says nothing.
    """
    text = given.get("text")
    images = [*_listed(given.get("image")), *_listed(given.get("images"))]
    files: list[Any] = []
    for file in [*_listed(given.get("files")), *_listed(given.get("attachments"))]:
        (images if _is_picture(file) else files).append(file)
    said = Said(
        text=text if isinstance(text, str) else "",
        images=tuple(_unique(images)),
        files=tuple(_unique(files)),
    )
    if not (said.text or said.images or said.files):
        raise InvalidRequest("Input validation failed: input.text: there is nothing to answer")
    return said


def check_files(config: AgentConfig, said: Said) -> None:
    """Whether the language model takes what came with a message.

    Raises:
        InvalidRequest: it does not.
    """
    for name in ("images", "files"):
        if getattr(said, name) and name not in config.fields:
            raise InvalidRequest(
                f"Input validation failed: input.{name}: the language model {config.core.ref} takes no {name}"
            )


def _listed(value: Any) -> list[Any]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str | dict) and item]


def _is_picture(file: Any) -> bool:
    return isinstance(file, dict) and str(file.get("content_type") or "").startswith(_PICTURE)


def _unique(files: list[Any]) -> list[Any]:
    """Each file once: older clients send their first picture under two names."""
    found: dict[str, Any] = {}
    for file in files:
        plain = file if isinstance(file, str) else {n: file[n] for n in _FILE_KEYS if file.get(n)}
        found.setdefault(plain if isinstance(plain, str) else str(plain.get("uri")), plain)
    return list(found.values())
