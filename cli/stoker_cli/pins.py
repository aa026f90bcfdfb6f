"""`stoker apps pin`, `unpin`, `pins`, `warm`, `unload` and `keep`: what is loaded, apart from what tasks ask for."""

import asyncio
import time
from collections.abc import Callable
from typing import Annotated, Any, Final
from urllib.parse import quote

import msgspec
import typer

from stoker.core.refs import parse_ref
from stoker_cli.api import Api, connected
from stoker_cli.inputs import parse_input
from stoker_cli.output import (
    CommandFailed,
    ExitCode,
    JsonFlag,
    Markup,
    items_of,
    out,
    print_json,
    print_table,
    safe,
)
from stoker_cli.refs import find_app, name_of

POLL_S: Final = 0.3
FIRST_LOOK_S: Final = 5.0
"""How long to wait for the scheduler's first look: a second as a rule, longer while another one takes over."""
ENDED: Final = frozenset({"loaded", "failed"})
COLOURS: Final = {"loaded": "green", "loading": "yellow", "failed": "red"}

RefArgument = Annotated[str, typer.Argument(help="The app: namespace/name, with @version if wanted.")]
SetupOption = Annotated[
    list[str] | None,
    typer.Option("--setup", "-s", help="Setup parameters: JSON object, @file.json, name=value. Repeatable."),
]
WorkersOption = Annotated[
    list[str] | None,
    typer.Option(
        "--workers", "-w", help="Worker, or machine for all its workers. Repeatable, or with commas."
    ),
]
CopiesOption = Annotated[
    int, typer.Option(min=0, help="On how many workers; 0 = on each that is named, else on one.")
]


def pin(
    ref: RefArgument,
    setup: SetupOption = None,
    workers: WorkersOption = None,
    copies: CopiesOption = 0,
    json: JsonFlag = False,
) -> None:
    """Load an app now and keep it loaded, whatever else wants its room; load it again where it is lost."""
    found = asyncio.run(_pin(_body(ref, setup, workers, copies)))
    if json:
        print_json(found)
        return
    out.print(f"pinned {safe(found['app'])}: {_where(found)}")
    _print_reason(found)
    out.print("[dim]see pins with: stoker apps pins[/]")


def unpin(
    ref: Annotated[str, typer.Argument(help="The app, or the id of a pin (stoker apps pins).")],
    setup: SetupOption = None,
    json: JsonFlag = False,
) -> None:
    """Let an app make room again. What is loaded stays until its room is wanted (stoker apps unload)."""
    gone = asyncio.run(_unpin(ref, _setup(setup)))
    if json:
        print_json({"items": gone})
        return
    for found in gone:
        out.print(f"unpinned {safe(found['app'])} {safe(_json(found['setup']))}")


def pins(json: JsonFlag = False) -> None:
    """What is pinned: where it is loaded, and where it is not, why."""
    answer = asyncio.run(_get("/pins"))
    if json:
        print_json(answer)
        return
    items = items_of(answer)
    print_table(
        "",
        ("app", "setup", "state", "loaded on", "for", "id"),
        [
            (
                f"{item['app']}@{item['app_version_id'][:8]}",
                _json(item["setup"]),
                Markup(f"[{COLOURS.get(item['state'], 'yellow')}]{item['state']}[/] {_count(item)}"),
                ", ".join(item["loaded_on"]),
                ", ".join(item["workers"]) or "any worker",
                item["id"],
            )
            for item in items
        ],
        empty="nothing is pinned; pin an app with: stoker apps pin REF",
    )
    for item in items:
        _print_reason(item, item["id"])


def warm(
    ref: RefArgument,
    setup: SetupOption = None,
    workers: WorkersOption = None,
    copies: CopiesOption = 0,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait until it is loaded.")] = False,
    json: JsonFlag = False,
) -> None:
    """Load an app now, without a task: the first task then finds it warm.

    Exit status: 0 loaded (or asked for, with --no-wait), 1 failed.
    """
    found = asyncio.run(_warm(_body(ref, setup, workers, copies), wait=not no_wait, quiet=json))
    if json:
        print_json(found)
    elif found["state"] == "loaded":
        out.print(f"loaded {safe(found['app'])} on {safe(', '.join(found['loaded_on']))}")
    elif found["state"] != "failed":
        out.print(f"asked for {safe(found['app'])}: {_where(found)}")
        _print_reason(found)
    if found["state"] == "failed":
        raise CommandFailed(f"{found['app']} was not loaded: {found['reason'] or 'nobody says why'}")


def unload(
    ref: RefArgument, setup: SetupOption = None, workers: WorkersOption = None, json: JsonFlag = False
) -> None:
    """Unload the idle instances of an app, or of one setup of it. Busy and pinned ones stay."""
    body = _body(ref, setup, workers)
    answer = asyncio.run(_post("/apps/unload", body))
    if json:
        print_json(answer)
        return
    stays = {"busy": "busy, so it stays; ask again", "pinned": "pinned, so it stays (stoker apps unpin)"}
    for item in items_of(answer):
        out.print(f"{safe(item['worker_id'])}: {stays.get(item['state'], 'is unloaded now')}")


