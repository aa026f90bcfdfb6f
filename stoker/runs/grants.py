"""Which of a caller's secrets a run is given. Their values are not read here."""

from collections.abc import Iterable

from msgspec import Struct

from stoker.core.apps import App, AppVersion
from stoker.core.errors import RequirementsNotMet
from stoker.core.messages import Owner, SecretNeed
from stoker.core.requirements import decide_missing, secrets_digest, wanted
from stoker.protocol import Store


class Granted(Struct, frozen=True, kw_only=True):
    """What a run may be given: the variables that its app wants, and what they add to the setup key."""

    needs: tuple[SecretNeed, ...] = ()
    digest: str = ""


class Grants:
    """Finds what runs are given.

    Args:
        verified: users whose apps are given the secrets of whoever runs them; "*" = all.
    """

    def __init__(self, store: Store, verified: Iterable[str]) -> None:
        self._store = store
        self._verified = frozenset(verified)

    async def find(self, app: App, version: AppVersion, owner: Owner) -> Granted:
        """Find what a run of an app is given. Asks Redis for nothing when the app wants nothing.

        Raises:
            RequirementsNotMet: something that it requires is missing.
        """
        needs = wanted(version.secrets, version.integrations)
        if not needs:
            return Granted()
        refused = self._why_not(app, owner)
        names = [] if refused else [need.key for need in needs]
        have = await self._store.secrets.get_many(owner.user_id, names)
        missing = decide_missing(version.secrets, version.integrations, have, refused)
        if missing:
            raise RequirementsNotMet(str(missing[0]["message"]), missing)
        return Granted(needs=() if refused else needs, digest=secrets_digest(owner.user_id, have))

    def _why_not(self, app: App, owner: Owner) -> str:
        """Why an app of somebody else gets no secrets of the caller; empty when it may have them."""
        if app.owner_id == owner.user_id or self._verified & {app.owner_id, "*"}:
            return ""
        return (
            f"{app.namespace}/{app.name} belongs to another user, whose apps are not given your secrets. Deploy "
            "it under your own name, or ask the operator to list its owner in the setting verified_owners."
        )
