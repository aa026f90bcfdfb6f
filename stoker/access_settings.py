"""The settings of API keys and of the audit record (`stoker.settings` puts them into the parts' classes)."""

from pydantic import BaseModel, Field

DAY_S = 86_400


class KeyRetentionFields(BaseModel):
    """What the background work does about keys."""

    key_retention_s: float = Field(
        default=30 * DAY_S, ge=0, description="Seconds that an API key is still listed after it has expired."
    )
