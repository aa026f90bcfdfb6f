"""Single edits of a flow's draft, over HTTP: one gateway on a real server, and no worker."""

import asyncio

import pytest
from gateways import gateway_settings, running

from stoker_gateway.routes.keys import NewKey, make_key


@pytest.fixture
async def http(tmp_path, s3_server, store):
    async with running(gateway_settings("local", tmp_path, s3_server, store)) as gateway:
        yield gateway.client


@pytest.fixture
async def flow(http):
    return data(await http.post("/flows", json={"name": "By edits"}))["id"]


def data(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()["data"]


def body(*actions):
    return {"actions": [{"type": kind, "payload": payload} for kind, payload in actions]}


async def nodes(http, flow):
    return [node["id"] for node in data(await http.get(f"/flows/{flow}"))["nodes"]]


MADE = body(
    ("node.add", {"id": "input", "type": "input", "position": {"x": 0, "y": 0}}),
    ("node.add", {"id": "a", "type": "constant", "data": {"utility": {"preset": "constant", "constant": 1}}}),
    (
        "flow.set_output_mapping",
        {"field": "y", "mapping": {"sourceNodeId": "a", "sourceFieldPath": "output"}},
    ),
)


async def test_a_draft_that_is_made_by_edits_is_deployed(http, flow):
    done = data(await http.post(f"/flows/{flow}/actions", json=MADE))
    assert done == {"version": 2, "actions": MADE["actions"]}
    app = data(await http.post(f"/flows/{flow}/app"))
    assert list(app["version"]["output_schema"]["properties"]) == ["y"]
    shown = data(await http.get(f"/flows/{flow}"))
    assert (shown["draft_version"]["graph_version"], shown["published_version"]["graph_version"]) == (2, 2)


async def test_where_one_action_is_wrong_none_is_done_and_it_says_why(http, flow):
    await http.post(f"/flows/{flow}/actions", json=MADE)
    wrong = body(("node.remove", {"id": "a"}), ("edge.remove", {"id": "none"}))
    why = {"index": 1, "type": "edge.remove", "message": "there is no edge 'none'; there are: none"}
    assert data(await http.post(f"/flows/{flow}/actions", json=wrong)) == {
        "version": 2,
        "actions": [],
        "errors": [why],
    }
    assert await nodes(http, flow) == ["input", "a"]


async def test_changes_of_every_kind_are_taken_back_and_done_again(http, flow):
    await http.post(f"/flows/{flow}/actions", json=MADE)
    await http.post(f"/flows/{flow}", json={"nodes": [], "edges": [], "output_mappings": {}})
    undo, redo = body(("undo", None)), body(("redo", None))
    assert data(await http.post(f"/flows/{flow}/actions", json=undo)) == {"version": 4, **undo}
    assert await nodes(http, flow) == ["input", "a"]
    await http.post(f"/flows/{flow}/actions", json=undo)
    assert await nodes(http, flow) == []
    refused = await http.post(f"/flows/{flow}/actions", json=undo)
    assert (refused.status_code, refused.json()["detail"]) == (409, "There is nothing to undo.")
    await http.post(f"/flows/{flow}/actions", json=redo)
    assert await nodes(http, flow) == ["input", "a"]
    both = await http.post(f"/flows/{flow}/actions", json=body(("undo", None), ("node.remove", {"id": "a"})))
    assert (both.status_code, "send each in one of its own" in both.json()["detail"]) == (400, True)


async def test_of_two_who_edit_at_once_both_are_heard(http, flow):
    adds = [body(("node.add", {"id": f"n{number}", "type": "merge"})) for number in range(3)]
    done = await asyncio.gather(*(http.post(f"/flows/{flow}/actions", json=one) for one in adds))
    assert sorted(data(one)["version"] for one in done) == [2, 3, 4]
    assert set(await nodes(http, flow)) == {"n0", "n1", "n2"}


async def test_nobody_edits_the_flow_of_somebody_else(http, flow, store):
    text, key = make_key("somebody-else", NewKey())
    await store.keys.put(key)
    refused = await http.post(
        f"/flows/{flow}/actions", json=MADE, headers={"Authorization": f"Bearer {text}"}
    )
    assert refused.status_code == 404
    many = body(*[("node.remove", {"id": "a"})] * 501)
    assert (await http.post(f"/flows/{flow}/actions", json=many)).status_code == 400
