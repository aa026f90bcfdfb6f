"""Edits of a draft: what they do, what they refuse, and that a sound graph stays sound whatever is asked."""

import copy
from graphlib import TopologicalSorter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stoker.core.errors import Conflict
from stoker.flows.edits import TYPES, Action, edit
from stoker.flows.history import MAX_STEPS, applied, changed, difference, moved, step_wanted
from stoker.flows.records import FlowBody
from stoker.flows.schema import MAX_NODES, parse_graph

pytestmark = pytest.mark.unit

HERE = {"x": 0.0, "y": 0.0}


def connection(node, key="text", **more):
    return {"Connection": {"nodeId": node, "key": key, "type": "string", **more}, "Value": None}


GRAPH = {
    "nodes": [
        {"id": "input", "type": "input", "position": HERE},
        {"id": "a", "type": "app", "position": HERE},
        {"id": "b", "type": "app", "position": {"x": 5, "y": 5}},
    ],
    "edges": [{"id": "e1", "type": "default", "source": "a", "target": "b"}],
    "node_data": {"a": {"app": "ns/a", "setup": {"n": 1}}, "b": {"app": "ns/b"}},
    "input": {
        "a": {"text": connection("input")},
        "b": {"text": connection("a", "out", previousValue="old"), "n": {"Value": 3}},
    },
    "output_mappings": {"said": {"sourceNodeId": "b", "sourceFieldPath": "out", "outputFieldName": "said"}},
    "viewport": {"x": 1, "y": 2, "zoom": 3},
}


def done(*actions, graph=GRAPH):
    """The graph after (type, payload) each."""
    before = copy.deepcopy(graph)
    edited = edit(graph, [Action(type=kind, payload=payload) for kind, payload in actions])
    assert graph == before, "the graph that was given is changed"
    assert edited.errors == ()
    assert_sound(edited.graph)
    return edited.graph


def refused(kind, payload, graph=GRAPH):
    edited = edit(graph, [Action(type=kind, payload=payload)])
    assert edited.graph == graph
    [error] = edited.errors
    assert (error.index, error.type) == (0, kind)
    return error.message


def assert_sound(graph):
    """What holds of a graph whose references are whole; told without the code that keeps them."""
    parse_graph(graph)
    ids = [node["id"] for node in graph["nodes"]]
    assert len(ids) == len(set(ids)) <= MAX_NODES
    known = {*ids, "input"}
    edge_ids = [edge["id"] for edge in graph["edges"]]
    assert len(edge_ids) == len(set(edge_ids))
    assert {*graph["node_data"], *graph["input"]} <= set(ids)
    assert {mapping["sourceNodeId"] for mapping in graph["output_mappings"].values()} <= known
    assert all(name == mapping["outputFieldName"] for name, mapping in graph["output_mappings"].items())
    before = {name: set() for name in known}
    for edge in graph["edges"]:
        assert {edge["source"], edge["target"]} <= known
        before[edge["target"]].add(edge["source"])
    for name, inputs in graph["input"].items():
        for value in inputs.values():
            if value.get("Connection"):
                before[name].add(value["Connection"]["nodeId"])
    assert set().union(*before.values()) <= known
    assert not before["input"]
    list(TopologicalSorter(before).static_order())  # raises for what waits for itself


def test_a_node_is_added_where_it_was_dropped_with_its_data():
    graph = done(
        ("node.add", {"id": "c", "type": "app", "position": {"x": 9, "y": 8}, "data": {"app": "x/y"}})
    )
    assert graph["nodes"][-1] == {"id": "c", "type": "app", "position": {"x": 9, "y": 8}}
    assert graph["node_data"]["c"] == {"app": "x/y"}
    assert graph["viewport"] == GRAPH["viewport"]


def test_an_empty_draft_can_be_filled():
    graph = done(
        ("node.add", {"id": "input", "type": "input", "position": HERE}),
        ("node.add", {"id": "a", "type": "app", "position": HERE, "data": {"app": "x/y"}}),
        ("node.set_input", {"node_id": "a", "input_key": "t", "input": connection("input", "t")}),
        ("flow.set_input_schema", {"schema": {"type": "object", "properties": {"t": {"type": "string"}}}}),
        ("flow.set_output_schema", {"schema": {"type": "object"}}),
        ("flow.set_output_mapping", {"field": "o", "mapping": {"sourceNodeId": "a", "sourceFieldPath": "x"}}),
        graph={},
    )
    assert graph["input"] == {"a": {"t": connection("input", "t")}}
    assert graph["output_mappings"]["o"]["outputFieldName"] == "o"
    assert graph["input_schema"]["properties"] == {"t": {"type": "string"}}


