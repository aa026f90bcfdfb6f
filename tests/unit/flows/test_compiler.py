"""Which flows can run, and what is said of those that cannot."""

import pytest

from stoker.core.errors import InvalidRequest
from stoker.flows.compiler import AppFacts, apps_wanted, compile_graph
from stoker.flows.plan import Kind
from stoker.flows.schema import parse_graph
from stoker.flows.short import expand

TEXT = {
    "type": "object",
    "properties": {"text": {"type": "string"}, "n": {"type": "integer"}},
    "required": ["text"],
}
APPS = {
    "ns/upper": AppFacts(app_id="a1", ref="ns/upper", function="run", input_schema=TEXT, output_schema=TEXT),
    "ns/count": AppFacts(
        app_id="a2",
        ref="ns/count",
        function="run",
        input_schema={"type": "object", "properties": {"n": {"type": "integer"}}},
        output_schema={"type": "object", "properties": {"n": {"type": "integer"}, "all": {"type": "array"}}},
    ),
}


def plan(nodes, fields=None, output=None, **flow):
    short = {
        "name": "ns/f",
        "input": fields or {"text": "string"},
        "nodes": nodes,
        "output": output or {},
        **flow,
    }
    graph = parse_graph(expand(short).graph)
    apps = {
        node: APPS.get(app.ref.partition("@")[0], f"there is no app {app.ref}")
        for node, app in apps_wanted(graph).items()
    }
    return compile_graph(graph, apps)


def upper(text="{{input.text}}", **more):
    return {"app": "ns/upper", "input": {"text": text}, **more}


def refusal(*args, **kwargs):
    with pytest.raises(InvalidRequest) as refused:
        plan(*args, **kwargs)
    return refused.value.message


def test_nodes_come_after_what_they_wait_for():
    made = plan(
        {"c": upper("{{b.text}}"), "b": upper("{{a.text}}"), "a": upper()}, output={"text": "{{c.text}}"}
    )
    assert [node.id for node in made.nodes] == ["a", "b", "c"]
    assert [node.after for node in made.nodes] == [(), ("a",), ("b",)]
    assert made.output_schema["properties"] == {"text": {"type": "string"}}


@pytest.mark.parametrize(
    ("ref", "version"), [("ns/upper", ""), ("ns/upper@latest", ""), ("ns/upper@3f", "3f")]
)
def test_a_version_is_kept_and_latest_is_none(ref, version):
    made = plan({"a": upper() | {"app": ref}})
    assert made.nodes[0].app.version_id == version


def test_an_order_without_a_value_is_an_order_too():
    made = plan({"a": upper(), "b": upper(after="a")})
    assert {node.id: node.after for node in made.nodes}["b"] == ("a",)


def test_the_field_of_a_node_may_be_written_as_of_its_output():
    made = plan({"a": upper(), "b": upper("{{a.output.text}}")})
    assert made.nodes[1].inputs["text"].path == "text"


def test_each_rule_has_its_node():
    made = plan(
        {
            "a": upper(),
            "g": {"gate": {"field": "text", "operator": "ne", "value": ""}, "input": {"text": "{{a.text}}"}},
            "e": {"gate": "size(text) > 3", "input": {"text": "{{a.text}}"}},
            "s": {"selector": {"index": 1}, "input": {"items": "{{input.items}}"}},
            "m": {"merge": {}, "input": {"x": "{{g.text}}", "y": "{{s.output}}"}},
            "k": {"constant": 3},
            "x": {"expression": "a + 1", "input": {"a": "{{k.output}}"}},
        },
        {"text": "string", "items": "array"},
    )
    kinds = {node.id: node.kind for node in made.nodes}
    assert kinds == {
        "a": Kind.APP, "g": Kind.GATE, "e": Kind.GATE, "s": Kind.SELECTOR, "m": Kind.MERGE, "k": Kind.CONSTANT,
        "x": Kind.EXPRESSION,
    }  # fmt: skip
    rules = {node.id: node.rule for node in made.nodes}
    assert (rules["g"].operator, rules["s"].mode, rules["s"].index) == ("!=", "index", 1)


