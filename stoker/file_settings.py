"""The settings that say where the bytes of files are (`stoker.settings` puts them into the parts' classes)."""

import re

from pydantic import BaseModel, Field, SecretStr, field_validator


class FileFields(BaseModel):
    """The settings of the file store, for the parts that keep files or remove them."""

    files_url: str = Field(
        default="",
        description="Store of uploaded and produced files: s3://bucket/prefix of any S3-compatible store; "
        "empty = files/ of the data directory.",
    )
    files_endpoint: str = Field(
        default="",
        description="Address of the S3-compatible store (http:// or https://); empty = Amazon's own.",
    )
    files_region: str = Field(
        default="us-east-1", description="Region of the bucket; stores other than Amazon's ignore it mostly."
    )
    files_access_key: str = Field(
        default="",
        description="Access key id for the store; empty = AWS_ACCESS_KEY_ID, or the role of the machine.",
    )
    files_secret_key: SecretStr = Field(
        default=SecretStr(""),
        description="Secret access key for the store; never logged or shown; empty = as the access key id.",
    )

    @field_validator("files_url", mode="after")
    @classmethod
    def _bucket(cls, value: str) -> str:
        if value and not re.fullmatch(r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._/-]*)?", value):
            raise ValueError("must be s3://bucket or s3://bucket/prefix")
        return value.rstrip("/")

    @field_validator("files_endpoint", mode="after")
    @classmethod
    def _endpoint(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must start with http:// or https://")
        return value.rstrip("/")
