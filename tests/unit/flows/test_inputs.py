"""What a run is given, in both forms."""

import pytest

from stoker.core.errors import InvalidRequest
from stoker.flows.inputs import by_node, take_input
from stoker.flows.plan import Kind, Plan, PlanNode, Source

PLAN = Plan(
    nodes=(
        PlanNode(id="a", kind=Kind.MERGE, inputs={"x": Source(node="input", path="n"), "y": Source(value=1)}),
    ),
    input_schema={"properties": {"n": {"type": "integer"}, "width": {"default": 640}}},
)


def test_fields_are_completed_with_their_defaults():
    plan, own = take_input(PLAN, {"n": 3})
    assert (plan, own) == (PLAN, {"n": 3, "width": 640})
    assert take_input(PLAN, None)[1] == {"width": 640}


def test_the_form_in_which_runs_show_it_gives_the_same():
    shown = by_node({"n": 3, "width": 640})
    assert take_input(PLAN, shown)[1] == {"n": 3, "width": 640}


def test_values_may_replace_inputs_of_single_nodes():
    plan, own = take_input(PLAN, {"a": {"y": {"Connection": None, "Value": 2}, "x": {"Value": None}}})
    assert plan.nodes[0].inputs == {"x": Source(node="input", path="n"), "y": Source(value=2)}
    assert own == {"width": 640}


def test_a_field_that_is_called_like_a_node_is_a_field():
    assert take_input(PLAN, {"a": {"y": 2}})[1]["a"] == {"y": 2}


@pytest.mark.parametrize("given", [[], "text", 3])
def test_anything_else_is_refused(given):
    with pytest.raises(InvalidRequest, match="it should be an object"):
        take_input(PLAN, given)
