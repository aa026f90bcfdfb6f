"""The settings of encrypted connections (`stoker.settings` puts them into the parts' classes)."""

import ssl
from typing import Self
from urllib.parse import urlencode, urlsplit, urlunsplit

from pydantic import BaseModel, Field, field_validator, model_validator

from stoker.path_settings import WholePath


class TlsFields(BaseModel):
    """How a part trusts the others, and shows who it is."""

    ca_file: WholePath | None = Field(
        default=None,
        description="Certificates (PEM) that vouch for Redis (rediss://, these alone) and for the gateway "
        "(https://, these and the system's); unset = the system's.",
    )
    redis_cert_file: WholePath | None = Field(
        default=None, description="Certificate (PEM) that this part shows to Redis, where that asks for one."
    )
    redis_key_file: WholePath | None = Field(
        default=None, description="Key (PEM, not encrypted) of `redis_cert_file`."
    )

    @field_validator("ca_file", "redis_cert_file", "redis_key_file", mode="before")
    @classmethod
    def _unset(cls, value: object) -> object:
        return value or None  # an empty variable says nothing

    @model_validator(mode="after")
    def _pairs(self) -> Self:
        if (self.redis_cert_file is None) != (self.redis_key_file is None):
            raise ValueError("redis_cert_file and redis_key_file belong together; one of them is not set")
        for name in ("ca_file", "redis_cert_file", "redis_key_file"):
            path: WholePath | None = getattr(self, name)
            if path is not None and not path.is_file():
                raise ValueError(f"{name}: '{path}' is not a file")
        return self

    def secured(self, redis_url: str) -> str:
        """A Redis URL with the files that its connection needs, when it is an encrypted one."""
        parts = urlsplit(redis_url)
        files = {
            "ssl_ca_certs": self.ca_file,
            "ssl_certfile": self.redis_cert_file,
            "ssl_keyfile": self.redis_key_file,
        }
        given = {
            name: str(path)
            for name, path in files.items()
            if path is not None and f"{name}=" not in parts.query  # a parent may have put it there
        }
        if parts.scheme.partition("+")[0] != "rediss" or not given:
            return redis_url
        query = "&".join(part for part in (parts.query, urlencode(given)) if part)
        return urlunsplit(parts._replace(query=query))

    def trust(self) -> ssl.SSLContext | bool:
        """What an HTTP client takes as `verify`.

        Raises:
            ssl.SSLError: `ca_file` holds no certificate.
        """
        if self.ca_file is None:
            return True
        context = ssl.create_default_context()
        context.load_verify_locations(self.ca_file)
        return context


class ServerTlsFields(BaseModel):
    """How the gateway is reached."""

    tls_cert_file: WholePath | None = Field(
        default=None,
        description="Certificate chain (PEM) of the gateway, which then speaks HTTPS; unset = plain HTTP.",
    )
    tls_key_file: WholePath | None = Field(
        default=None, description="Key (PEM, not encrypted) of `tls_cert_file`."
    )

    @field_validator("tls_cert_file", "tls_key_file", mode="before")
    @classmethod
    def _unset_server(cls, value: object) -> object:
        return value or None

    @model_validator(mode="after")
    def _both(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("tls_cert_file and tls_key_file belong together; one of them is not set")
        for name in ("tls_cert_file", "tls_key_file"):
            path: WholePath | None = getattr(self, name)
            if path is not None and not path.is_file():
                raise ValueError(f"{name}: '{path}' is not a file")
        return self

    @property
    def scheme(self) -> str:
        """What the gateway's own address begins with."""
        return "http" if self.tls_cert_file is None else "https"


def without_user(redis_url: str) -> str:
    """A Redis URL that names no user, no password and no file."""
    parts = urlsplit(redis_url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query=""))
