"""The settings of how runs become tasks (`stoker.settings` puts them into the gateway's and the jobs' classes)."""

from typing import Final, Literal

from pydantic import Field

from stoker.retry_settings import RetryFields

_DAY_S: Final = 86_400


class RunFields(RetryFields):
    """What holds for every task, whoever submits it: a client, a flow, an agent."""

    cloud_infra: Literal["run", "refuse"] = Field(
        default="run",
        description="What to do with a request for the cloud: run it here and say so, or refuse it.",
    )
    retention_s: float = Field(
        default=7 * _DAY_S, ge=60, description="Seconds that an ended task or flow run is kept."
    )
    verified_owners: tuple[str, ...] = Field(
        default=("admin",),
        description="Users whose public apps and agents are given the secrets of whoever runs them; '*' = all.",
    )
