"""Increments of an output, as each client gets them: one by one, added up, or whole outputs in their place."""

import json

import pytest
from clients import raw
from clients.plans import task
from clients.sdks import Sdk
from helpers import TEST_APPS, wait_until

pytestmark = pytest.mark.timeout(240)
"""The first test installs what all need."""

CHAT = "tests/increments"
WORDS = [f"w{number} " for number in range(8)]
TEXT = "".join(WORDS)


@pytest.fixture(scope="module")
def system(system_with_apps):
    system_with_apps.deploy(TEST_APPS / "increments")
    return system_with_apps


def chat(**given):
    return task(CHAT, words=len(WORDS), **given)


def drive(sdk, system, step):
    facts = sdk.drive([{"name": "it", **step}], system.base_url, system.bench_key)["it"]
    assert "error" not in facts, facts
    return facts


def deltas_of(events):
    return [event["data"] for event in events if event.get("event") == "delta"]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_the_python_client_adds_them_up(system, mode):
    sdk = Sdk("python", "0.36.0", mode)
    facts = drive(sdk, system, {"do": "stream", "params": chat(pause=0.02, hold=1.0)})
    grown = [update["output"]["response"] for update in facts["updates"] if update.get("_delta")]
    assert grown[: len(WORDS)] == ["".join(WORDS[: number + 1]) for number in range(len(WORDS))]
    assert facts["updates"][-1]["status"] == 10
    assert facts["updates"][-1]["output"]["response"] == TEXT
    assert facts["updates"][-1]["output"]["tool_calls"][0]["function"]["arguments"] == {"a": 1}


def test_an_older_python_client_gets_whole_outputs(system):
    facts = drive(Sdk("python", "0.7.18"), system, {"do": "stream", "params": chat(pause=0.25)})
    outputs = [update["output"] for update in facts["updates"] if update["output"]]
    texts = [output.get("response", "") for output in outputs]
    assert all(TEXT.startswith(text) for text in texts)
    assert len(set(texts)) > 2
    assert texts[-1] == TEXT
    assert not any("_delta" in update for update in facts["updates"])


def test_the_python_client_gets_another_apps_increments_as_whole_outputs(system):
    params = {**task(CHAT, hold=1.0), "function": "picture"}
    facts = drive(Sdk("python", "0.36.0"), system, {"do": "stream", "params": params})
    outputs = [update["output"] for update in facts["updates"] if update["output"]]
    assert {"steps": ["sketch", "paint"], "size": {"width": 3, "unit": "cm"}, "title": "b"} in outputs
    assert outputs[-1] == {"title": "done"}


def test_the_javascript_client_gets_them_beside_whole_outputs(system):
    facts = drive(Sdk("js", "0.6.54"), system, {"do": "deltas", "params": chat(pause=0.25)})
    assert [delta["seq"] for delta in facts["deltas"]] == list(range(1, len(WORDS) + 3))
    assert "".join(delta["delta"].get("response", "") for delta in facts["deltas"]) == TEXT
    partial = {
        update["output"]["response"]
        for update in facts["updates"]
        if (update["output"] or {}).get("response")
    }
    assert len(partial) > 2
    assert facts["result"]["output"]["response"] == TEXT


def test_the_javascript_client_needs_not_ask_for_them(system):
    facts = drive(Sdk("js", "0.6.54"), system, {"do": "stream", "params": chat(pause=0.02)})
    assert facts["result"]["output"]["response"] == TEXT
    assert facts["result"]["status"] == 10


@pytest.mark.parametrize("headers", [raw.NDJSON, raw.SSE], ids=["ndjson", "sse"])
def test_whoever_asks_gets_them_all_in_order_and_the_ending_last(system, headers):
    with raw.client(system, raw.CURL) as http:
        made = raw.run(http, chat(pause=0.01, hold=1.0))
        body = http.get(f"/tasks/{made['id']}/stream", params={"deltas": "true"}, headers=headers).text
        whole = http.get(f"/tasks/{made['id']}").json()["data"]
    if headers is raw.NDJSON:
        events = [json.loads(line) for line in body.splitlines()]
    else:
        chunks = [
            dict(line.split(": ", 1) for line in chunk.splitlines()) for chunk in body.split("\n\n") if chunk
        ]
        events = [
            {"event": "delta", "data": json.loads(chunk["data"])}
            if chunk["event"] == "delta"
            else json.loads(chunk["data"])
            for chunk in chunks
            if chunk.get("event") in ("delta", "update")
        ]
    found = deltas_of(events)
    assert [delta["seq"] for delta in found] == list(range(1, len(WORDS) + 3))
    assert "".join(delta["delta"].get("response", "") for delta in found) == TEXT
    assert {delta["resource_id"] for delta in found} == {made["id"]}
    assert events[-1]["output"]["response"] == TEXT
    assert whole["output"]["tool_calls"][0]["function"]["name"] == "look"


def test_nobody_else_gets_them(system):
    with raw.client(system, raw.CURL) as http:
        made = raw.run(http, chat(pause=0.02))
        _, events = raw.stream(http, made["id"], **raw.NDJSON)
    assert not deltas_of(events)
    assert events[-1]["output"]["response"] == TEXT


def test_a_stream_that_opens_late_gets_them_from_the_first(system):
    with raw.client(system, raw.CURL) as http:
        made = raw.run(http, chat(hold=30))

        def held():  # lines and increments are written apart, and neither waits for the other
            now = raw.data_of(http.get(f"/tasks/{made['id']}"))
            told = any(line["content"] == "held" for line in now["logs"])
            return told and (now["output"] or {}).get("response") == TEXT

        wait_until(held, "the last increment")
        found = []
        with http.stream(
            "GET", f"/tasks/{made['id']}/stream", params={"deltas": "true"}, headers=raw.NDJSON
        ) as answer:
            for line in answer.iter_lines():
                event = json.loads(line)
                found += deltas_of([event])
                if len(found) == len(WORDS) + 2:
                    break
        http.post(f"/tasks/{made['id']}/cancel", json={"force": True})
        raw.wait_end(system, made["id"])
    assert [delta["seq"] for delta in found] == list(range(1, len(WORDS) + 3))


def test_increments_alone_are_the_result(system):
    with raw.client(system, raw.CURL) as http:
        made = raw.run(http, {**chat(), "function": "alone"})
    assert raw.wait_end(system, made["id"])["output"] == {"response": TEXT}


def test_what_is_said_about_an_output_is_beside_it(system):
    with raw.client(system, raw.CURL) as http:
        made = raw.run(http, {**chat(), "function": "picture"})
    done = raw.wait_end(system, made["id"])
    assert done["output"] == {"title": "done"}
    assert done["output_meta"]["outputs"][0]["cost"] == 2
