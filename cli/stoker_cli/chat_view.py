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

    `agents` are the views of the agents that work for it, by their chats. Nothing of those is shown, but their questions
    are anybody's to ask.
    """

    def __init__(self, console: Console, name: str = "") -> None:
        self.name = name  # of an agent that works for another
        self.questions: dict[str, dict[str, Any]] = {}
        self.agents: dict[str, ChatView] = {}
        self.idle = False
        self.error = ""
        self._waits = False
        self._console = console
        self._told: dict[str, str] = {}
        self._calls: dict[str, str] = {}
        self._over: set[str] = set()
        self._open_line = False

    def begin(self) -> None:
        """Something new was said: the chat is at work."""
        self.idle, self._waits, self.error = False, False, ""
        self.agents = {}

    @property
    def waits(self) -> bool:
        """Whether people are waited for, and nothing else of its turn goes on."""
        return self._waits and all(agent.waits for agent in self.agents.values())

    def team(self) -> "dict[str, ChatView]":
        """The agents that work for this one, and for those."""
        found = dict(self.agents)
        for agent in self.agents.values():
            found |= agent.team()
        return found

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
                self._waits, self.agents = False, {}
                self._end_line()

    def name_of(self, call: dict[str, Any]) -> str:
        """A call as people are told of it."""
        name = plain(str(call["function"]["name"]))
        return f"{name} for {plain(self.name)}" if self.name else name

    def show_whole(self, name: str, call: dict[str, Any]) -> None:
        """A call with all of its arguments: what is cut off may be what matters to who decides."""
        self._end_line()
        self._console.print(f"[cyan]{safe(name)}[/] [dim]{safe(str(call['function']['arguments']))}[/]")

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
        open_ = [call for call in calls if call["status"] not in OVER]
        agents = [call for call in open_ if call.get("type") == "agent" and call.get("execution_id")]
        self.agents = {str(call["execution_id"]): self._agent(call) for call in agents}
        self._waits = bool(open_) and all(call["status"] in WAITS or call in agents for call in open_)

    def _agent(self, call: dict[str, Any]) -> "ChatView":
        known = self.agents.get(str(call["execution_id"]))
        name = str(call["function"]["name"])
        return known or ChatView(Console(quiet=True), f"{self.name}/{name}" if self.name else name)

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
