"""Where chats go on: what the gateway and the jobs have in common."""

from typing import Protocol

from stoker.agent_settings import ChatFields
from stoker.protocol import Store
from stoker.runs.registry import Registry
from stoker.runs.submit import Submitter


class Workplace(Protocol):
    """The parts that work on a chat."""

    @property
    def store(self) -> Store: ...

    @property
    def settings(self) -> ChatFields: ...

    @property
    def submitter(self) -> Submitter: ...

    @property
    def registry(self) -> Registry: ...