def test_a_removed_node_takes_its_edges_and_outputs_along_and_inputs_have_their_former_values():
    graph = done(("node.remove", {"id": "a"}))
    assert [node["id"] for node in graph["nodes"]] == ["input", "b"]
    assert (graph["edges"], sorted(graph["node_data"])) == ([], ["b"])
    assert graph["input"] == {"b": {"text": {"Connection": None, "Value": "old"}, "n": {"Value": 3}}}
    assert done(("node.remove", {"id": "b"}))["output_mappings"] == {}


def test_a_renamed_node_is_the_same_everywhere():
    graph = done(
        ("node.rename", {"old_id": "a", "new_id": "z"}), ("node.rename", {"old_id": "b", "new_id": "a"})
    )
    assert [node["id"] for node in graph["nodes"]] == ["input", "z", "a"]
    assert (graph["edges"][0]["source"], graph["edges"][0]["target"]) == ("z", "a")
    assert graph["node_data"] == {"z": GRAPH["node_data"]["a"], "a": GRAPH["node_data"]["b"]}
    assert graph["input"]["a"]["text"]["Connection"]["nodeId"] == "z"
    assert graph["output_mappings"]["said"]["sourceNodeId"] == "a"


def test_a_copy_is_given_what_its_source_is_given():
    graph = done(("node.duplicate", {"source_id": "b", "new_id": "c", "offset": {"x": 10, "y": 20}}))
    assert graph["nodes"][-1] == {"id": "c", "type": "app", "position": {"x": 15, "y": 25}}
    assert graph["node_data"]["c"] == GRAPH["node_data"]["b"]
    assert graph["input"]["c"] == GRAPH["input"]["b"]
    assert graph["edges"] == GRAPH["edges"]


def test_nodes_are_moved_one_by_one_and_together():
    graph = done(
        ("node.move", {"id": "a", "position": {"x": 1, "y": 2}}),
        ("node.move_many", {"positions": {"a": {"x": 3, "y": 4}, "input": {"x": 5, "y": 6}}}),
    )
    assert [node["position"] for node in graph["nodes"]] == [
        {"x": 5, "y": 6},
        {"x": 3, "y": 4},
        {"x": 5, "y": 5},
    ]


def test_an_app_that_is_set_replaces_the_one_that_was_named():
    payload = {"node_id": "a", "app_id": "i", "app_version_id": "v", "function": ""}
    data = done(("node.set_app", payload))["node_data"]["a"]
    assert data == {"setup": {"n": 1}, "app_id": "i", "app_version_id": "v", "function": None}


def test_data_is_changed_by_key_and_null_removes_one():
    patch = {"setup": None, "infra": "private", "workers": ["w"]}
    data = done(("node.update", {"node_id": "a", "patch": patch}))["node_data"]["a"]
    assert data == {"app": "ns/a", "infra": "private", "workers": ["w"]}


def test_inputs_are_set_and_cleared():
    graph = done(
        ("node.set_input", {"node_id": "a", "input_key": "n", "input": {"Value": 7}}),
        ("node.clear_input", {"node_id": "b", "input_key": "text"}),
        ("node.clear_input", {"node_id": "b", "input_key": "n"}),
        ("node.clear_input", {"node_id": "b", "input_key": "never"}),
    )
    assert graph["input"] == {"a": {"text": connection("input"), "n": {"Value": 7}}}


def test_edges_are_added_and_removed():
    graph = done(
        ("edge.add", {"id": "e2", "source": "input", "target": "b", "target_handle": "n"}),
        ("edge.remove", {"id": "e1"}),
    )
    [edge] = graph["edges"]
    assert edge == {"id": "e2", "type": "default", "source": "input", "target": "b", "target_handle": "n"}


def test_outputs_are_mapped_renamed_and_removed():
    more = ("flow.set_output_mapping", {"field": "x", "mapping": {"sourceNodeId": "input"}})
    renamed = done(more, ("flow.rename_output_field", {"old_field": "said", "new_field": "words"}))
    assert list(renamed["output_mappings"]) == ["words", "x"]
    assert renamed["output_mappings"]["words"]["outputFieldName"] == "words"
    assert done(("flow.remove_output_mapping", {"field": "said"}))["output_mappings"] == {}


