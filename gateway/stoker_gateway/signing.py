"""The secret that signs a user's webhooks: made here, told once, kept encrypted, opened by the jobs that sign.

After a change the one before signs as well for a while, so that receivers can be told meanwhile.
"""

import secrets
from typing import Final

from stoker.core.audit import Action, Actor, change_of
from stoker.core.events import Event
from stoker.core.ids import new_id
from stoker.core.webhooks import Sealed, SigningSecret, sealed_name
from stoker.log import get_logger
from stoker.protocol import Store
from stoker.settings import GatewaySettings
from stoker.vault import Vault
from stoker_gateway.clock import now_ms

PREFIX: Final = "whsec_"
SECRET_BYTES: Final = 32
"""As long as what HMAC-SHA256 makes of it (RFC 2104, 3)."""
OVERLAP_S: Final = 86_400
"""How long the secret before signs too, where the caller says nothing else."""
OVERLAP_MAX_S: Final = 30 * 86_400

log = get_logger("secrets")


class Signing:
    """The signing secrets of all users of one gateway process."""

    def __init__(self, store: Store, settings: GatewaySettings) -> None:
        self._store = store
        self._vault = Vault(settings.secrets_key.get_secret_value(), settings.secrets_key_path)

    async def read(self, owner_id: str) -> SigningSecret | None:
        """What is known of a user's secret; None = there was never one, and webhooks are not signed."""
        return await self._store.signing_secrets.get(owner_id)

    async def renew(self, actor: Actor, overlap_s: float) -> tuple[SigningSecret, str]:
        """Make a secret, or another one.

        Args:
            overlap_s: how long the one before signs too; 0 = not any more.

        Returns:
            The record, and the secret, which nobody is told again.

        Raises:
            Conflict: somebody else makes one at this moment.
        """
        owner_id, now = actor.user_id, now_ms()
        read = await self.read(owner_id)
        secret = PREFIX + secrets.token_urlsafe(SECRET_BYTES)
        secret_id = new_id()
        sealed, sealed_by = self._vault.seal(owner_id, sealed_name(secret_id), secret)
        overlaps = read is not None and overlap_s > 0
        record = SigningSecret(
            owner_id=owner_id,
            revision=new_id(),
            current=Sealed(id=secret_id, sealed=sealed, sealed_by=sealed_by, created_ms=now),
            previous=read.current if read is not None and overlaps else None,
            previous_until_ms=now + round(overlap_s * 1000) if overlaps else 0,
        )
        made = change_of(
            Action.SIGNING_SECRET_SET,
            secret_id,
            actor,
            new="yes" if read is None else "",
            overlap_s=round(overlap_s) if overlaps else "",
        )
        await self._store.signing_secrets.put(record, read, made)
        log.info(Event.WEBHOOK_SECRET_SET, owner=owner_id, api_key_id=actor.key_id, secret_id=secret_id)
        return record, secret
