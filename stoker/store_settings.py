"""The setting of where Redis is (`stoker.settings` puts it into the parts' classes)."""

from pydantic import BaseModel, Field, field_validator

from stoker.server_address import parse_redis


class StoreFields(BaseModel):
    """How a part finds Redis."""

    redis_url: str = Field(
        default="",
        description="Redis or Valkey to use (redis://host:port, redis+sentinel://host:port,host:port/name, "
        "redis+cluster://host:port,host:port, unix:///path; rediss to encrypt); empty = the embedded server of the "
        "data directory.",
    )

    @field_validator("redis_url", mode="after")
    @classmethod
    def _known_form(cls, value: str) -> str:
        if value:
            parse_redis(value)
        return value
