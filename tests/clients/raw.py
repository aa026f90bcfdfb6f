"""Requests as the clients put them on the wire, and the streams that come back, decoded."""

import json
from collections.abc import Iterator
from typing import Any

import httpx
from clients.plans import Step
from clients.sdks import NEW_NUMBERS
from helpers import PATIENCE_S, trust, wait_until

CURL = {"User-Agent": "curl/8.14.1", "Accept": "*/*"}
SDK_NAMED = {"User-Agent": "inference-sdk-py/0.36.0", "Accept": "*/*"}
SDK_NAMED_OLD = {"User-Agent": "inference-sdk-py/0.6.32", "Accept": "*/*"}
SDK_V2 = {"User-Agent": "inference-sdk-py/0.7.18", "X-API-Version": "2", "Accept": "*/*"}
SDK_JS = {"User-Agent": "node", "X-Client-Source": "inference-sdk-js/0.5.13", "Accept": "*/*"}
SDK_UNNAMED = {
    "User-Agent": "python-requests/2.34.2",
    "Accept": "*/*",
    "Content-Type": "application/json",
    "Accept-Encoding": "gzip, deflate",
}
SDK_UNNAMED_STREAM = {
    "User-Agent": "python-requests/2.34.2",
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",
    "Cache-Control": "no-cache",
    "Connection": "keep-alive",
    "Content-Type": "application/json",
}
NDJSON = {"Accept": "application/x-ndjson"}
SSE = {"Accept": "text/event-stream"}


def client(system: Any, headers: dict[str, str], prefix: str = "", key: str = "") -> httpx.Client:
    """An HTTP client that sends these headers and no others of its own."""
    made = httpx.Client(base_url=system.base_url + prefix, timeout=30, trust_env=False, verify=trust(None))
    made.headers = httpx.Headers({"Authorization": f"Bearer {key or system.bench_key}"} | headers)
    return made


def data_of(answer: httpx.Response) -> Any:
    """The task in an answer, enveloped or bare."""
    body = answer.json()
    assert answer.is_success, body
    return body.get("data", body)


def run(http: httpx.Client, params: Step) -> dict[str, Any]:
    return data_of(http.post("/apps/run", json=params))


def wait_end(system: Any, task_id: str, timeout_s: float = PATIENCE_S) -> dict[str, Any]:
    """Wait until a task has ended; the task as a newest client sees it."""
    with client(system, SDK_NAMED) as http:

        def ended() -> dict[str, Any] | None:
            task = data_of(http.get(f"/tasks/{task_id}"))
            return task if task["status"] in NEW_NUMBERS else None

        return wait_until(ended, f"the end of task {task_id}", timeout_s)


def upload(http: httpx.Client, filename: str, content_type: str, data: bytes) -> dict[str, Any]:
    """Upload a file in the two steps of the API; its record, of which `uri` goes into inputs."""
    wanted = {"filename": filename, "content_type": content_type, "size": len(data)}
    record: dict[str, Any] = data_of(http.post("/files", json={"files": [wanted]}))[0]
    answer = httpx.put(
        record["upload_url"], content=data, headers={"Content-Type": content_type}, trust_env=False
    )
    assert answer.is_success, answer.text
    return record


def stream(http: httpx.Client, task_id: str, **headers: str) -> tuple[httpx.Response, list[Any]]:
    """All that a stream brings until the server ends it: its answer, and each line or event decoded."""
    with http.stream("GET", f"/tasks/{task_id}/stream", headers=headers) as answer:
        return answer, list(decoded(answer))


def decoded(answer: httpx.Response) -> Iterator[Any]:
    """Events of a stream as they come: server-sent `data:` lines, or lines of JSON."""
    sse = answer.headers["content-type"].startswith("text/event-stream")
    for line in answer.iter_lines():
        if not sse and line:
            yield json.loads(line)
        elif sse and line.startswith("data:"):
            yield json.loads(line[5:])
