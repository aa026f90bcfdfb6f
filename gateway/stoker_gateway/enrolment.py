"""Machines that join: a token, once; an identity for it; and the end of it.

A machine's identity is a Redis user of its own (`stoker/protocol/acl.py`) and a key for the routes under /internal.
Both are random; what is stored of them are hashes. Workers that share the gateway's data directory need neither.
"""

import asyncio
import secrets
from typing import Final
from urllib.parse import urlsplit

from stoker.core.audit import Action, Actor, change_of
from stoker.core.enrolments import Enrolment, EnrolmentState, Identity, digest
from stoker.core.errors import Conflict, NotFound, StoreUnavailable, Unauthorized
from stoker.core.events import Event
from stoker.core.messages import EngineId
from stoker.log import get_logger
from stoker.protocol import Store
from stoker.protocol.acl import check_server, user_name
from stoker.protocol.keys import Keys
from stoker.server_address import parse_redis
from stoker.settings import GatewaySettings
from stoker.tls_settings import without_user

SECRET_BYTES: Final = 32
SETTLE_S: Final = 5.0
"""Between two looks at the users of Redis: how long machines are shut out after its restart, at most."""
ENGINE_HEADER: Final = "x-stoker-engine"

log = get_logger("enrolment")


class Enroller:
    """Lets machines join, and shuts them out."""

    def __init__(self, store: Store, settings: GatewaySettings, base_url: str) -> None:
        self._store = store
        self._settings = settings
        self._base_url = base_url
        self._complained = ""

    @property
    def gateway_url(self) -> str:
        """Where machines reach the gateway.

        Raises:
            Conflict: it listens on every address, and nothing says which of them is known to others.
        """
        url = self._settings.internal_url or self._base_url
        if urlsplit(url).hostname in {"0.0.0.0", "::"}:  # noqa: S104 - compared, not bound
            raise Conflict(
                "The gateway listens on every address of its machine. Set STOKER_INTERNAL_URL to the address under "
                "which worker machines reach it."
            )
        return url

    @property
    def redis_url(self) -> str:
        """Where machines reach Redis.

        Raises:
            Conflict: it listens on a socket of this machine alone, or is a cluster.
        """
        url = self._settings.worker_redis_url or without_user(self._settings.redis_url)
        kind = parse_redis(url).kind if url else ""
        if kind == "cluster":
            raise Conflict(
                "The Redis of this system is a cluster, whose nodes do not share their users: machines cannot be let in "
                "with users of their own. Use one server, or one with Sentinels; or run the workers on machines that "
                "may have the system's own address of Redis (STOKER_REDIS_URL)."
            )
        if not url or url.startswith("unix:"):
            raise Conflict(
                "The Redis of this system listens on a socket of its own machine alone. Start it with `stoker up "
                "--listen host:port`, or give every part a Redis with TLS (STOKER_REDIS_URL)."
            )
        return url

    async def enroll(self, name: str, by: Actor) -> tuple[str, int]:
        """Invite a machine: what it gives as STOKER_JOIN, and until when that is good (ms).

        Raises:
            Conflict: the name is in use, or machines cannot reach Redis, or it cannot hold them apart.
            InvalidRequest: the name cannot be a worker's.
        """
        _ = self.redis_url
        check_server(await self._store.info())
        token = f"{name}~{secrets.token_urlsafe(SECRET_BYTES)}"
        expires = await self._store.enrolments.invite(
            name,
            digest(token),
            self._settings.join_token_s,
            by.user_id,
            change_of(Action.WORKER_INVITED, name, by),
        )
        log.info(Event.WORKER_ENROLLED, worker=name, by=by.user_id)
        scheme, _, host = self.gateway_url.partition("://")
        return f"{scheme}://{token}@{host}", expires

    async def join(self, token: str, address: str) -> Identity:
        """Exchange a token for an identity.

        Raises:
            Unauthorized: the token is unknown, used, or too old.
            Conflict: Redis does not let the gateway make the user.
        """
        name = token.partition("~")[0]
        password, key = secrets.token_urlsafe(SECRET_BYTES), secrets.token_urlsafe(SECRET_BYTES)
        enrolments = self._store.enrolments
        if await enrolments.find(name) is None:  # a name that is no name, too
            raise Unauthorized("The token is unknown. Make a new one: stoker workers enroll NAME")
        joined = change_of(Action.WORKER_JOINED, name, Actor(address=address))
        await enrolments.join(name, digest(token), digest(password), digest(key), joined)
        found = await enrolments.find(name)
        if found is None or found.password_sha256 != digest(password):
            raise Unauthorized(f"The enrolment of '{name}' was revoked")
        await enrolments.admit(found)
        log.info(Event.WORKER_JOINED, worker=name)
        return Identity(
            engine_id=EngineId(name),
            pool=self._store.pool,
            redis_url=self.redis_url,
            redis_user=user_name(Keys(self._store.pool), EngineId(name)),
            redis_password=password,
            gateway_url=self.gateway_url,
            gateway_key=key,
            joined_with=digest(token),
        )

    async def revoke(self, name: str, by: Actor) -> Enrolment:
        """Shut a machine out at once; its tasks are taken back when its lease ends.

        Raises:
            NotFound: no machine of this name was enrolled.
            Conflict: Redis does not let the gateway remove the user.
        """
        await self._store.enrolments.revoke(name, by.user_id, change_of(Action.WORKER_REVOKED, name, by))
        await self._store.enrolments.expel(name)
        log.info(Event.WORKER_REVOKED, worker=name, by=by.user_id)
        found = await self._store.enrolments.find(name)
        if found is None:
            raise NotFound(f"No worker '{name}' is enrolled")
        return found

    async def check(self, engine_id: str, header: str) -> None:
        """Whether a request for a task of `engine_id` comes from that engine.

        Args:
            engine_id: to whom the scheduler gave the task.
            header: `X-Stoker-Engine`: ``name:key``; '' from a machine that was not enrolled.

        Raises:
            Unauthorized: an enrolled engine's key is missing, wrong or revoked; or it speaks for another engine.
        """
        name, _, key = header.partition(":")
        if name and name != engine_id:
            raise Unauthorized("This attempt does not own the task")
        found = await self._store.enrolments.find(engine_id)
        if found is None:
            return
        good = found.state is EnrolmentState.JOINED and secrets.compare_digest(found.key_sha256, digest(key))
        if not good:
            raise Unauthorized(f"The enrolment of '{engine_id}' is not valid (any more)")

    async def settle_loop(self) -> None:
        """Keep the users of Redis as the enrolments say: it may forget them when it starts again."""
        while True:
            try:
                await self._store.enrolments.settle()
                self._complained = ""
            except (StoreUnavailable, Conflict) as error:
                if error.message != self._complained:
                    log.warning(Event.WORKER_USERS_FAILED, reason=error.message)
                self._complained = error.message
            await asyncio.sleep(SETTLE_S)