@pytest.mark.parametrize(
    ("nodes", "said"),
    [
        ({}, "there is none"),
        ({"a": upper("{{b.text}}"), "b": upper("{{a.text}}")}, "it waits for itself: a -> b -> a"),
        ({"a": {"app": "ns/none"}}, "node 'a': there is no app ns/none"),
        ({"a": {"app": "ns/upper"}}, "node 'a': input 'text' of ns/upper is missing"),
        ({"a": upper("{{b.text}}")}, "node 'a', input 'text': there is no node 'b'"),
        ({"a": upper("{{input.name}}")}, "the flow's input has no 'name'; it has text"),
        ({"a": upper(), "b": upper("{{a.size}}")}, "node 'a' has no 'size'; it has text, n"),
        ({"a": upper(7)}, "node 'a', input 'text': it takes string, and the value is integer"),
        (
            {"c": {"app": "ns/count"}, "a": upper("{{c.all}}")},
            "node 'a', input 'text': it takes string, and c.all is array",
        ),
        (
            {"a": {"app": "ns/upper", "input": {"text": "x", "size": 1}}},
            "ns/upper has no such input; it has text, n",
        ),
        ({"a": {"expression": "1 +"}}, "is no CEL expression"),
        ({"a": {"expression": ""}}, "it has no expression"),
        (
            {"a": {"gate": {"operator": "like"}, "input": {"x": 1}}},
            "operator 'like' is unknown; it may be ==, !=",
        ),
        ({"a": {"gate": {"field": "y"}, "input": {"x": 1}}}, "field 'y' is none of its inputs: x"),
        ({"a": {"gate": {}}}, "it has no input; connect one"),
        (
            {"a": {"selector": {"mode": "best"}, "input": {"x": []}}},
            "mode 'best' is unknown; it may be first, last",
        ),
        ({"a": {"constant": {"random": [2, 1]}}}, "random_min 2 is above random_max 1"),
        ({"k": {"constant": 1}, "a": upper("{{k.value}}")}, "node 'k' has no 'value'; it has output"),
    ],
)
def test_what_is_wrong_is_told_with_its_node(nodes, said):
    assert said in refusal(nodes)


def test_all_that_is_wrong_is_told_at_once():
    text = refusal({"a": {"app": "ns/upper"}, "b": upper("{{a.size}}")}, output={"x": "{{c.text}}"})
    assert "input 'text' of ns/upper is missing" in text
    assert "has no 'size'" in text
    assert "output 'x': there is no node 'c'" in text


def test_what_may_be_null_fits_where_the_rest_of_it_fits():
    maybe = {"anyOf": [{"type": "string"}, {"type": "null"}]}
    assert plan({"a": upper("{{input.maybe}}")}, {"maybe": maybe | {"optional": True}})
    assert "takes string" in refusal(
        {"a": upper("{{input.maybe}}")}, {"maybe": {"anyOf": [{"type": "array"}, {"type": "null"}]}}
    )


def test_the_stored_form_of_an_editor_is_understood():
    graph = parse_graph(
        {
            "nodes": [
                {"id": "in", "type": "input", "position": {"x": 0, "y": 0}},
                {"id": "a", "type": "app"},
            ],
            "edges": [{"id": "e", "type": "x", "source": "in", "target": "a"}],
            "node_data": {
                "a": {"app": {"namespace": "ns", "name": "upper"}, "app_id": "a1", "infra": "private"}
            },
            "input": {
                "a": {
                    "text": {"Connection": {"nodeId": "in", "key": "text", "type": "string"}, "Value": None}
                }
            },
            "input_schema": {"properties": {"text": {"type": "string"}}},
            "output_mappings": {
                "r": {"sourceNodeId": "a", "sourceFieldPath": "text", "outputFieldName": "r"}
            },
            "viewport": None,
        }
    )
    assert apps_wanted(graph)["a"].app_id == "a1"
    made = compile_graph(graph, {"a": APPS["ns/upper"]})
    [node] = made.nodes
    assert (node.inputs["text"].node, node.inputs["text"].path, node.after) == ("input", "text", ())


@pytest.mark.parametrize(
    "broken", [{"nodes": 3}, {"edges": [{"id": "e"}]}, {"input": {"a": {"x": {"Connection": {}}}}}]
)
def test_a_graph_that_is_none_is_refused_with_the_place(broken):
    with pytest.raises(InvalidRequest, match="Input validation failed"):
        parse_graph(broken)
