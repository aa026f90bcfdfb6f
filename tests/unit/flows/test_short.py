"""The short form of a flow."""

import pytest

from stoker.core.errors import InvalidRequest
from stoker.flows.short import expand


def test_a_flow_is_made_into_the_stored_form():
    made = expand(
        {
            "name": "me/sign",
            "title": "Read a sign",
            "input": {
                "image": "file",
                "width": {"type": "integer", "default": 640},
                "note": {"optional": True},
            },
            "nodes": {
                "small": {
                    "app": "ns/resize:run",
                    "input": {"image": "{{ input.image }}", "width": "{{input.width}}"},
                },
                "words": {"app": "ns/ocr@3f2a", "input": {"image": "{{small.image}}"}, "workers": ["box"]},
            },
            "output": {"text": "{{words.text}}"},
        }
    )
    assert (made.namespace, made.name, made.title) == ("me", "sign", "Read a sign")
    graph = made.graph
    assert graph["input_schema"]["required"] == ["image"]
    assert graph["input_schema"]["properties"]["image"] == {"type": "string", "format": "file"}
    assert graph["node_data"]["small"] == {"app": "ns/resize", "function": "run"}
    assert graph["node_data"]["words"] == {"app": "ns/ocr@3f2a", "function": None, "workers": ["box"]}
    assert graph["input"]["words"] == {"image": {"Connection": {"nodeId": "small", "key": "image"}}}
    assert [(e["source"], e["target"]) for e in graph["edges"]] == [("input", "small"), ("small", "words")]
    assert [node["position"]["x"] for node in graph["nodes"]] == [0, 280, 560]
    assert graph["output_mappings"]["text"]["sourceFieldPath"] == "text"


@pytest.mark.parametrize(
    ("short", "said"),
    [
        ([], "the flow: it is a list"),
        ({"nodes": {}}, "name: say what the flow is called"),
        ({"name": "f", "steps": []}, "the flow: steps unknown; it may have"),
        ({"name": "f", "nodes": {"a": {}}}, "node 'a': it should have one of app, gate"),
        ({"name": "f", "nodes": {"a": {"app": "x", "merge": {}}}}, "it has 2"),
        ({"name": "f", "nodes": {"a": {"app": "x", "inputs": {}}}}, "inputs unknown; it may have after, app"),
        ({"name": "f", "nodes": {"input": {"app": "x"}}}, "is not 'input'"),
        ({"name": "f", "nodes": {"a": {"gate": {"op": "=="}}}}, "node 'a', gate: op unknown"),
        (
            {"name": "f", "nodes": {"a": {"app": "x", "input": {"t": "Hi {{input.n}}"}}}},
            "more than one template",
        ),
        (
            {"name": "f", "nodes": {"a": {"app": "x"}}, "output": {"t": "text"}},
            "output 't': 'text' is no template",
        ),
    ],
)
def test_what_is_not_understood_is_told_with_its_place(short, said):
    with pytest.raises(InvalidRequest) as refused:
        expand(short)
    assert said in refused.value.message


def test_a_circle_is_laid_out_and_left_to_who_checks():
    nodes = {"a": {"merge": {}, "input": {"x": "{{b}}"}}, "b": {"merge": {}, "input": {"x": "{{a}}"}}}
    assert len(expand({"name": "f", "nodes": nodes}).graph["nodes"]) == 3
