"""The settings of secrets (`stoker.settings` puts them into the gateway's class), and what messages do not show."""

import re
from typing import Final

import yaml
from pydantic import BaseModel, Field, SecretStr

from stoker.path_settings import WholePath

PRIVATE_FIELDS: Final = frozenset({"api_key", "app_env", "files_secret_key", "join", "secrets_key"})
"""Settings whose values are never printed."""
READERS: Final[dict[str, frozenset[str]]] = {
    "secrets_key": frozenset({"gateway", "jobs"}),
    "files_secret_key": frozenset({"gateway", "jobs"}),
    "app_env": frozenset({"worker"}),
    "workers": frozenset({"worker"}),  # slots may have variables too
    "join": frozenset({"worker"}),
}
"""Settings that `stoker up` hands to the environment of these parts alone."""


_QUOTED: Final = re.compile(r"'[^'<]{4,}'")
_USER: Final = re.compile(r"(?<=://)[^/\s'\"]*@")
_IN_QUERY: Final = re.compile(r"([?&][^=&\s'\"]*password=)[^&\s'\"]+")


def without_password(text: str) -> str:
    """A text whose addresses show no user and no password."""
    return _IN_QUERY.sub(r"\1...", _USER.sub("...@", text))


def yaml_problem(error: yaml.YAMLError) -> str:
    """What is wrong with a YAML text and where, without the text."""
    mark = getattr(error, "problem_mark", None)
    where = "" if mark is None else f" in line {mark.line + 1}, column {mark.column + 1}"
    problem = str(getattr(error, "problem", None) or "it cannot be read")
    return _QUOTED.sub("'...'", problem) + where


class KeyRingFields(BaseModel):
    """Where the key is that encrypts secrets: who opens them needs it too."""

    secrets_key: SecretStr = Field(
        default=SecretStr(""),
        description="Key that encrypts secrets: base64 of 32 bytes; older ones may follow after commas; "
        "empty = the key file.",
    )
    secrets_key_file: WholePath | None = Field(
        default=None,
        description="File with that key, made at the first secret; unset = secrets-key in the data directory.",
    )


class SecretFields(BaseModel):
    """The settings of the secrets of users."""

    secrets_reveal: bool = Field(
        default=False, description="Answer GET /secrets/reveal/{key} with the full value of a secret."
    )