def keep(
    ref: RefArgument,
    seconds: Annotated[
        str,
        typer.Argument(
            help="How long an instance stays loaded after its last task: seconds, 0 = not at all; "
            "default: what its inf.yml says."
        ),
    ],
    json: JsonFlag = False,
) -> None:
    """Say how long an app stays loaded when nothing asks for it; stronger than keep_alive in its inf.yml."""
    if seconds != "default" and not seconds.replace(".", "", 1).isdecimal():
        raise CommandFailed(f"{seconds!r} is neither a number of seconds nor default", ExitCode.USAGE)
    answer = asyncio.run(_keep(ref, None if seconds == "default" else float(seconds)))
    if json:
        print_json(answer)
        return
    said = answer["keep_alive_s"]
    how = "as its inf.yml says" if said is None else f"{said:g} s after its last task"
    out.print(f"{safe(name_of(answer))} stays loaded {how}")


COMMANDS: Final[dict[str, Callable[..., None]]] = {
    "pin": pin,
    "unpin": unpin,
    "pins": pins,
    "warm": warm,
    "unload": unload,
    "keep": keep,
}
"""Of `stoker apps`."""


def _body(ref: str, setup: list[str] | None, workers: list[str] | None, copies: int = 0) -> dict[str, Any]:
    names = [name for text in workers or () for name in text.split(",") if name]
    body: dict[str, Any] = {"app": ref}
    if setup:
        body["setup"] = _setup(setup)
    if names:
        body["workers"] = names
    return body | ({"copies": copies} if copies else {})


def _setup(texts: list[str] | None) -> dict[str, Any]:
    typed = parse_input(texts or [])
    if typed.files:
        raise CommandFailed(
            f"--setup {next(iter(typed.files))}=@...: each upload of a file has an address of its own, so no task "
            "would find the instance; pass the address that tasks pass",
            ExitCode.USAGE,
        )
    return typed.values


async def _pin(body: dict[str, Any]) -> dict[str, Any]:
    async with connected() as api:
        return await _looked_at(api, "/pins", await api.post("/pins", body))


async def _warm(body: dict[str, Any], *, wait: bool, quiet: bool) -> dict[str, Any]:
    async with connected() as api:
        found = await _looked_at(api, "/loads", await api.post("/loads", body))
        told = ""
        while wait and found["state"] not in ENDED:
            text = _where(found) + (f": {found['reason']}" if found["reason"] else "")
            if text != told and not quiet:
                out.print(f"[dim]{safe(text)}[/]")
                told = text
            await asyncio.sleep(POLL_S)
            found = await api.get(f"/loads/{found['id']}")
        return found


async def _looked_at(api: Api, path: str, made: dict[str, Any]) -> dict[str, Any]:
    """What was asked for, as the scheduler found it at its first look."""
    until, found = time.monotonic() + FIRST_LOOK_S, made
    while not found["looked_at"] and time.monotonic() < until:
        await asyncio.sleep(POLL_S)
        found = await api.get(f"{path}/{found['id']}")
    return found


async def _unpin(ref: str, setup: dict[str, Any]) -> list[dict[str, Any]]:
    async with connected() as api:
        items = items_of(await api.get("/pins"))
        gone = [item for item in items if item["id"] == ref]
        if not gone:
            meant = parse_ref(ref)
            name = f"{meant.namespace}/{meant.name}" if meant.namespace else meant.name
            gone = [
                item
                for item in items
                if f"/{item['app']}".endswith(f"/{name}")
                and item["app_version_id"].startswith(meant.version)
                and item["setup"].items() >= setup.items()
            ]
        if not gone:
            raise CommandFailed(
                f"no pin fits {ref}", ExitCode.USAGE, "see what is pinned with: stoker apps pins"
            )
        for item in gone:
            await api.delete(f"/pins/{quote(item['id'], safe='')}")
        return gone


async def _keep(ref: str, seconds: float | None) -> dict[str, Any]:
    async with connected() as api:
        _, app = await find_app(api, ref)
        answer: dict[str, Any] = await api.post(f"/apps/{app['id']}/keep-alive", {"seconds": seconds})
        return answer


async def _get(path: str) -> Any:
    async with connected() as api:
        return await api.get(path)


async def _post(path: str, body: dict[str, Any]) -> Any:
    async with connected() as api:
        return await api.post(path, body)


def _where(found: dict[str, Any]) -> str:
    """Where it is, or will be in a moment."""
    parts = [
        f"{word} on {', '.join(found[field])}"
        for word, field in (("loaded", "loaded_on"), ("loading", "loading_on"))
        if found[field]
    ]
    return ", ".join(parts) or "waiting"


def _count(item: dict[str, Any]) -> str:
    return f"{len(item['loaded_on'])}/{item['wanted']}"


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _print_reason(found: dict[str, Any], name: str = "") -> None:
    if found["reason"]:
        out.print(f"[yellow]{safe(name + ': ' if name else '')}{safe(found['reason'])}[/]")
