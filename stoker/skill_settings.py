"""The settings of agents' skills (`stoker.settings` puts them into the gateway's class)."""

from pydantic import BaseModel, Field

from stoker.fetch_settings import Hosts


class SkillFields(BaseModel):
    """What a gateway fetches when an agent names the address of a skill."""

    skill_allow: Hosts = Field(
        default=(),
        description="Hosts, addresses and networks, as in fetch_allow, that skills of agents may be fetched from "
        "although they are not public.",
    )
    skill_timeout_s: float = Field(
        default=10,
        ge=0.1,
        le=60,
        description="Seconds that fetching all skills of one agent may take.",
    )
    skill_max_bytes: int = Field(
        default=64 * 1024,
        ge=1024,
        le=4 * 1024 * 1024,
        description="Largest text of a skill that is fetched, in bytes.",
    )
