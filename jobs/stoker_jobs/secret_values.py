"""The values of users' secrets, for a call that is about to be made. They stay in the process that makes it."""

from collections.abc import Iterable

from stoker.core.errors import NotFound
from stoker.core.events import Event
from stoker.log import get_logger
from stoker.vault import Vault
from stoker_jobs.desk import Desk


async def secret_values(desk: Desk, owner_id: str, names: Iterable[str], chat_id: str) -> dict[str, str]:
    """The present values of a user's secrets, by name. Asks for nothing when there are no names.

    Args:
        chat_id: what they are given to, for the log.

    Raises:
        NotFound: he has no such secret any more.
        SecretUnreadable: its key is not here.
        StoreUnavailable: no answer.
    """
    wanted = sorted(names)
    if not wanted:
        return {}
    found = await desk.store.secrets.get_many(owner_id, wanted)
    for name in wanted:
        if name not in found:
            raise NotFound(
                f"This tool needs the secret {name}, which is missing: it was deleted after the chat began. Its owner "
                f"can set it again (stoker secrets set {name})."
            )
    settings = desk.settings
    vault = Vault(settings.secrets_key.get_secret_value(), settings.secrets_key_path)
    values = {
        name: vault.open(owner_id, name, secret.sealed, secret.sealed_by) for name, secret in found.items()
    }
    get_logger("secrets").info(Event.SECRET_GIVEN, chat_id=chat_id, owner=owner_id, names=wanted)
    return values
