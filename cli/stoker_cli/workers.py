"""`stoker workers`: what each worker is, does and holds."""

import asyncio
from typing import Annotated, Any
from urllib.parse import quote

import typer

from stoker_cli.api import ask, connected
from stoker_cli.output import (
    CommandFailed,
    ExitCode,
    JsonFlag,
    Markup,
    bar,
    items_of,
    out,
    print_json,
    print_table,
    safe,
)

app = typer.Typer(no_args_is_help=True, help="Workers and the machines that they live on.")


@app.command("list")
def list_(json: JsonFlag = False) -> None:
    """All workers with their state, their memory and their warm apps."""
    engines, workers = asyncio.run(fetch())
    if json:
        print_json(workers)
        return
    print_table(
        "",
        ("worker", "state", "device", "memory", "use", "warm apps"),
        worker_rows(engines, workers),
        empty="no worker has registered yet; start one with: stoker worker",
    )
    for worker in workers:
        if why := worker.get("quarantine"):
            out.print(quarantine_line(str(worker.get("id")), why))


@app.command()
def get(
    worker_id: Annotated[str, typer.Argument(help="Id of the worker, for instance gpubox-gpu-0.")],
    json: JsonFlag = False,
) -> None:
    """One worker, in full."""
    answer = asyncio.run(_get(worker_id))
    if json:
        print_json(answer)
        return
    rows = [(name, _short(value)) for name, value in answer.items() if value not in (None, "", [], {})]
    print_table("", ("field", "value"), rows, empty="")


