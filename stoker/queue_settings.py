"""The settings of what a gateway accepts (`stoker.settings` puts them into its class)."""

from typing import Final

from pydantic import BaseModel, Field

_DAY_S: Final = 86_400


class QueueFields(BaseModel):
    """The settings of the queue's bounds and of repeated requests."""

    max_queued: int = Field(
        default=0,
        ge=0,
        description="Tasks that may wait in all; a further run is refused with 503 until some have started. "
        "0 = any number.",
    )
    max_queued_per_key: int = Field(
        default=0,
        ge=0,
        description="Tasks of one API key that may wait; its next run is refused with 429 until some have started. "
        "0 = any number.",
    )
    idempotency_s: float = Field(
        default=_DAY_S,
        ge=60,
        le=30 * _DAY_S,
        description="Seconds for which a run with an Idempotency-Key is remembered: a repeat gives the first task.",
    )