REFUSALS = [
    ("node.explode", {}, "the action is unknown; there are: node.add, "),
    ("node.add", {}, "payload: Object missing required field `id`"),
    ("node.add", {"id": "a", "type": "app"}, "there is a node 'a' already"),
    ("node.add", {"id": "", "type": "app"}, "has 1 to 128 characters"),
    ("node.add", {"id": "input", "type": "app"}, "that of the flow's own input"),
    ("node.add", {"id": "c", "data": {"workers": 3}}, "payload.data: Expected `array | null`"),
    ("node.remove", {"id": "c"}, "there is no node 'c'; there are: input, a, b"),
    ("node.remove", {"id": "input"}, "stands for the flow's own input"),
    ("node.move", {"id": "a", "position": {"x": "left"}}, "Expected `float`, got `str` - at `$.position.x`"),
    ("node.move_many", {"positions": {"a": HERE, "c": HERE}}, "there is no node 'c'"),
    ("node.duplicate", {"source_id": "a", "new_id": "b"}, "there is a node 'b' already"),
    ("node.rename", {"old_id": "a", "new_id": "input"}, "that of the flow's own input"),
    ("node.set_app", {"node_id": "input", "app_id": "x"}, "stands for the flow's own input"),
    ("node.update", {"node_id": "a", "patch": {"setup": 1}}, "payload.patch: Expected `object | null`"),
    ("node.set_input", {"node_id": "a", "input_key": "t", "input": connection("b")}, "a -> b -> a"),
    ("node.set_input", {"node_id": "a", "input_key": "t", "input": connection("c")}, "there is no node 'c'"),
    (
        "node.set_input",
        {"node_id": "input", "input_key": "t", "input": connection("a")},
        "nothing comes before",
    ),
    ("node.clear_input", {"node_id": "c", "input_key": "t"}, "there is no node 'c'"),
    ("edge.add", {"id": "e1", "source": "a", "target": "b"}, "'e1' is taken"),
    ("edge.add", {"id": "e2", "source": "b", "target": "a"}, "node 'a' would wait for itself: a -> b -> a"),
    ("edge.add", {"id": "e2", "source": "a", "target": "a"}, "node 'a' would wait for itself: a -> a"),
    ("edge.add", {"id": "e2", "source": "a", "target": "c"}, "there is no node 'c'"),
    ("edge.remove", {"id": "e2"}, "there is no edge 'e2'; there are: e1"),
    ("flow.set_input_schema", {"schema": "text"}, "Expected `object | null`, got `str`"),
    ("flow.set_output_mapping", {"field": "x", "mapping": {"sourceNodeId": "c"}}, "there is no node 'c'"),
    ("flow.set_output_mapping", {"field": "", "mapping": {"sourceNodeId": "a"}}, "an output needs a name"),
    ("flow.remove_output_mapping", {"field": "x"}, "there is no output 'x'; there are: said"),
    ("flow.rename_output_field", {"old_field": "x", "new_field": "y"}, "there is no output 'x'"),
]


@pytest.mark.parametrize(("kind", "payload", "why"), REFUSALS)
def test_what_cannot_be_done_says_why_and_changes_nothing(kind, payload, why):
    assert why in refused(kind, payload)


def test_of_several_actions_all_are_done_or_none_and_each_wrong_one_is_told():
    actions = [
        Action(type="node.remove", payload={"id": "b"}),
        Action(type="node.move", payload={"id": "b", "position": HERE}),
        Action(type="edge.remove", payload={"id": "nine"}),
    ]
    edited = edit(GRAPH, actions)
    assert edited.graph == GRAPH
    assert [(error.index, error.type) for error in edited.errors] == [(1, "node.move"), (2, "edge.remove")]


def test_a_flow_has_no_more_nodes_than_a_run_can_have():
    actions = [("node.add", {"id": f"n{number}", "type": "app"}) for number in range(MAX_NODES)]
    full = done(*actions, graph={})
    assert refused("node.add", {"id": "more", "type": "app"}, full) == f"a flow has at most {MAX_NODES} nodes"


def test_what_was_changed_is_taken_back_and_done_again():
    history = Drafts(GRAPH)
    history.act(("node.rename", {"old_id": "a", "new_id": "z"}))
    history.act(("node.remove", {"id": "z"}), ("edge.add", {"id": "e9", "source": "input", "target": "b"}))
    first, last = history.graphs[1], history.graphs[2]
    assert history.move(back=True) == first
    assert history.move(back=True) == GRAPH
    assert history.move(back=False) == first
    assert history.move(back=False) == last
    assert history.body.history.version == 7


