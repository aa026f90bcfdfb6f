"""What nodes compute that are no apps."""

import pytest

from stoker.flows.expressions import MAX_STEPS, ExpressionFailed, evaluate
from stoker.flows.paths import MISSING, dig
from stoker.flows.plan import Kind, PlanNode, Rule
from stoker.flows.rules import OPERATORS, RuleFailed, compute


def run(kind, given, seed="s", **rule):
    return compute(PlanNode(id="n", kind=kind, rule=Rule(**rule)), given, seed)


@pytest.mark.parametrize(
    ("operator", "have", "want", "passed"),
    [
        ("==", 1, 1.0, True),
        ("!=", "a", "b", True),
        (">", 2, 1, True),
        ("<=", 2, 1, False),
        ("contains", "abc", "b", True),
        ("contains", [1, 2], 3, False),
        ("not_contains", [1, 2], 3, True),
        ("in", "a", ["a"], True),
        ("empty", [], None, True),
        ("empty", 0, None, False),
        ("not_empty", "x", None, True),
        ("true", 1, None, True),
        ("false", "", None, True),
    ],
)
def test_operators(operator, have, want, passed):
    assert OPERATORS[operator](have, want) is passed


@pytest.mark.parametrize(("operator", "have"), [(">", "a"), ("contains", 5), ("<", None)])
def test_what_cannot_be_compared_is_told(operator, have):
    with pytest.raises(RuleFailed):
        OPERATORS[operator](have, 1)


@pytest.mark.parametrize(
    ("operator", "have", "want"), [("contains", {"a": 1}, ["a"]), ("in", ["a"], {"a": 1})]
)
def test_what_can_be_no_key_of_an_object_is_told(operator, have, want):
    with pytest.raises(RuleFailed, match="cannot be in"):
        OPERATORS[operator](have, want)


def test_a_gate_gives_its_inputs_the_value_and_whether_it_passed():
    given = {"a": {"b": 3}, "c": 1}
    assert run(Kind.GATE, given, field="a.b", operator=">", value=2) == given | {"output": 3, "passed": True}
    assert not run(Kind.GATE, given, expression="c > 1")["passed"]
    with pytest.raises(RuleFailed, match="wants true or false"):
        run(Kind.GATE, given, expression="c + 1")


@pytest.mark.parametrize(
    ("mode", "index", "found"), [("first", 0, "a"), ("last", 0, "c"), ("index", 1, "b"), ("index", -2, "b")]
)
def test_a_selector_gives_one_element(mode, index, found):
    assert run(Kind.SELECTOR, {"x": ["a", "b", "c"]}, mode=mode, index=index)["output"] == found


@pytest.mark.parametrize("items", [[], "abc", None])
def test_a_selector_without_such_an_element_fails(items):
    with pytest.raises(RuleFailed):
        run(Kind.SELECTOR, {"x": items}, mode="first")


def test_what_is_random_is_the_same_again_and_within_its_bounds():
    values = {run(Kind.CONSTANT, {}, seed=str(n), random=(1, 3))["output"] for n in range(50)}
    assert values == {1, 2, 3}
    assert run(Kind.CONSTANT, {}, random=(0, 0.5)) == run(Kind.CONSTANT, {}, random=(0, 0.5))
    chosen = [run(Kind.SELECTOR, {"x": [1, 2, 3]}, seed="s", mode="random")["output"] for _ in range(3)]
    assert len(set(chosen)) == 1


def test_a_merge_gives_what_is_there():
    assert run(Kind.MERGE, {"b": 2}) == {"b": 2, "output": 2, "values": [2]}


def test_expressions_know_their_inputs_by_name_and_all_together():
    assert evaluate("a + size(inputs)", {"a": 1, "b-c": 2}) == 3
    assert evaluate("{'x': [1.5, null, true]}", {}) == {"x": [1.5, None, True]}
    assert evaluate("duration('90s')", {}) == 90


@pytest.mark.parametrize("expression", ["missing", "1 / 0", "'a' + 1", "0.0 / 0.0"])
def test_an_expression_that_has_no_value_says_why(expression):
    with pytest.raises(ExpressionFailed):
        evaluate(expression, {})


def test_an_expression_that_would_take_too_long_is_not_begun():
    with pytest.raises(ExpressionFailed, match="Let an app compute it"):
        evaluate("xs.map(a, xs.map(b, xs.map(c, 1)))", {"xs": [0] * int(MAX_STEPS**0.5)})
    assert evaluate("xs.filter(a, a > 1)", {"xs": [1, 2]}) == [2]


def test_paths_lead_into_objects_and_arrays():
    value = {"a": [{"b": 1}], "x.y": 2}
    assert (dig(value, "a.0.b"), dig(value, "x.y"), dig(value, "")) == (1, 2, value)
    assert [dig(value, path) for path in ("a.1", "a.b", "z", "a.0.b.c")] == [MISSING] * 4
