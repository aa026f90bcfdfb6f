"""Settings of a daemon that parks instances in the machine's memory."""

from typing import Literal

from pydantic import BaseModel, Field


class ParkingFields(BaseModel):
    """What becomes of an instance that makes room for another one."""

    parking: Literal["off", "hooks", "auto"] = Field(
        default="off",
        description="Park what makes room for another app in the machine's memory: never, if the app has hooks "
        "for it, or else also by the CUDA driver.",
    )
    parking_max_bytes: int | None = Field(
        default=None,
        ge=0,
        description="Bytes of the machine's memory that parked instances may take; unset = a quarter of it.",
    )
