"""What signs webhooks and hooks: the secret of a user, opened for one call."""

import time

from stoker.core.webhooks import SIGNATURE, SIGNATURE_PREVIOUS, TIMESTAMP, signature
from stoker.protocol import Store
from stoker.vault import Vault


async def signed_headers(store: Store, vault: Vault, owner_id: str, body: bytes) -> dict[str, str]:
    """The time, and the signatures, if the owner has made a secret.

    Raises:
        SecretUnreadable: it is not sent unsigned then.
    """
    now_s = time.time()
    headers = {TIMESTAMP: str(int(now_s))}
    record = await store.signing_secrets.get(owner_id)
    if record is None:
        return headers
    good = record.good(int(now_s * 1000))
    for name, sealed in zip((SIGNATURE, SIGNATURE_PREVIOUS), good, strict=False):
        secret = vault.open(owner_id, sealed.name, sealed.sealed, sealed.sealed_by)
        headers[name] = signature(secret, int(now_s), body)
    return headers
