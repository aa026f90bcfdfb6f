"""The settings of secrets (`stoker.settings` puts them into the gateway's class), and which settings are secret."""

from pathlib import Path
from typing import Final

from pydantic import BaseModel, Field, SecretStr

PRIVATE_FIELDS: Final = frozenset({"api_key", "app_env", "files_secret_key", "join", "secrets_key"})
"""Settings whose values are never printed."""
READERS: Final[dict[str, frozenset[str]]] = {
    "secrets_key": frozenset({"gateway"}),
    "files_secret_key": frozenset({"gateway", "jobs"}),
    "app_env": frozenset({"worker"}),
    "workers": frozenset({"worker"}),  # slots may have variables too
    "join": frozenset({"worker"}),
}
"""Settings that `stoker up` hands to the environment of these parts alone."""


class SecretFields(BaseModel):
    """The settings of the secrets of users."""

    secrets_key: SecretStr = Field(
        default=SecretStr(""),
        description="Key that encrypts secrets: base64 of 32 bytes; older ones may follow after commas; "
        "empty = the key file.",
    )
    secrets_key_file: Path | None = Field(
        default=None,
        description="File with that key, made at the first secret; unset = secrets-key in the data directory.",
    )
    secrets_reveal: bool = Field(
        default=False, description="Answer GET /secrets/reveal/{key} with the full value of a secret."
    )
    verified_owners: tuple[str, ...] = Field(
        default=("admin",),
        description="Users whose public apps are given the secrets of whoever runs them; '*' = all.",
    )
