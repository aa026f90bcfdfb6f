"""API keys as they are made: a fresh one, the first one of a system, and another one for who has lost them all."""

import hashlib
import secrets
import string
from pathlib import Path
from typing import Final

from stoker.core.audit import Action, Actor, change_of
from stoker.core.ids import new_id
from stoker.core.messages import ApiKey
from stoker.private_files import write_private
from stoker.protocol import Store

FIRST_USER: Final = "admin"
KEY_PREFIX: Final = "inf_"
KEY_LENGTH: Final = 32
_ALPHABET: Final = string.ascii_letters + string.digits
_SHOWN: Final = len(KEY_PREFIX) + 4


def fresh_key(user_id: str, name: str, now_ms: int) -> tuple[str, ApiKey]:
    """A key that may do everything and never ends: its text, which is shown once, and what is kept of it."""
    text = KEY_PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(KEY_LENGTH))
    key = ApiKey(
        id=new_id(),
        name=name,
        user_id=user_id,
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        prefix=text[:_SHOWN],
        created_ms=now_ms,
    )
    return text, key


async def make_first_key(store: Store, key_file: Path, now_ms: int) -> bool:
    """Make the first key of a system that has none, and write it into its file; whether it was made.

    Of gateways that start at the same time one makes it.

    Raises:
        StoreUnavailable: Redis does not answer.
        OSError: the file cannot be written; the key is taken back.
    """
    text, key = fresh_key(FIRST_USER, "first key", now_ms)
    made = change_of(Action.KEY_CREATED, key.id, Actor(), name=key.name, scopes="everything")
    if not await store.keys.put_first(key, made):
        return False
    await _hand_over(store, key, text, key_file)
    return True


async def recover_key(store: Store, key_file: Path, now_ms: int) -> ApiKey:
    """Make one more key that may do everything, and put it in the place of the first one's file.

    Raises:
        StoreUnavailable: Redis does not answer.
        OSError: the file cannot be written; the key is taken back.
    """
    text, key = fresh_key(FIRST_USER, "recovered key", now_ms)
    made = change_of(Action.KEY_CREATED, key.id, Actor(), name=key.name, scopes="everything")
    await store.keys.put(key, made)
    await _hand_over(store, key, text, key_file)
    return key


async def _hand_over(store: Store, key: ApiKey, text: str, key_file: Path) -> None:
    """Write a key that is stored where its owner alone can read it: a file never names one that is not."""
    try:
        write_private(key_file, text + "\n")
    except OSError:
        await store.keys.delete(key.id, change_of(Action.KEY_DELETED, key.id, Actor(), name=key.name))
        raise
