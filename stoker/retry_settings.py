"""The settings of retries and time limits (`stoker.settings` puts them into the gateway's and scheduler's classes)."""

from pydantic import BaseModel, Field

from stoker.core.limits import DELAY_MAX_S, Bounds

DAY_S = 86_400


class RetryFields(BaseModel):
    """How often tasks are tried, and what a request or an app may ask for."""

    retry_attempts: int = Field(
        default=3,
        ge=1,
        le=100,
        description="Attempts of a task where neither request nor app says it; 1 = no retry.",
    )
    retry_attempts_max: int = Field(
        default=10, ge=1, le=100, description="Attempts that a request or an app may ask for."
    )
    retry_delay_s: float = Field(
        default=1,
        ge=0,
        le=DELAY_MAX_S,
        description="Seconds before the second attempt; they double with each further one, up to 300 (a longer one stays as it is).",
    )
    timeout_max_s: float = Field(
        default=7 * DAY_S,
        ge=1,
        description="Seconds that a request or an app may ask for in any of its timeouts.",
    )

    @property
    def task_bounds(self) -> Bounds:
        """As the pure rules take them."""
        return Bounds(
            attempts=self.retry_attempts,
            attempts_max=self.retry_attempts_max,
            delay_s=self.retry_delay_s,
            timeout_max_s=self.timeout_max_s,
        )


class QuarantineFields(BaseModel):
    """When a worker on which everything fails gets no tasks any more."""

    quarantine_failures: int = Field(
        default=5,
        ge=0,
        le=1000,
        description="Tasks in a row that fail on a worker, and not by their apps, after which it gets none; 0 = never.",
    )
    quarantine_s: float = Field(
        default=300,
        ge=1,
        description="Seconds after which a worker in quarantine gets one task to show that it works again.",
    )
