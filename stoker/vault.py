"""Encrypts secrets at rest: AES-256-GCM, under keys that only the control plane has.

A key ring is one or more keys: the first encrypts, all of them decrypt, so that a key can be replaced while
the system runs. It comes from a setting, or from a file that is made at its first use and read again when it
changed. No Redis, no network.
"""

import base64
import binascii
import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from stoker.core.errors import SecretUnreadable
from stoker.settings import InvalidSettings

KEY_BYTES: Final = 32
NONCE_BYTES: Final = 12
"""What GCM is made for (NIST SP 800-38D, 5.2.1.1); random, so good for 2^32 values under one key (8.3)."""
_KEY_ID_DIGITS: Final = 12


class Vault:
    """Seals and opens values with the keys of one key ring."""

    def __init__(self, text: str, path: Path) -> None:
        """Use the keys in `text` (base64, the current one first, commas between them), or those of a file.

        Raises:
            InvalidSettings: `text` holds something that is no key.
        """
        self._path = path
        self._seen: tuple[int, ...] = ()
        self._fixed = bool(text)
        self._keys = parse_keys(text, "STOKER_SECRETS_KEY") if text else {}

    @property
    def file(self) -> Path | None:
        """The file that the keys come from; None when a setting holds them."""
        return None if self._fixed else self._path

    def seal(self, owner_id: str, name: str, value: str) -> tuple[str, str]:
        """Encrypt a value under the current key; makes the key's file when there is none.

        Returns:
            What to store, and the id of the key.
        """
        keys = self.keys() or self._made()
        key_id, key = next(iter(keys.items()))
        nonce = os.urandom(NONCE_BYTES)
        sealed = AESGCM(key).encrypt(nonce, value.encode(), _binding(owner_id, name))
        return base64.b64encode(nonce + sealed).decode(), key_id

    def open(self, owner_id: str, name: str, sealed: str, key_id: str) -> str:
        """Decrypt a value.

        Raises:
            SecretUnreadable: its key is not here, or it was stored for another owner or name, or changed.
        """
        key = self.keys().get(key_id)
        if key is None:
            known = ", ".join(self.keys()) or "none"
            raise SecretUnreadable(
                f"The secret {name} was encrypted with the key {key_id}, which this gateway does not have "
                f"(it has: {known}). Give every gateway the same STOKER_SECRETS_KEY, or set the secret again."
            )
        try:
            raw = base64.b64decode(sealed, validate=True)
            return (
                AESGCM(key).decrypt(raw[:NONCE_BYTES], raw[NONCE_BYTES:], _binding(owner_id, name)).decode()
            )
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise SecretUnreadable(
                f"The stored secret {name} is damaged, or was stored for something else. Set it again."
            ) from error

    def keys(self) -> dict[str, bytes]:
        """The keys by id, the current one first; empty when there is no file yet.

        Raises:
            InvalidSettings: the file cannot be read, or holds something that is no key.
        """
        if self._fixed:
            return self._keys
        try:
            facts = self._path.stat()
            seen = (facts.st_ino, facts.st_mtime_ns, facts.st_size)
            if seen != self._seen:
                self._keys = parse_keys(self._path.read_text(), str(self._path))
                self._seen = seen
        except FileNotFoundError:
            return {}
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidSettings(f"cannot read the key file '{self._path}': {error}") from error
        return self._keys

    def add_key(self) -> str:
        """Put a new key before the others in the file; its id.

        Raises:
            InvalidSettings: the keys come from a setting.
        """
        if self._fixed:
            raise InvalidSettings("the keys come from STOKER_SECRETS_KEY; put a new one before them there")
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._write([os.urandom(KEY_BYTES), *self.keys().values()])
        return next(iter(self.keys()))

    def drop_old_keys(self) -> None:
        """Keep the current key alone in the file. What others have sealed is lost."""
        self._write(list(self.keys().values())[:1])

    def _made(self) -> dict[str, bytes]:
        """The keys of a file that is made now, or was made by another process just before."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._write([os.urandom(KEY_BYTES)], only_if_absent=True)
        return self.keys()

    def _write(self, keys: list[bytes], *, only_if_absent: bool = False) -> None:
        """Replace the file as a whole: nobody reads half a key ring."""
        descriptor, scratch = tempfile.mkstemp(dir=self._path.parent, prefix=".secrets-key-")  # mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(b"".join(base64.b64encode(key) + b"\n" for key in keys))
                file.flush()
                os.fsync(file.fileno())
            if only_if_absent:
                with contextlib.suppress(FileExistsError):
                    os.link(scratch, self._path)
            else:
                Path(scratch).replace(self._path)
        finally:
            Path(scratch).unlink(missing_ok=True)
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # a key that is lost takes every secret with it
        finally:
            os.close(folder)


def parse_keys(text: str, source: str) -> dict[str, bytes]:
    """Keys by id, in the order of the text; separated by commas or line breaks.

    Raises:
        InvalidSettings: a part is not base64 of `KEY_BYTES` bytes, or there is none. Shows no part of it.
    """
    keys: dict[str, bytes] = {}
    for number, part in enumerate(text.replace(",", "\n").split(), start=1):
        try:
            key = base64.b64decode(part, altchars=b"-_" if set(part) & set("-_") else None, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) != KEY_BYTES:
            raise InvalidSettings(
                f"{source}: key {number} is not base64 of {KEY_BYTES} bytes; make one with: openssl rand -base64 32"
            )
        keys[key_id_of(key)] = key
    if not keys:
        raise InvalidSettings(f"{source} holds no key; make one with: openssl rand -base64 32")
    return keys


def key_id_of(key: bytes) -> str:
    """A name for a key that tells nothing of it."""
    return hashlib.sha256(b"stoker secrets key\0" + key).hexdigest()[:_KEY_ID_DIGITS]


def _binding(owner_id: str, name: str) -> bytes:
    """What a value is bound to: moved to another owner or name it cannot be opened."""
    return json.dumps(["stoker secret", owner_id, name]).encode()
