"""The settings of machines that join (`stoker.settings` puts them into the parts' classes)."""

from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, field_validator

from stoker.server_address import parse_redis


class EnrolmentFields(BaseModel):
    """How the gateway lets machines join."""

    worker_redis_url: str = Field(
        default="",
        description="Address of Redis for machines that join, without user and password; empty = `redis_url`.",
    )
    join_token_s: float = Field(
        default=3600, ge=10, le=7 * 86_400, description="Seconds that the token of a new machine is good for."
    )

    @field_validator("worker_redis_url", mode="after")
    @classmethod
    def _network(cls, value: str) -> str:
        if value and (value.startswith("unix:") or parse_redis(value).kind == "cluster" or "@" in value):
            raise ValueError(
                "must be redis://host:port or redis+sentinel://host:port,host:port/name, without a user"
            )
        return value


class JoinFields(BaseModel):
    """How a worker machine joins."""

    join: SecretStr = Field(
        default=SecretStr(""),
        description="https://TOKEN@host:port of the gateway, from `stoker workers enroll`: the machine joins with "
        "it once, and starts with what it got from then on.",
    )

    @field_validator("join", mode="after")
    @classmethod
    def _address(cls, value: SecretStr) -> SecretStr:
        parts = urlsplit(value.get_secret_value())
        if value.get_secret_value() and (parts.scheme not in {"http", "https"} or not parts.username):
            raise ValueError("must be https://TOKEN@host:port, as `stoker workers enroll` prints it")
        return value
