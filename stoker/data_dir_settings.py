"""The data directory, and what lies in it."""

from pathlib import Path

from pydantic import BaseModel, Field, field_validator

from stoker.path_settings import WholePath


class DataDirFields(BaseModel):
    """Where a system keeps what it has."""

    data_dir: WholePath = Field(
        default=Path("~/.local/share/stoker"),
        description="Directory of the database, the files, the caches, the logs and the first API key.",
    )

    @field_validator(
        "data_dir",
        "cache_dir",
        "spool_dir",
        "examples",
        "secrets_key_file",
        mode="before",
        check_fields=False,
    )
    @classmethod
    def _not_empty(cls, value: object) -> object:
        if value == "":
            raise ValueError("must not be empty: that would be the working directory")
        return value

    @property
    def key_file(self) -> Path:
        """Where the first API key is written (mode 0600)."""
        return self.data_dir / "api-key"

    @property
    def url_file(self) -> Path:
        """Where the gateway writes the address that it really listens on."""
        return self.data_dir / "gateway.url"

    @property
    def logs_dir(self) -> Path:
        """Where `stoker up` keeps the logs of its parts."""
        return self.data_dir / "logs"
