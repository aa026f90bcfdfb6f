"""`stoker flows`: deploy flows from YAML, look at them, run them."""

import asyncio
from math import isfinite
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Final

import typer
import yaml

from stoker.core.errors import InvalidRequest
from stoker.flows.short import Expanded, expand
from stoker.secret_settings import yaml_problem
from stoker_cli.answers import ApiError
from stoker_cli.api import Api, ask, connected
from stoker_cli.inputs import TypedInput, parse_input
from stoker_cli.output import (
    CommandFailed,
    ExitCode,
    JsonFlag,
    err,
    items_of,
    out,
    print_event,
    print_json,
    print_table,
    safe,
)
from stoker_cli.run import with_files
from stoker_cli.sample import type_of
from stoker_cli.task_view import output_text

app = typer.Typer(no_args_is_help=True, help="Flows: graphs of apps. docs/flows.md says how to write one.")

FlowArgument = Annotated[str, typer.Argument(help="The flow: its id, or namespace/name.")]
COLOURS: Final = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "blocked": "red",
    "skipped": "dim",
}
EXIT_CODES: Final = {"completed": ExitCode.OK, "cancelled": ExitCode.CANCELLED}
_PLAIN: Final = (str, int, float, bool, NoneType)


@app.command()
def deploy(
    file: Annotated[Path, typer.Argument(help="The flow in YAML.")],
    check: Annotated[bool, typer.Option("--check", help="Only read the file; ask no gateway.")] = False,
    json: JsonFlag = False,
) -> None:
    """Store the flow of a file, check it, and make it an app that `stoker run` and every client can run."""
    flow = read_flow(file)
    if check:
        if json:
            print_json(flow.graph)
        else:
            out.print(
                f"{flow.name}: {len(flow.graph['nodes']) - 1} nodes; the gateway checks the apps when it is deployed"
            )
        return
    made = asyncio.run(_deploy(flow))
    if json:
        print_json(made)
        return
    version = made["version"]
    ref = f"{made['namespace']}/{made['name']}"
    out.print(f"deployed {ref}@{version['short_id']} [dim](flow {made['flow_id']})[/]")
    out.print(f"[dim]run it with: stoker run {ref} {_example(version['input_schema'])}[/]")


def read_flow(file: Path) -> Expanded:
    """The flow of a file.

    Raises:
        CommandFailed: it cannot be read, or is no flow; says where.
    """
    try:
        read = yaml.safe_load(file.read_text(encoding="utf-8"))
        check_json(read)
        return expand(read)
    except (OSError, UnicodeDecodeError) as error:
        raise CommandFailed(f"cannot read '{file}': {error}", ExitCode.USAGE) from error
    except yaml.YAMLError as error:
        raise CommandFailed(f"'{file}' is no YAML: {yaml_problem(error)}", ExitCode.USAGE) from error
    except ValueError as error:  # what looks like a date and is none: 2030-02-31
        raise CommandFailed(f"'{file}' is no YAML: {error}", ExitCode.USAGE) from error
    except RecursionError as error:
        raise CommandFailed(f"'{file}' nests too deep, or without end", ExitCode.USAGE) from error
    except InvalidRequest as error:
        raise CommandFailed(f"'{file}': {error.message}", ExitCode.USAGE) from error


def check_json(value: Any, where: str = "") -> None:
    """That JSON has all that stands in a document of YAML.

    Raises:
        InvalidRequest: names the first place that it has not, and what to write there.
    """
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, _PLAIN):
                raise InvalidRequest(f"{where or 'the flow'}: the name {key} is no text; put it in quotes")
            check_json(inner, f"{where}.{key}".lstrip("."))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            check_json(inner, f"{where}[{number}]")
    elif not isinstance(value, _PLAIN):
        kind = type(value).__name__
        raise InvalidRequest(f"{where}: {value} is a {kind}, which JSON has not; put it in quotes")
    elif isinstance(value, float) and not isfinite(value):
        raise InvalidRequest(f"{where}: {value} is no number of JSON; put it in quotes")


async def _deploy(flow: Expanded) -> dict[str, Any]:
    async with connected() as api:
        stored = await _find_or_make(api, flow)
        texts = {"title": flow.title, "description": flow.description}
        await api.post(f"/flows/{stored['id']}", {**texts, **flow.graph})
        made: dict[str, Any] = await api.post(f"/flows/{stored['id']}/app")
        return made | {"flow_id": stored["id"]}


async def _find_or_make(api: Api, flow: Expanded) -> dict[str, Any]:
    ref = f"{flow.namespace or 'local'}/{flow.name}"
    try:
        found: dict[str, Any] = await api.get(f"/flows/{ref}")
    except ApiError as error:
        if error.status != 404:
            raise
        found = await api.post("/flows", {"name": flow.name, "namespace": flow.namespace})
    return found


def _example(schema: dict[str, Any]) -> str:
    """The required fields as one would type them."""
    files = {name for name, said in schema.get("properties", {}).items() if said.get("format") == "file"}
    return " ".join(f"-i {name}={'@FILE' if name in files else '...'}" for name in schema.get("required", ()))


@app.command("list")
def list_(json: JsonFlag = False) -> None:
    """The flows of the key's owner."""
    answer = asyncio.run(ask("GET", "/flows?limit=100"))
    if json:
        print_json(answer)
        return
    print_table(
        "",
        ("flow", "id", "nodes", "deployed", "changed"),
        [
            (
                f"{flow['namespace']}/{flow['name']}",
                flow["id"],
                len([node for node in flow["nodes"] if node.get("type") != "input"]),
                "yes" if flow["published_version_id"] else "no",
                flow["updated_at"],
            )
            for flow in items_of(answer)
        ],
        empty="no flow; deploy one with: stoker flows deploy flow.yml",
    )


