"""The settings of fetching the files of inputs (`stoker.settings` puts them into the worker's class)."""

import json
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field
from pydantic_settings import NoDecode

from stoker.core.addresses import AllowList
from stoker.core.messages import FETCH_TIMEOUT_MAX_S, FETCH_TIMEOUT_S

GIB = 1024**3


def _listed(value: object) -> object:
    """The environment has one text: entries with commas between them, or a JSON list."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        try:
            return json.loads(value)
        except ValueError:
            pass  # an IPv6 address begins so too
    return tuple(entry.strip() for entry in value.split(",") if entry.strip())


def _known(value: tuple[str, ...]) -> tuple[str, ...]:
    AllowList.parse(value)
    return value


Hosts = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed), AfterValidator(_known)]
"""Hosts, addresses and networks that are reachable although they are not public."""


class FetchFields(BaseModel):
    """What a worker may fetch for a caller, and what it keeps of it."""

    fetch_allow: Hosts = Field(
        default=(),
        description="Hosts (files.lan), host:port, addresses and networks (10.0.0.0/8), with commas between them, "
        "that inputs may be fetched from although they are not public.",
    )
    fetch_max_bytes: int = Field(
        default=10 * GIB, ge=1024, description="Largest file of an input that is fetched, in bytes."
    )
    fetch_timeout_s: float = Field(
        default=FETCH_TIMEOUT_S,
        ge=1,
        le=FETCH_TIMEOUT_MAX_S,
        description="Seconds that fetching all files of one task's input may take.",
    )
    input_cache_max_bytes: int = Field(
        default=20 * GIB,
        ge=0,
        description="Bytes of fetched inputs that are kept for the next tasks; those not used for longest go first.",
    )
    app_cache_max_bytes: int = Field(
        default=10 * GIB,
        ge=0,
        description="Bytes that one instance keeps of what its app downloads by itself (FILE_CACHE_DIR, where "
        "the SDK's File puts it) between tasks; those not used for longest go first.",
    )
