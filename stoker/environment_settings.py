"""The settings of apps' environments on a machine (`stoker.settings` puts them into the worker's class)."""

from typing import Literal

from pydantic import BaseModel, Field


class EnvironmentFields(BaseModel):
    """What a machine offers to apps, and what their environments may cost."""

    cache_max_bytes: int | None = Field(
        default=None,
        ge=0,
        description="Bytes that environments and app code may take together, those in use aside; unset = half of "
        "the file system, less while under a tenth of it is free.",
    )
    python_fetch: bool = Field(
        default=True, description="Whether uv may fetch a Python that an app wants and this machine lacks."
    )
    python_fallback: bool = Field(
        default=False,
        description="Whether an app gets the nearest Python of this machine where its own cannot be had; its "
        "log says so.",
    )
    node_fallback: bool = Field(
        default=False,
        description="Whether a Node app gets an older Node of this machine where its own is missing; its log "
        "says so.",
    )
    system_packages: tuple[str, ...] = Field(
        default=(),
        description="System packages that are here though no package manager knows them (packages.txt); "
        "'*' = all.",
    )
    package_indexes: tuple[str, ...] = Field(
        default=(), description="Further package indexes for the environments of Python apps, as addresses."
    )
    prereleases: Literal["allow", "if-necessary", "if-necessary-or-explicit", "explicit", "disallow"] = Field(
        default="allow",
        description="Whether pre-releases of Python packages are installed; the hosted platform allows them.",
    )
    compiled_requirements: Literal["current", "always", "never"] = Field(
        default="current",
        description="Whether requirements.txt.compiled is installed instead of requirements.txt: where it still "
        "says what that file says, wherever it exists, or never.",
    )
