"""Machines that may join: the records of them, and their Redis users.

The record is the truth; a user follows from it. Redis keeps users in memory (and in an ACL file, if it has one), and
a replica has its own, so `settle` is called again and again: it makes the users that are missing, and removes those
that must not be.
"""

from collections.abc import Iterable

from redis.exceptions import NoPermissionError, ResponseError

from stoker.core.audit import Change
from stoker.core.enrolments import Enrolment, EnrolmentState
from stoker.core.errors import Conflict, NotFound, ProtocolRefusal, Unauthorized
from stoker.core.ids import check_name
from stoker.core.messages import EngineId
from stoker.protocol import acl
from stoker.protocol.audit import note
from stoker.protocol.connection import Arg, Connection
from stoker.protocol.keys import Keys
from stoker.protocol.streams import mapping

_USERS = (
    "The Redis user of this gateway may not manage users. Give it +acl|setuser, +acl|deluser and "
    "+acl|users, or connect the gateway as a user that has them."
)


class Enrolments:
    """The machines that were invited to one pool."""

    def __init__(self, connection: Connection, keys: Keys) -> None:
        self._connection = connection
        self._keys = keys
        self._current: set[EngineId] = set()  # whose users have the rights of this version, for sure

    async def invite(
        self, name: str, token_sha256: str, ttl_s: float, by: str, change: Change | None = None
    ) -> int:
        """Invite a machine; until when its token is good, in ms of the server's clock.

        Raises:
            InvalidRequest: the name cannot be an engine's id.
            Conflict: it has joined already, or another machine runs under this name.

        Script: lua/enroll.lua.
        """
        engine_id = EngineId(check_name("worker name", name))
        keys = self._keys
        try:
            result = await self._connection.script(
                "enroll",
                [keys.enrolment(engine_id), keys.enrolments, keys.engine(engine_id), keys.audit],
                [engine_id, token_sha256, int(ttl_s * 1000), by, *note(change)],
            )
        except ProtocolRefusal as refusal:
            if refusal.refusal == "ALREADY_JOINED":
                raise Conflict(
                    f"'{name}' has joined already. Revoke it first (stoker workers revoke {name}), or choose "
                    "another name."
                ) from refusal
            raise Conflict(
                f"A machine that needs no enrolment runs under the name '{name}'. Choose another name."
            ) from refusal
        return int(result[0])

    async def join(
        self,
        name: str,
        token_sha256: str,
        password_sha256: str,
        key_sha256: str,
        change: Change | None = None,
    ) -> None:
        """Use a token up: from now on the machine has this password and this key.

        Raises:
            Unauthorized: the token is unknown, used, revoked or too old.

        Script: lua/join.lua.
        """
        try:
            await self._connection.script(
                "join",
                [self._keys.enrolment(EngineId(name)), self._keys.audit],
                [token_sha256, password_sha256, key_sha256, *note(change)],
            )
        except ProtocolRefusal as refusal:
            why = "is too old" if refusal.refusal == "TOKEN_EXPIRED" else "is unknown, or was used already"
            raise Unauthorized(
                f"The token of '{name}' {why}. Make a new one: stoker workers enroll {name}"
            ) from refusal

    async def revoke(self, name: str, by: str, change: Change | None = None) -> None:
        """Make a machine's identity worthless; its user is for `expel`.

        Raises:
            NotFound: no machine of this name was enrolled.

        Script: lua/revoke.lua.
        """
        try:
            await self._connection.script(
                "revoke", [self._keys.enrolment(EngineId(name)), self._keys.audit], [by, *note(change)]
            )
        except ProtocolRefusal as refusal:
            known = ", ".join(each.name for each in await self.list()) or "none"
            raise NotFound(f"No worker '{name}' is enrolled; known: {known}") from refusal

    async def find(self, name: str) -> Enrolment | None:
        """The enrolment of a machine; None when it has none."""
        fields = mapping(await self._connection.command("HGETALL", self._keys.enrolment(EngineId(name))))
        return _enrolment(EngineId(name), fields) if fields else None

    async def list(self) -> list[Enrolment]:
        """All enrolments, by name."""
        names = sorted(i.decode() for i in await self._connection.command("SMEMBERS", self._keys.enrolments))
        calls = [self._connection.start("HGETALL", self._keys.enrolment(EngineId(each))) for each in names]
        found = [(EngineId(each), mapping(await call)) for each, call in zip(names, calls, strict=True)]
        return [_enrolment(each, fields) for each, fields in found if fields]

    async def admit(self, enrolment: Enrolment) -> None:
        """Make the Redis user of a machine that has joined. One that was revoked meanwhile has none after this.

        Raises:
            Conflict: the gateway's own user may not do that.
        """
        user = acl.user_name(self._keys, enrolment.name)
        await self._manage(
            "ACL", "SETUSER", user, *acl.rules(self._keys, enrolment.name, enrolment.password_sha256)
        )
        self._current.add(enrolment.name)
        now = await self.find(enrolment.name)
        if now is None or now.password_sha256 != enrolment.password_sha256:
            await self.expel(enrolment.name)

    async def expel(self, name: str) -> None:
        """Remove the Redis user of a machine; Redis ends its connections with it.

        Raises:
            Conflict: the gateway's own user may not do that.
        """
        self._current.discard(EngineId(name))
        await self._manage("ACL", "DELUSER", acl.user_name(self._keys, EngineId(name)))

    async def settle(self) -> None:
        """Give every machine that has joined its user, with the rights of this version, and take it from the others.

        Raises:
            Conflict: the gateway's own user may not do that.
        """
        enrolled = await self.list()
        if not enrolled:
            return
        users = {_text(user) for user in await self._manage("ACL", "USERS")}
        for each in enrolled:
            has_user = acl.user_name(self._keys, each.name) in users
            if each.state is EnrolmentState.JOINED:
                if not has_user or each.name not in self._current:
                    await self.admit(each)
            elif has_user:
                await self.expel(each.name)

    async def _manage(self, *parts: Arg) -> Iterable[bytes]:
        try:
            result: Iterable[bytes] = await self._connection.command(*parts)
        except NoPermissionError as error:
            raise Conflict(_USERS) from error
        except ResponseError as error:
            raise Conflict(f"Redis refused a change of its users: {error}") from error
        return result


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _enrolment(name: EngineId, fields: dict[bytes, bytes]) -> Enrolment:
    def text(field: bytes) -> str:
        return fields.get(field, b"").decode()

    return Enrolment(
        name=name,
        state=EnrolmentState(text(b"state")),
        created_ms=int(text(b"created") or 0),
        joined_ms=int(text(b"joined") or 0),
        revoked_ms=int(text(b"revoked") or 0),
        expires_ms=int(text(b"expires") or 0),
        by=text(b"by"),
        password_sha256=text(b"password"),
        key_sha256=text(b"key"),
    )
