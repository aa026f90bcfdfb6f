"""The secrets of users: set, listed, revealed, and resolved for what they run.

Values are here for as long as a request takes, and leave by two doors only: `reveal`, when a setting opens it,
and `values_for`, to the worker that starts an instance. Every change is logged and recorded, never with a value.
"""

from collections.abc import Mapping
from typing import Final

from msgspec import structs

from stoker.core.audit import Action, Actor, change_of
from stoker.core.errors import Conflict, Forbidden, NotFound, RequirementsNotMet, SecretUnreadable
from stoker.core.events import Event
from stoker.core.ids import new_id
from stoker.core.messages import Owner, Secret, SetupKey
from stoker.core.requirements import (
    check_name,
    check_value,
    decide_missing,
    masked,
)
from stoker.core.sessions import plain_key
from stoker.log import get_logger
from stoker.protocol import Store
from stoker.settings import GatewaySettings
from stoker.vault import Vault
from stoker_gateway.clock import now_ms

TRIES: Final = 5
"""Two writers of one secret: the later one reads again and wins."""
UNREADABLE: Final = "(cannot be decrypted with this gateway's key)"

log = get_logger("secrets")


class SecretStore:
    """The secrets of all users of one gateway process."""

    def __init__(self, store: Store, settings: GatewaySettings) -> None:
        self._store = store
        self._reveal = settings.secrets_reveal
        self._vault = Vault(settings.secrets_key.get_secret_value(), settings.secrets_key_path)

    async def set(
        self, actor: Actor, name: str, value: str | None, description: str | None, *, only_new: bool = False
    ) -> Secret:
        """Make a secret or change it. What is None stays as it is.

        Raises:
            InvalidRequest: the name or the value cannot be used, or there are too many.
            Conflict: `only_new`, and there is one.
            NotFound: no value was given, and there is none to keep.
        """
        check_name(name)
        if value is not None:
            check_value(value)
        for left in range(TRIES - 1, -1, -1):
            read = (await self._store.secrets.get_many(actor.user_id, [name])).get(name)
            if read is not None and only_new:
                raise Conflict(
                    f"You have a secret {name} already. Change it with PUT /secrets/{name}, or "
                    f"stoker secrets set {name}."
                )
            new = self._changed(actor.user_id, name, value, description, read)
            made = change_of(
                Action.SECRET_SET, name, actor, version=new.version, new="yes" if read is None else ""
            )
            try:
                await self._store.secrets.put(new, read, made)
            except Conflict:
                if not left:
                    raise
            else:
                break
        log.info(Event.SECRET_SET, **_names(actor, name), version=new.version, new=read is None)
        return new

    async def delete(self, actor: Actor, name: str) -> None:
        """Forget a secret.

        Raises:
            NotFound: there is none of this name.
        """
        change = change_of(Action.SECRET_DELETED, name, actor)
        if not await self._store.secrets.delete(actor.user_id, name, change):
            raise NotFound(f"You have no secret {name!r}.")
        log.info(Event.SECRET_DELETED, **_names(actor, name))

    async def list(self, owner: Owner) -> "list[tuple[Secret, str]]":
        """All of a user, each with its masked value."""
        return [(secret, self.mask(secret)) for secret in await self._store.secrets.list(owner.user_id)]

    def mask(self, secret: Secret) -> str:
        """What a list shows of the value."""
        try:
            return masked(self._open(secret))
        except SecretUnreadable:
            return UNREADABLE

    async def reveal(self, actor: Actor, name: str) -> tuple[Secret, str]:
        """A secret with its value.

        Raises:
            Forbidden: the setting `secrets_reveal` is off.
            NotFound: there is none of this name.
            SecretUnreadable: its key is not here.
        """
        if not self._reveal:
            raise Forbidden(
                "This system does not show the values of secrets. The operator can allow it with the setting "
                "secrets_reveal (STOKER_SECRETS_REVEAL=true) of the gateway."
            )
        found = (await self._store.secrets.get_many(actor.user_id, [name])).get(name)
        if found is None:
            raise NotFound(f"You have no secret {name!r}.")
        value = self._open(found)
        await self._store.audit.add(change_of(Action.SECRET_REVEALED, name, actor, version=found.version))
        log.info(Event.SECRET_REVEALED, **_names(actor, name), version=found.version)
        return found, value

    async def values_for(self, task_id: str, owner: Owner, setup_key: SetupKey) -> Mapping[str, str]:
        """The present values of what a task was granted, for the instance that is about to start.

        Raises:
            RequirementsNotMet: one that is required was deleted while the task waited.
            SecretUnreadable: its key is not here.
        """
        names = [need.key for need in owner.secrets]
        # First the note, then the values: a change between the two retires the instance at once.
        # A session keeps its instance to its end; after that the plain key is the one that counts.
        await self._store.secrets.note_use(owner.user_id, names, plain_key(setup_key), now_ms())
        found = await self._store.secrets.get_many(owner.user_id, names)
        missing = decide_missing(owner.secrets, (), found, "It was deleted while the task waited.")
        if missing:
            raise RequirementsNotMet(str(missing[0]["message"]), missing)
        values = {name: self._open(secret) for name, secret in found.items()}
        log.info(Event.SECRET_GIVEN, task_id=task_id, owner=owner.user_id, names=sorted(values))
        return values

    def _changed(
        self, owner_id: str, name: str, value: str | None, description: str | None, read: Secret | None
    ) -> Secret:
        now = now_ms()
        if read is None and value is None:
            raise NotFound(f"You have no secret {name!r}; give a value to make it.")
        secret = read or Secret(
            id=new_id(), owner_id=owner_id, key=name, version=0, revision="", created_ms=now
        )
        if value is not None:
            sealed, sealed_by = self._vault.seal(owner_id, name, value)
            secret = structs.replace(secret, sealed=sealed, sealed_by=sealed_by, version=secret.version + 1)
        about = secret.description if description is None else description
        return structs.replace(secret, description=about, revision=new_id(), updated_ms=now)

    def _open(self, secret: Secret) -> str:
        return self._vault.open(secret.owner_id, secret.key, secret.sealed, secret.sealed_by)


def _names(actor: Actor, name: str) -> dict[str, object]:
    return {"owner": actor.user_id, "api_key_id": actor.key_id, "name": name}
