"""A flow that was checked: what its runs follow. Made once a version; a run keeps the one that it began with."""

from enum import StrEnum
from typing import Any

from msgspec import Struct


class Kind(StrEnum):
    """What a node does."""

    APP = "app"
    GATE = "gate"
    SELECTOR = "selector"
    MERGE = "merge"
    CONSTANT = "constant"
    EXPRESSION = "expression"


class Source(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Where a value comes from: `path` in the output of `node` (or in the flow's input), or a value."""

    node: str = ""
    path: str = ""
    value: Any = None


class AppCall(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Which app a node runs, and how. `version_id` '' = the current one at that time."""

    app_id: str
    ref: str  # namespace/name, for people
    version_id: str = ""
    function: str = ""
    setup: dict[str, Any] | None = None
    infra: str = ""
    workers: tuple[str, ...] = ()


class Rule(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a node does that is no app; which fields count depends on its kind."""

    expression: str = ""
    field: str = ""
    operator: str = ""
    value: Any = None
    mode: str = ""
    index: int = 0
    random: tuple[float, float] | None = None


class PlanNode(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A node with all that it waits for."""

    id: str
    kind: Kind
    inputs: dict[str, Source] = {}
    after: tuple[str, ...] = ()
    app: AppCall | None = None
    rule: Rule | None = None


class Plan(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The nodes in an order in which each comes after all that it waits for."""

    nodes: tuple[PlanNode, ...]
    outputs: dict[str, Source] = {}
    input_schema: dict[str, Any] = {}
    output_schema: dict[str, Any] = {}
    fail_on_error: bool = True