@app.command()
def drain(
    name: Annotated[str, typer.Argument(help="Name of the machine, for instance gpubox.")],
    reason: Annotated[str, typer.Option(help="Why; shown to whoever looks at the machine.")] = "",
    restart: Annotated[
        bool,
        typer.Option(
            "--restart", help="End the daemon when it has drained, to be started as what is installed."
        ),
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Take a machine out of service: what runs on it ends there, what waits runs elsewhere."""
    engine = asyncio.run(_drain(name, reason, restart=restart))
    if json:
        print_json(engine)
        return
    left = int(engine.get("running_tasks") or 0)
    done = (engine.get("drain") or {}).get("done")
    out.print(
        f"'{safe(name)}' has drained" if done else f"'{safe(name)}' takes nothing new; {left} tasks still run"
    )
    if not restart:
        out.print("[dim]it takes tasks again when its daemon is started anew[/]")


@app.command()
def release(
    worker_id: Annotated[str, typer.Argument(help="Id of the worker (stoker workers list).")],
    json: JsonFlag = False,
) -> None:
    """Take a worker out of quarantine: it gets tasks again."""
    freed = asyncio.run(ask("POST", f"/workers/{quote(worker_id, safe='')}/release"))
    if json:
        print_json(freed)
    elif why := freed.get("quarantine"):
        out.print(quarantine_line(worker_id, why))
    else:
        out.print(f"'{safe(worker_id)}' gets tasks again")


@app.command()
def enroll(
    name: Annotated[str, typer.Argument(help="Name of the new machine; its workers' ids begin with it.")],
    json: JsonFlag = False,
) -> None:
    """Let another machine join: prints what to run there. The token in it is good once, for an hour."""
    made = asyncio.run(ask("POST", "/engines/enrolments", json={"name": name}))
    if json:
        print_json(made)
        return
    out.print("Run this on the machine, once (later starts need no STOKER_JOIN):\n")
    out.print(f"  {safe(str(made.get('command')))}\n", soft_wrap=True)
    out.print(f"[dim]good until {safe(str(made.get('expires_at')))}, for one machine; keep it secret[/]")
    out.print(
        "[dim]If a certificate here is not from a public authority, copy the one that vouches for it to the machine "
        "and add: --ca-file FILE[/]"
    )


@app.command()
def revoke(
    name: Annotated[str, typer.Argument(help="Name of the machine (stoker workers enrolled).")],
    json: JsonFlag = False,
) -> None:
    """Shut a machine out at once. What it runs is taken back, and runs again elsewhere."""
    gone = asyncio.run(ask("DELETE", f"/engines/enrolments/{quote(name, safe='')}"))
    if json:
        print_json(gone)
    else:
        out.print(f"'{safe(name)}' is shut out")


@app.command()
def enrolled(json: JsonFlag = False) -> None:
    """The machines that were let in, or may still come."""
    answer = asyncio.run(ask("GET", "/engines/enrolments"))
    if json:
        print_json(items_of(answer))
        return
    rows = [
        (each.get("name"), each.get("state"), each.get("by"), each.get("joined_at"), each.get("expires_at"))
        for each in items_of(answer)
    ]
    print_table(
        "", ("name", "state", "by", "joined", "token good until"), rows, empty="no machine was enrolled"
    )


async def _drain(name: str, reason: str, *, restart: bool) -> dict[str, Any]:
    engines, workers = await fetch()
    engine_id = engine_of(name, engines, workers)
    path = f"/engines/{quote(engine_id, safe='')}/{'update' if restart else 'drain'}"
    answer: dict[str, Any] = await ask("POST", path, json={"reason": reason})
    return answer


def engine_of(name: str, engines: list[dict[str, Any]], workers: list[dict[str, Any]]) -> str:
    """The id of the machine that a name means.

    Raises:
        CommandFailed: it means one of several workers of a machine, which cannot be drained alone, or nothing.
    """
    for engine in engines:
        if name in (engine.get("id"), engine.get("name")):
            return str(engine.get("id"))
    of_worker = next((str(w.get("engine_id")) for w in workers if w.get("id") == name), "")
    if of_worker:
        raise CommandFailed(
            f"'{name}' is a worker of '{of_worker}', and a machine drains as a whole; "
            f"run: stoker workers drain {of_worker}",
            ExitCode.USAGE,
        )
    known = ", ".join(str(engine.get("id")) for engine in engines) or "none"
    raise CommandFailed(
        f"no machine is called '{name}'; known: {known} (stoker workers list)", ExitCode.USAGE
    )


async def fetch() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Engines and workers, as the gateway lists them."""
    async with connected() as api:
        engines, workers = await asyncio.gather(api.get("/engines"), api.get("/workers"))
    return items_of(engines), items_of(workers)


async def _get(worker_id: str) -> dict[str, Any]:
    async with connected() as api:
        answer: dict[str, Any] = await api.get(f"/workers/{worker_id}")
        return answer


def worker_rows(engines: list[dict[str, Any]], workers: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    """One table row a worker."""
    by_id = {str(engine.get("id")): engine for engine in engines}
    return [_row(worker, by_id.get(str(worker.get("engine_id")), {})) for worker in workers]


def _row(worker: dict[str, Any], engine: dict[str, Any]) -> tuple[object, ...]:
    info = worker.get("system_info") or engine.get("system_info") or {}
    gpus = worker.get("gpus") or []
    own = {str(gpu.get("gpu_id")) for gpu in gpus}
    samples = [gpu for gpu in info.get("gpus") or [] if str(gpu.get("id")) in own]
    if gpus:
        device = ", ".join(str(gpu.get("name") or gpu.get("gpu_id")) for gpu in gpus)
        memory = bar(
            sum(float(s.get("memory_used") or 0) for s in samples),
            sum(float(s.get("memory_total") or 0) for s in samples)
            or sum(float(gpu.get("vram") or 0) for gpu in gpus),
        )
        use = ", ".join(_percent(s.get("utilization")) for s in samples)
    else:
        device = "CPU"
        ram = info.get("ram") or {}
        memory = bar(float(ram.get("used") or 0), float(ram.get("total") or 0))
        cores = info.get("cpus") or [{}]
        use = f"{float(cores[0].get('usage') or 0):.0f} %"
    warm = ", ".join(_warm_name(entry) for entry in worker.get("warm_apps") or [])
    status = "quarantined" if worker.get("quarantine") else state_of(worker, engine)
    return (worker.get("name") or worker.get("id"), status, device, Markup(memory), use, warm)


def _percent(value: object) -> str:
    """A share; `-` for one that the device does not tell."""
    return f"{value:.0f} %" if isinstance(value, int | float) else "-"


def state_of(worker: dict[str, Any], engine: dict[str, Any]) -> str:
    """What a worker does, and that its machine drains or has drained."""
    status, drain = str(worker.get("status")), engine.get("drain") or {}
    if engine.get("status") == "draining":
        return f"{status}, draining" if status == "busy" else "draining"
    return "drained" if drain.get("done") else status


def _warm_name(entry: object) -> str:
    if isinstance(entry, dict):
        name = str(entry.get("app") or entry.get("name") or entry.get("app_id") or "")
        return f"{name} (pinned)" if entry.get("pinned") else name
    return str(entry)


def quarantine_line(worker_id: str, why: dict[str, Any]) -> str:
    """Why a worker gets no tasks, and what ends that."""
    name, reason = safe(worker_id), safe(str(why.get("reason")))
    if not why.get("until"):
        return f"[yellow]{name} gets no tasks: {reason}[/] [dim](until its GPUs work again)[/]"
    return (
        f"[yellow]{name} gets no tasks until {why.get('until')}: {why.get('failures')} "
        f"failed there in a row, the last one: {reason}[/] [dim](stoker workers release {name})[/]"
    )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 400 else text[:400] + " ..."
