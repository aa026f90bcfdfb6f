"""A chat in the terminal: the words of answers as they come, and what tools do. No network."""

from typing import Any

from rich.console import Console

from stoker_cli.output import plain, safe

SHOWN = 200
"""Characters of arguments and results that nobody has to decide by; the chat itself has them whole."""
WAITS = {"awaiting_approval": "approval", "awaiting_input": "result"}
OVER = frozenset({"completed", "failed", "cancelled"})


class ChatView:
    """Shows the events of a chat's stream; `questions` are the calls that somebody must decide or answer.

    `waits` is set while nothing else of its turn goes on.
    """

    def __init__(self, console: Console) -> None:
        self.questions: dict[str, dict[str, Any]] = {}
        self.idle = False
        self.waits = False
        self.error = ""
        self._console = console
        self._told: dict[str, str] = {}
        self._calls: dict[str, str] = {}
        self._over: set[str] = set()
        self._open_line = False

    def begin(self) -> None:
        """Something new was said: the chat is at work."""
        self.idle, self.waits, self.error = False, False, ""

    def take(self, event: str, data: dict[str, Any]) -> None:
        """One event of the stream."""
        if event == "delta":
            if data.get("resource_id") not in self._over:
                self._say(str(data.get("resource_id")), str((data.get("delta") or {}).get("response") or ""))
        elif event == "chat_messages" and data.get("role") == "assistant":
            self._message(data)
        elif event == "chats":
            run = data.get("active_run") or {}
            self.idle = data.get("status") == "idle"
            self.error = str(run.get("error") or "")
            if self.idle:
                self.waits = False
                self._end_line()

    def show_whole(self, call: dict[str, Any]) -> None:
        """A call with all of its arguments: what is cut off may be what matters to who decides."""
        self._end_line()
        name, arguments = str(call["function"]["name"]), str(call["function"]["arguments"])
        self._console.print(f"[cyan]{safe(name)}[/] [dim]{safe(arguments)}[/]")

    def _message(self, message: dict[str, Any]) -> None:
        message_id = str(message["id"])
        if message["status"] == "ready" and message_id not in self._over:
            self._over.add(message_id)
            text = "".join(p.get("text") or "" for p in message["content"] if p.get("type") == "text")
            told = self._told.get(message_id, "")
            self._say(message_id, text.removeprefix(told))
            self._end_line()
        calls = message.get("tool_invocations") or ()
        for call in calls:
            self._call(call)
        open_ = {str(call["status"]) for call in calls} - OVER
        self.waits = bool(open_) and open_ <= WAITS.keys()

    def _say(self, message_id: str, text: str) -> None:
        if not text:
            return
        self._told[message_id] = self._told.get(message_id, "") + text
        self._console.print(plain(text), end="", markup=False, highlight=False)
        self._open_line = not text.endswith("\n")

    def _call(self, call: dict[str, Any]) -> None:
        call_id, status = str(call["id"]), str(call["status"])
        before = self._calls.get(call_id)
        if before == status:
            return
        self._calls[call_id] = status
        name = safe(str(call["function"]["name"]))
        if before is None and status not in WAITS:
            self._end_line()
            arguments = _short(call["function"]["arguments"])
            self._console.print(f"[cyan]{name}[/] [dim]{safe(arguments)}[/]")
        if status in WAITS:
            self.questions[call_id] = call
        else:
            self.questions.pop(call_id, None)
        if status in OVER:
            colour = "green" if status == "completed" else "red"
            result = safe(_short(call.get("result")))
            self._console.print(f"[{colour}]{name} {status}[/] [dim]{result}[/]")

    def _end_line(self) -> None:
        if self._open_line:
            self._console.print()
            self._open_line = False


def _short(value: object) -> str:
    text = " ".join(str("" if value is None else value).split())
    return text if len(text) <= SHOWN else text[:SHOWN] + " ..."
