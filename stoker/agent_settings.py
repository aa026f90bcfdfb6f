"""The settings of agents (`stoker.settings` puts them into the gateway's and the jobs' classes)."""

from typing import Final

from pydantic import BaseModel, Field

from stoker.run_settings import RunFields

_DAY_S: Final = 86_400


class AgentFields(BaseModel):
    """What holds for every chat."""

    agent_max_turns: int = Field(
        default=50, ge=1, le=1000, description="Answers of the model in one run of an agent, at most."
    )
    agent_max_tool_calls: int = Field(
        default=200, ge=1, le=10_000, description="Calls of tools in one run of an agent, at most."
    )
    agent_max_tokens: int = Field(
        default=0, ge=0, description="Tokens in one run of an agent, at most; 0 = unlimited."
    )
    client_tool_wait_s: float = Field(
        default=_DAY_S,
        ge=1,
        le=30 * _DAY_S,
        description="Seconds that a run waits for the result of a caller's own tool.",
    )
    chat_retention_s: float = Field(
        default=30 * _DAY_S,
        ge=0,
        description="Seconds that a chat is kept in which nothing happens; 0 = until it is deleted.",
    )


class StepFields(BaseModel):
    """How the jobs take flows and chats on."""

    step_workers: int = Field(
        default=2,
        ge=1,
        le=64,
        description="Processes that take the steps of flows and chats, in each process of the jobs: one works while another awaits Redis.",
    )
    address_call_concurrency: int = Field(
        default=64,
        ge=1,
        le=1000,
        description="Addresses that are called at once for tools and hooks of chats, in each process of the jobs.",
    )


class ChatFields(RunFields, AgentFields):
    """What whoever goes on with a chat needs to know: of chats, and of the tasks that they submit."""
