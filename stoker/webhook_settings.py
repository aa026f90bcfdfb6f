"""The settings of webhooks (`stoker.settings` puts them into the class of the jobs)."""

from pydantic import BaseModel, Field

from stoker.core.webhooks import Policy
from stoker.fetch_settings import Hosts
from stoker.retry_settings import DAY_S


class WebhookFields(BaseModel):
    """Where webhooks may go, how often they are tried, and how long deliveries are kept."""

    webhook_allow: Hosts = Field(
        default=(),
        description="Hosts, addresses and networks, as in fetch_allow, that webhooks may go to although they are "
        "not public.",
    )
    webhook_timeout_s: float = Field(
        default=15, ge=0.1, le=120, description="Seconds that a receiver has for its answer."
    )
    webhook_pause_s: float = Field(
        default=2,
        ge=0.01,
        le=3600,
        description="Seconds between the first two tries of a webhook; the pauses double, and each is shortened by "
        "up to half at random.",
    )
    webhook_pause_max_s: float = Field(
        default=3600,
        ge=0.01,
        le=DAY_S,
        description="Longest pause between two tries of a webhook, in seconds.",
    )
    webhook_give_up_s: float = Field(
        default=DAY_S,
        ge=1,
        le=30 * DAY_S,
        description="Seconds after which a webhook that was not delivered becomes a dead letter.",
    )
    webhook_tries: int = Field(
        default=100, ge=1, le=1000, description="Tries of a webhook after which it becomes a dead letter."
    )
    webhook_retention_s: float = Field(
        default=7 * DAY_S,
        ge=60,
        le=366 * DAY_S,
        description="Seconds that deliveries are kept after their end, dead letters too.",
    )
    webhook_concurrency: int = Field(
        default=64,
        ge=1,
        le=1000,
        description="Webhooks that are on their way at the same time; one receiver has at most 4 of them.",
    )

    @property
    def webhook_policy(self) -> Policy:
        """As the pure rules take them."""
        return Policy(
            pause_s=self.webhook_pause_s,
            pause_max_s=self.webhook_pause_max_s,
            give_up_s=self.webhook_give_up_s,
            tries=self.webhook_tries,
        )