@app.command()
def show(flow: FlowArgument, json: JsonFlag = False) -> None:
    """A flow: its input, its nodes and what each waits for, its output."""
    found = asyncio.run(ask("GET", f"/flows/{flow}"))
    if json:
        print_json(found)
        return
    out.print(f"[bold]{safe(found['namespace'])}/{safe(found['name'])}[/] {safe(found['title'])}")
    for name, schema in found["input_schema"].get("properties", {}).items():
        need = "" if name in found["input_schema"].get("required", ()) else " [dim](optional)[/]"
        out.print(f"  input   {safe(name)} [dim]{safe(type_of(schema))}[/]{need}")
    for node in found["nodes"]:
        if node.get("type") != "input":
            before = [edge["source"] for edge in found["edges"] if edge["target"] == node["id"]]
            what = safe(_what(found["node_data"].get(node["id"]) or {}))
            out.print(
                f"  node    {safe(node['id'])} [dim]{what}, after {safe(', '.join(before) or 'nothing')}[/]"
            )
    for name, mapping in found["output_mappings"].items():
        out.print(
            f"  output  {safe(name)} [dim]from {safe(mapping['sourceNodeId'])}."
            f"{safe(mapping.get('sourceFieldPath') or '')}[/]"
        )


def _what(data: dict[str, Any]) -> str:
    """What a node is, in a word or two."""
    named = data.get("app")
    if isinstance(named, dict):
        named = f"{named.get('namespace')}/{named.get('name')}"
    return str(named or data.get("app_id") or (data.get("utility") or {}).get("preset") or "nothing yet")


@app.command()
def run(
    flow: FlowArgument,
    input_: Annotated[
        list[str] | None,
        typer.Option(
            "--input",
            "-i",
            help="JSON object, @file.json, - (standard input), name=value, name=@file (upload). Repeatable.",
        ),
    ] = None,
    keep_going: Annotated[
        bool, typer.Option("--keep-going", help="A node that fails ends only what waits for it.")
    ] = False,
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Print the run and do not wait for it.")] = False,
    json: JsonFlag = False,
) -> None:
    """Run a flow and show its nodes as they go. Ctrl-C cancels the run."""
    body: dict[str, Any] = {"flow": flow}
    if keep_going:
        body["fail_on_error"] = False
    raise typer.Exit(asyncio.run(_run(body, parse_input(input_ or []), wait=not no_wait, json=json)))


async def _run(body: dict[str, Any], typed: TypedInput, *, wait: bool, json: bool) -> ExitCode:
    async with connected() as api:
        made = await api.post("/flowruns", body | {"input": await with_files(api, typed)})
        if not json:
            out.print(f"flow run {made['id']}")
        if wait:
            made = await _follow(api, made, json=json)
    if json:
        print_json(made)
    elif wait:
        _print_end(made)
    return EXIT_CODES.get(made["status_text"], ExitCode.FAILED) if wait else ExitCode.OK


async def _follow(api: Api, made: dict[str, Any], *, json: bool) -> dict[str, Any]:
    shown: dict[str, str] = {}
    now = made
    try:
        async for now in api.watch_run(made["id"]):
            for name, state in now["node_statuses"].items():
                if shown.get(name) != state and not json:
                    _print_node(name, state, now)
                shown[name] = state
    except asyncio.CancelledError:
        err.print("[yellow]cancelling the flow run ...[/]")
        await asyncio.shield(api.post(f"/flowruns/{made['id']}/cancel"))
        raise
    return now


def _print_node(name: str, state: str, now: dict[str, Any]) -> None:
    if state == "pending":
        return
    error = now["node_errors"].get(name, "")
    colour = COLOURS.get(state, "cyan")
    out.print(f"  [{colour}]{state:>10}[/] {safe(name)}" + (f" [dim]{safe(error)}[/]" if error else ""))


def _print_end(made: dict[str, Any]) -> None:
    state = made["status_text"]
    out.print(
        f"[{COLOURS.get(state, 'white')}]{state}[/]" + (f" {safe(made['error'])}" if made["error"] else "")
    )
    if made["output"] is not None:
        out.print(output_text(made["output"]))


@app.command()
def runs(
    flow: Annotated[str, typer.Argument(help="Only those of this flow.")] = "",
    json: JsonFlag = False,
) -> None:
    """The latest runs."""
    answer = asyncio.run(_runs(flow))
    if json:
        print_json(answer)
        return
    print_table(
        "",
        ("run", "flow", "state", "created", "error"),
        [
            (run["id"], run["flow_name"], run["status_text"], run["created_at"], run["error"])
            for run in items_of(answer)
        ],
        empty="no flow run",
    )


async def _runs(flow: str) -> Any:
    async with connected() as api:
        flow_id = (await api.get(f"/flows/{flow}"))["id"] if flow else ""
        return await api.get("/flowruns", limit=50, flow_id=flow_id)


@app.command()
def cancel(
    run_id: Annotated[str, typer.Argument(help="Id of the flow run.")], json: JsonFlag = False
) -> None:
    """End a run, and the tasks of its nodes."""
    made = asyncio.run(ask("POST", f"/flowruns/{run_id}/cancel"))
    if json:
        print_json(made)
    else:
        out.print(f"flow run {run_id} is to end")


@app.command()
def delete(flow: FlowArgument, json: JsonFlag = False) -> None:
    """Forget a flow, its versions and its app. Runs that began go on."""
    gone = asyncio.run(_delete(flow))
    if json:
        print_event("deleted", id=gone["id"])
    else:
        out.print(f"deleted flow {gone['id']}")


async def _delete(flow: str) -> Any:
    async with connected() as api:
        found = await api.get(f"/flows/{flow}")
        return await api.delete(f"/flows/{found['id']}")
