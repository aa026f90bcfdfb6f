"""`stoker webhooks`: what was told to whom, once more, and the secret that signs it."""

import asyncio
import time
from typing import Annotated, Any, Final

import typer

from stoker.core.states import DeliveryState
from stoker_cli.api import Api, ask, connected
from stoker_cli.keys import parse_span
from stoker_cli.output import CommandFailed, ExitCode, JsonFlag, items_of, out, print_json, print_table, safe

POLL_S: Final = 0.3
TEST_S: Final = 180.0
"""Longer than a receiver may be silent (webhook_timeout_s, at most 120)."""

app = typer.Typer(no_args_is_help=True, help="Webhooks: deliveries, replays, and the secret that signs them.")

DeliveryArgument = Annotated[str, typer.Argument(help="Id of the delivery (stoker webhooks list).")]
StateOption = Annotated[DeliveryState | None, typer.Option(help="Only those in this state.")]


@app.command("list")
def list_(
    state: StateOption = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, those that changed last.")] = 50,
    json: JsonFlag = False,
) -> None:
    """Deliveries of your webhooks."""
    found = asyncio.run(_listed(state, limit))
    if json:
        print_json(found)
        return
    columns = ("id", "state", "event", "receiver", "tries", "changed", "next try")
    rows = [
        (
            each.get("id"),
            each.get("state"),
            each.get("event"),
            each.get("receiver"),
            each.get("try_count"),
            each.get("updated_at"),
            each.get("next_try_at"),
        )
        for each in found
    ]
    print_table("", columns, rows, empty="no deliveries")


@app.command()
def show(delivery_id: DeliveryArgument, json: JsonFlag = False) -> None:
    """One delivery with its tries."""
    delivery = asyncio.run(ask("GET", f"/webhooks/deliveries/{delivery_id}"))
    if json:
        print_json(delivery)
    else:
        _print(delivery)


@app.command()
def replay(
    delivery_ids: Annotated[list[str] | None, typer.Argument(help="Ids of deliveries.")] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All that were given up.")] = False,
    json: JsonFlag = False,
) -> None:
    """Try deliveries again now, under the same ids. Also those that were delivered.

    Of several, one that cannot be replayed holds up no other; the exit status is 1 then.
    """
    if bool(delivery_ids) == dead:
        raise CommandFailed(
            "say which deliveries: their ids, or --dead for all that were given up", ExitCode.USAGE
        )
    done, failed = asyncio.run(_replayed(delivery_ids or []))
    if json:
        print_json({"replayed": done, "failed": failed})
    else:
        out.print(f"{len(done)} to be tried again")
        for delivery_id, why in failed.items():
            out.print(f"[red]{safe(delivery_id)}[/] {safe(why)}")
    if failed:
        raise typer.Exit(ExitCode.FAILED)


@app.command()
def secret(
    new: Annotated[bool, typer.Option("--new", help="Make one, or replace the one there is.")] = False,
    overlap: Annotated[
        str, typer.Option(help="How long the one before signs too: 12h, 3d, 2w, or 0 = not any more.")
    ] = "1d",
    json: JsonFlag = False,
) -> None:
    """Whether your webhooks are signed. With --new: the secret that signs them, which is shown once."""
    if not new:
        answer = asyncio.run(ask("GET", "/webhooks/secret"))
    else:
        overlap_s = 0.0 if overlap == "0" else parse_span(overlap, "overlap").total_seconds()
        answer = asyncio.run(ask("POST", "/webhooks/secret", json={"overlap_s": overlap_s}))
    if json:
        print_json(answer)
        return
    if new:
        out.print(safe(str(answer.get("secret"))))
        out.print(f"[dim]id {answer.get('id')}; this is the only time that the secret is shown[/]")
    elif answer.get("signs"):
        out.print(f"signed with the secret {answer.get('id')}, made at {answer.get('created_at')}")
    else:
        out.print("not signed; make a secret with: stoker webhooks secret --new")
    if answer.get("previous_id"):
        out.print(f"[dim]the one before signs too until {answer.get('previous_until')}[/]")


@app.command("test")
def send_test(
    url: Annotated[str, typer.Argument(help="Address to call.")],
    json: JsonFlag = False,
) -> None:
    """Send one webhook.test event to an address, and tell what came of it. Exit status 1: it was refused."""
    delivery = asyncio.run(_tested(url))
    if json:
        print_json(delivery)
    else:
        _print(delivery)
    if delivery.get("state") != DeliveryState.DELIVERED:
        raise typer.Exit(ExitCode.FAILED)


async def _listed(state: DeliveryState | None, limit: int) -> list[dict[str, Any]]:
    """So many of the latest, page by page."""
    query = {"state": state or ""}
    async with connected() as api:
        return [each async for each in api.entries("GET", "/webhooks/deliveries", query, limit=limit)]


async def _replayed(delivery_ids: list[str]) -> tuple[list[str], dict[str, str]]:
    """Replay these, or all dead ones; those that are tried again, and why others are not."""
    done: list[str] = []
    failed: dict[str, str] = {}
    async with connected() as api:
        for delivery_id in delivery_ids or await _dead(api):
            try:
                await api.call("POST", f"/webhooks/deliveries/{delivery_id}/replay")
            except CommandFailed as error:
                if error.exit_code not in {ExitCode.USAGE, ExitCode.FAILED}:
                    raise
                failed[delivery_id] = error.message
            else:
                done.append(delivery_id)
    return done, failed


async def _dead(api: Api) -> list[str]:
    """The ids of all dead letters, read before any is replayed: that changes their list."""
    entries = api.entries("GET", "/webhooks/deliveries", {"state": DeliveryState.DEAD})
    return [str(each.get("id")) async for each in entries]


async def _tested(url: str) -> dict[str, Any]:
    """The delivery of a test call, when it is over."""
    async with connected() as api:
        delivery: dict[str, Any] = await api.call("POST", "/webhooks/test", json={"url": url})
        deadline = time.monotonic() + TEST_S
        while delivery.get("state") == DeliveryState.PENDING and time.monotonic() < deadline:
            await asyncio.sleep(POLL_S)
            delivery = await api.call("GET", f"/webhooks/deliveries/{delivery['id']}")
    if delivery.get("state") == DeliveryState.PENDING:
        raise CommandFailed(
            f"the call was not made within {TEST_S:g} s",
            ExitCode.FAILED,
            f"do the jobs run? stoker webhooks show {delivery['id']} tells when it was made",
        )
    return delivery


def _print(delivery: dict[str, Any]) -> None:
    """A delivery for people."""
    for name, value in delivery.items():
        if value is not None and name != "tries":
            out.print(f"[dim]{name:>14}[/] {safe(str(value))}")
    rows = [
        (
            each.get("at"),
            each.get("status"),
            f"{each.get('duration_ms')} ms",
            each.get("error"),
            each.get("excerpt"),
        )
        for each in items_of(delivery.get("tries"))
    ]
    print_table("", ("tried", "status", "took", "why it failed", "what it said"), rows, empty="not tried yet")
