"""A scripted server that speaks OpenAI's chat completions, for tests: real HTTP, real server-sent events.

Each request takes the next turn of the script; what was asked is kept in `requests`.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

MODEL = "scripted-1"


def says(*pieces: str) -> list[dict[str, Any]]:
    """A turn that answers with text, piece by piece."""
    return [{"content": piece} for piece in pieces]


def calls(name: str, *arguments: str, call_id: str = "call_1", index: int = 0) -> list[dict[str, Any]]:
    """A turn that calls a tool; the arguments' JSON text comes in pieces."""
    first = {"index": index, "id": call_id, "type": "function", "function": {"name": name, "arguments": ""}}
    rest = [{"index": index, "function": {"arguments": piece}} for piece in arguments]
    return [{"tool_calls": [part]} for part in [first, *rest]]


WAITS: dict[str, Any] = {"waits": True}
"""A piece of a turn at which the answer stops until the server is closed."""


class ScriptedLLM:
    """Serves the script on a loopback port until `close`; `url` ends in /v1."""

    def __init__(self, *script: list[dict[str, Any]] | int) -> None:
        """Args: script: per request the deltas of its answer, or an HTTP status to fail with."""
        self.script = list(script)
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.hold = threading.Event()  # cleared by a test: the answer stops after its first piece
        self.hold.set()
        self.closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"script": self}))
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"

    def close(self) -> None:
        self.hold.set()
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    """One request to a script."""

    script: ScriptedLLM

    def log_message(self, *_line: Any) -> None:
        """Tests print nothing."""

    def do_GET(self) -> None:
        self._json(200, {"object": "list", "data": [{"id": MODEL, "object": "model", "created": 0}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.script.requests.append(body)
        self.script.keys.append(self.headers.get("Authorization", ""))
        turn = self.script.script.pop(0) if self.script.script else says("(the script is over)")
        if isinstance(turn, int):
            self._json(turn, {"error": {"message": "scripted failure", "code": turn}})
            return
        self._stream(turn)

    def _json(self, status: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, turn: list[dict[str, Any]]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        try:
            for delta in turn:
                self._piece(delta)
            reason = "tool_calls" if any("tool_calls" in delta for delta in turn) else "stop"
            self._event({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
            usage = {
                "prompt_tokens": 7,
                "completion_tokens": len(turn),
                "total_tokens": 7 + len(turn),
            }
            self._event({"choices": [], "usage": usage})
            self.wfile.write(b"data: [DONE]\n\n")
        except OSError:
            return  # the client hung up

    def _piece(self, delta: dict[str, Any]) -> None:
        if delta is WAITS:
            self.script.closing.wait(60)
            return
        self._event({"choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        self.script.hold.wait(60)

    def _event(self, part: dict[str, Any]) -> None:
        whole = {
            "id": "chatcmpl-1",
            "object": "chat.completion.chunk",
            "created": 0,
            "model": MODEL,
        } | part
        self.wfile.write(f"data: {json.dumps(whole)}\n\n".encode())
        self.wfile.flush()