def test_a_new_change_ends_what_could_be_done_again():
    history = Drafts(GRAPH)
    history.act(("node.remove", {"id": "a"}))
    history.move(back=True)
    history.act(("node.remove", {"id": "b"}))
    with pytest.raises(Conflict, match="nothing to redo"):
        step_wanted(history.body, back=False)


def test_only_so_many_changes_can_be_taken_back():
    history = Drafts(GRAPH)
    for number in range(MAX_STEPS + 5):
        history.act(("node.move", {"id": "a", "position": {"x": number + 1, "y": 0}}))
    assert len(history.parts) == MAX_STEPS
    for number in range(MAX_STEPS):
        assert history.move(back=True) == history.graphs[-2 - number]
    with pytest.raises(Conflict, match="nothing to undo"):
        step_wanted(history.body, back=True)


def test_where_an_editor_looks_at_is_not_taken_back():
    history = Drafts(GRAPH)
    history.act(("node.remove", {"id": "a"}))
    body, parts = changed(history.body, history.body.graph | {"viewport": {"x": 0, "y": 0, "zoom": 9}})
    assert (parts, body.history) == ({}, history.body.history)
    history.body = body
    assert history.move(back=True) == GRAPH | {"viewport": {"x": 0, "y": 0, "zoom": 9}}


class Drafts:
    """A flow through its changes, with the graphs that it had."""

    def __init__(self, graph):
        self.body = FlowBody(namespace="n", name="f", draft_version_id="d", graph=graph)
        self.parts = {}
        self.graphs = [graph]

    def act(self, *actions):
        self.body, parts = changed(self.body, done(*actions, graph=self.body.graph))
        self.parts |= parts
        self.graphs.append(self.body.graph)

    def move(self, *, back):
        self.body = moved(self.body, self.parts[step_wanted(self.body, back=back)], back=back)
        return self.body.graph


IDS = st.sampled_from(["input", "a", "b", "c", "d", "", "e1", "e2"])
SPOTS = st.fixed_dictionaries({"x": st.integers(-9, 9), "y": st.integers(-9, 9)})
VALUES = st.none() | st.integers(0, 3) | st.just({"k": [1]})
INPUTS = st.fixed_dictionaries({"Value": VALUES}) | IDS.map(connection)
FIELDS = {
    **dict.fromkeys(("id", "source_id", "new_id", "old_id", "node_id", "source", "target"), IDS),
    **dict.fromkeys(("field", "old_field", "new_field", "input_key"), st.sampled_from(["said", "x", ""])),
    **dict.fromkeys(("position", "offset"), SPOTS),
    **dict.fromkeys(("app_id", "app_version_id", "function"), st.sampled_from(["", "i"])),
    "type": st.sampled_from(["app", "input", ""]),
    "data": st.just({"app": "x/y"}) | st.none(),
    "patch": st.dictionaries(st.sampled_from(["app", "setup"]), VALUES),
    "input": INPUTS,
    "positions": st.dictionaries(IDS, SPOTS),
    "schema": st.just({"type": "object"}) | st.none(),
    "mapping": IDS.map(lambda name: {"sourceNodeId": name, "sourceFieldPath": "o"}),
}
ACTIONS = st.builds(
    lambda kind, payload: Action(type=kind, payload=payload),
    st.sampled_from(TYPES),
    st.fixed_dictionaries(FIELDS),
)


@settings(max_examples=100)
@given(st.sampled_from([GRAPH, {}]), st.lists(ACTIONS, max_size=8))
def test_a_sound_graph_stays_sound_and_each_change_can_be_taken_back(graph, actions):
    body = FlowBody(namespace="n", name="f", draft_version_id="d", graph=graph)
    for action in actions:
        edited = edit(body.graph, [action])
        if edited.errors:
            assert edited.graph == body.graph
            continue
        assert_sound(edited.graph)
        after, parts = changed(body, edited.graph)
        for part in parts.values():
            undone = moved(after, part, back=True)
            assert undone.graph == {name: value for name, value in body.graph.items() if value is not None}
            assert moved(undone, part, back=False).graph == after.graph
        body = after


JSON = st.recursive(
    st.none() | st.integers(0, 3) | st.text("ab", max_size=2),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from("xyz"), inner, max_size=3)
        | st.lists(st.fixed_dictionaries({"id": st.sampled_from("xyz"), "v": inner}), max_size=3)
    ),
    max_leaves=12,
)


@settings(max_examples=100)
@given(JSON, JSON)
def test_a_difference_makes_the_one_of_the_other(old, new):
    assert applied(old, difference(old, new)) == new
