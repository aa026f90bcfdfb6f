"""`stoker chat`: talk to an agent, or to a language model's app, in the terminal."""

import asyncio
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from stoker_cli.api import Api, connected
from stoker_cli.chat_streams import ChatStreams
from stoker_cli.chat_view import ChatView
from stoker_cli.inputs import parse_input
from stoker_cli.output import CommandFailed, ExitCode, JsonFlag, err, out, print_json, safe
from stoker_cli.typed_lines import TypedLines

PROMPT: Final = "> "


def chat(
    ref: Annotated[
        str, typer.Argument(help="A stored agent (namespace/name), or an app that is a language model.")
    ],
    message: Annotated[str, typer.Option("--message", "-m", help="Say this, show the answer, and end.")] = "",
    setup: Annotated[
        list[str] | None,
        typer.Option("--setup", "-s", help="Setup of the app, in the forms of --input of `stoker run`."),
    ] = None,
    system: Annotated[str, typer.Option("--system", help="System prompt, for an app.")] = "",
    chat_id: Annotated[str, typer.Option("--chat", help="Go on with this chat.")] = "",
    json: JsonFlag = False,
) -> None:
    """Talk to an agent; answers come word by word, with the calls of tools between.

    A tool that needs approval is asked for; of a tool that is the caller's own, you are the caller: type its result.
    Ctrl-C stops the answer, Ctrl-D ends. With --json and --message the chat is printed when it is idle, or
    with status 1 when it waits for a person: `open_calls` are those that somebody must decide or answer, also of the
    agents that work for this one.
    """
    if json and not message:
        raise CommandFailed("--json needs --message", ExitCode.USAGE)
    body: dict[str, Any] = {"chat_id": chat_id} if chat_id else {}
    values = parse_input(setup or []).values
    if values or system:
        core = {"ref": ref, "setup": values}
        body["agent_config"] = {"core_app": core, "system_prompt": system}
    else:
        body["agent"] = ref
    raise typer.Exit(asyncio.run(_chat(body, message, json=json)))


async def _chat(body: dict[str, Any], message: str, *, json: bool) -> ExitCode:
    async with connected() as api:
        talk = Talk(api, body, quiet=json)
        if message:
            await talk.say(message)
            if json:
                calls = list(talk.questions().values())
                print_json(await api.get(f"/chats/{talk.chat_id}") | {"open_calls": calls})
            return ExitCode.FAILED if talk.view.error or talk.view.waits else ExitCode.OK
        while True:
            try:
                text = await talk.lines.ask(PROMPT if talk.lines.by_hand else "")
            except EOFError:
                return ExitCode.OK
            if text.strip():
                await talk.say(text)


class Talk:
    """One conversation."""

    def __init__(self, api: Api, body: dict[str, Any], *, quiet: bool) -> None:
        self._api = api
        self._body = body
        self._quiet = quiet
        self.lines = TypedLines()
        self.chat_id = str(body.get("chat_id", ""))
        self.view = ChatView(Console(quiet=True) if quiet else out)

    async def say(self, text: str) -> None:
        """Say something, and show what comes until the agent is done. When interrupted, stop it first.

        Raises:
            ApiError: it was refused.
        """
        self.view.begin()
        made = await self._api.post("/agents/run", {**self._body, "input": {"text": text}})
        if not self.chat_id:
            self.chat_id = str(made["assistant_message"]["chat_id"])
            self._body["chat_id"] = self.chat_id
            if not self._quiet:
                out.print(f"[dim]chat {self.chat_id}[/]")
        try:
            await self._follow()
        except asyncio.CancelledError:
            await asyncio.shield(self._api.post(f"/chats/{self.chat_id}/stop"))
            raise
        if self._quiet and self.view.waits:
            names = [view.name_of(call) for view in self._views() for call in view.questions.values()]
            err.print(f"[yellow]the chat waits until somebody decides: {safe(', '.join(names))}[/]")
        if self.view.error:
            err.print(f"[red]{safe(self.view.error)}[/]")

    def questions(self) -> dict[str, dict[str, Any]]:
        """The calls that somebody must decide or answer, by their ids."""
        return {call_id: call for view in self._views() for call_id, call in view.questions.items()}

    def _views(self) -> list[ChatView]:
        """Of the chat, and of those of the agents that work for it."""
        return [self.view, *self.view.team().values()]

    async def _follow(self) -> None:
        """Show the stream until the chat is idle, or waits for a person where nobody is asked.

        Raises:
            CommandFailed: the gateway went away for good.
        """
        streams = ChatStreams(self._api, self.chat_id)
        try:
            while not self.view.idle and not (self._quiet and self.view.waits):
                chat_id, event = await streams.next()
                view = self.view.team().get(chat_id, self.view)
                view.take(str(event.get("event")), event.get("data") or {})
                if not self._quiet:
                    await self._ask()
                await streams.follow(self.view.team().keys())
        finally:
            await streams.close()

    async def _ask(self) -> None:
        """Have the person decide what waits for him."""
        waiting = [(view, call_id) for view in self._views() for call_id in view.questions]
        for view, call_id in waiting:
            call = view.questions.pop(call_id)
            name = view.name_of(call)
            self.view.show_whole(name, call)
            if call["status"] == "awaiting_approval":
                allowed = await self._answer(f"Allow {name}? [y/N] ")
                verb = "invoke" if allowed.strip().lower() in {"y", "yes"} else "reject"
                await self._api.post(f"/tools/{call_id}/{verb}", {})
            else:
                result = await self._answer(f"Result of {name}: ")
                await self._api.post(f"/tools/{call_id}", {"result": result})

    async def _answer(self, question: str) -> str:
        try:
            return await self.lines.ask(question)
        except EOFError:
            return ""
