"""`stoker doctor`: is this machine fit to run Stoker, and where does each setting come from?"""

import asyncio
import os
import platform
import shutil
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import typer
from rich.markup import escape

from stoker import __version__, settings
from stoker.core.errors import StokerError
from stoker.secret_settings import PRIVATE_FIELDS, without_password
from stoker.settings import (
    ALL_SETTINGS,
    CommonSettings,
    GatewaySettings,
    WorkerSettings,
    load,
    origins,
    unknown_variables,
)
from stoker_cli.deploy import find_uv
from stoker_cli.findings import Finding, Verdict
from stoker_cli.output import ExitCode, JsonFlag, Markup, out, print_json, print_table
from stoker_cli.store_promises import CONFIG, judge_store
from stoker_worker.nodes import Node, NodeMissing, choose, find_nodes, npm_of
from stoker_worker.pythons import SUPPORTED, found_versions

if TYPE_CHECKING:
    from stoker.protocol import Store

PYTHON_MIN: Final = (3, 11)
DISK_WARN_BYTES: Final = 10_000_000_000
DISK_FAIL_BYTES: Final = 500_000_000
UV_TIMEOUT_S: Final = 15.0
NODE_KERNEL: Final = 22
"""What the platform's Node apps ask for."""
TOOLS: Final = ("git", "gcc", "g++", "make", "cmake", "ffmpeg")


COLOURS: Final = {Verdict.OK: "green", Verdict.WARN: "yellow", Verdict.FAIL: "red"}


def doctor(
    json: JsonFlag = False,
    all_settings: bool = typer.Option(False, "--settings", help="Show every setting, also the unchanged."),
) -> None:
    """Look at Python, uv, the database, the GPUs, the disk and the ports; show where each setting came from."""
    findings = asyncio.run(examine())
    rows = list(setting_rows())
    if json:
        values = [{"name": name, "value": value, "from": source} for name, value, source in rows]
        print_json({"version": __version__, "findings": findings, "settings": values})
    else:
        _print(findings, rows if all_settings else [row for row in rows if row[2] != "default"])
    if any(finding.verdict is Verdict.FAIL for finding in findings):
        raise typer.Exit(ExitCode.FAILED)


async def examine() -> list[Finding]:
    """All findings, in the order in which they matter."""
    common = load(CommonSettings)
    plain: tuple[Callable[[], Finding], ...] = (look_at_python, look_at_gpus)
    findings = [look() for look in plain]
    findings.append(await look_at_uv())
    findings += judge_kernels(found_versions(), await find_nodes(), load(WorkerSettings))
    findings.append(look_at_tools())
    findings.append(await look_at_tmp(load(WorkerSettings)))
    findings.append(look_at_disk(common))
    findings += await look_at_store(common)
    findings.append(look_at_port(load(GatewaySettings)))
    if unknown := unknown_variables():
        findings.append(
            Finding(
                name="environment",
                verdict=Verdict.WARN,
                text=f"no setting has these names: {', '.join(unknown)}",
                advice="see `stoker doctor --settings` for the names that exist",
            )
        )
    return findings


def look_at_python() -> Finding:
    """The interpreter that runs Stoker."""
    text = f"{platform.python_version()} at {sys.executable} on {platform.system()} {platform.machine()}"
    if sys.version_info < PYTHON_MIN:
        return Finding(
            name="python", verdict=Verdict.FAIL, text=text, advice="Stoker needs Python 3.11 or newer"
        )
    if sys.platform != "linux":
        advice = "parts are not ended by the kernel when `stoker up` is killed; Linux does that"
        return Finding(name="python", verdict=Verdict.WARN, text=text, advice=advice)
    return Finding(name="python", verdict=Verdict.OK, text=text)


def look_at_gpus() -> Finding:
    """What NVML tells of the machine's GPUs."""
    try:
        names = _gpu_names()
    except ImportError:
        return Finding(name="gpu", verdict=Verdict.WARN, text="nvidia-ml-py is not installed")
    except OSError as error:
        return Finding(name="gpu", verdict=Verdict.OK, text=f"none ({error}); CPU workers are used")
    return Finding(name="gpu", verdict=Verdict.OK, text=", ".join(names) or "none; CPU workers are used")


def _gpu_names() -> list[str]:
    """One text a device.

    Raises:
        OSError: NVML is not there or does not answer; holds its reason.
    """
    import pynvml  # noqa: PLC0415 - the binding loads the driver's library

    try:
        pynvml.nvmlInit()
        try:
            handles = [pynvml.nvmlDeviceGetHandleByIndex(i) for i in range(pynvml.nvmlDeviceGetCount())]
            return [
                f"{index}: {pynvml.nvmlDeviceGetName(handle)} "
                f"({pynvml.nvmlDeviceGetMemoryInfo(handle).total / 1e9:.1f} GB)"
                for index, handle in enumerate(handles)
            ]
        finally:
            pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise OSError(str(error)) from error


async def look_at_uv() -> Finding:
    """The environment builder, and whether it can reach a package index."""
    try:
        uv = find_uv()
    except StokerError as error:
        return Finding(name="uv", verdict=Verdict.FAIL, text=error.message, advice="pip install uv")
    version = (await _output([uv, "--version"]))[1].strip()
    arguments = [uv, "pip", "compile", "--quiet", "--no-deps", "--no-header", "-"]
    status, text = await _output(arguments, stdin=b"inferencesh\n")
    if status != 0:
        last = (text.strip().splitlines() or ["no answer"])[-1].strip()
        return Finding(
            name="uv",
            verdict=Verdict.WARN,
            text=f"{version} at {uv}; no package index answers: {last}",
            advice="environments that are built already work; new ones need an index (UV_INDEX_URL)",
        )
    return Finding(name="uv", verdict=Verdict.OK, text=f"{version} at {uv}; the package index answers")


def judge_kernels(pythons: Sequence[str], nodes: Sequence[Node], worker: WorkerSettings) -> Iterator[Finding]:
    """Which kernels of apps this machine has, and what becomes of the others."""
    missing = [version for version in SUPPORTED if version not in pythons]
    text = f"Python {', '.join(pythons) or 'none'}"
    if not missing:
        yield Finding(name="kernels", verdict=Verdict.OK, text=text)
    else:
        fate = (
            "uv fetches it when an app needs it" if worker.python_fetch else
            "apps get the nearest one" if worker.python_fallback else "apps that need it fail"
        )  # fmt: skip
        verdict = Verdict.OK if worker.python_fetch else Verdict.WARN
        advice = f"install python{missing[0]}, or set python_fetch" if verdict is Verdict.WARN else ""
        text = f"{text}; not here: {', '.join(missing)} ({fate})"
        yield Finding(name="kernels", verdict=verdict, text=text, advice=advice)
    yield _judge_node(nodes, worker)


def _judge_node(nodes: Sequence[Node], worker: WorkerSettings) -> Finding:
    """Whether apps of the platform's Node kernel can run."""
    listed = ", ".join(f"{node.text} at {node.path}" for node in nodes)
    try:
        chosen = choose(NODE_KERNEL, nodes, older=worker.node_fallback)
        npm = npm_of(chosen.path)
    except NodeMissing as error:
        text = f"{listed or 'none'}; apps with kernel node-{NODE_KERNEL} cannot run here"
        advice = error.message if nodes else f"install Node {NODE_KERNEL} with npm if you have Node apps"
        return Finding(name="node", verdict=Verdict.WARN if nodes else Verdict.OK, text=text, advice=advice)
    stands_in = "" if chosen.version[0] == NODE_KERNEL else f" (apps want {NODE_KERNEL}; it stands in)"
    return Finding(
        name="node", verdict=Verdict.OK, text=f"{chosen.text} at {chosen.path}{stands_in}, npm at {npm}"
    )


def look_at_tools() -> Finding:
    """Programs that the requirements of some apps need: git for git addresses, compilers for packages in source."""
    here = [name for name in TOOLS if shutil.which(name)]
    gone = [name for name in TOOLS if name not in here]
    if not gone:
        return Finding(name="tools", verdict=Verdict.OK, text=", ".join(here))
    text = f"{', '.join(here) or 'none'}; not here: {', '.join(gone)}"
    advice = "apps that need one of them fail with its name; with apt: git, build-essential, cmake, ffmpeg"
    return Finding(name="tools", verdict=Verdict.OK, text=text, advice=advice)


async def look_at_tmp(worker: WorkerSettings) -> Finding:
    """Whether each app gets a /tmp of its own: many write to fixed names there."""
    if worker.private_tmp == "off":
        text = "apps share it, as the setting private_tmp says; those that name files there run one at a time"
        return Finding(name="tmp", verdict=Verdict.OK, text=text)
    from stoker_worker import private_tmp  # noqa: PLC0415 - half a second that no other command needs

    refusal = await private_tmp.probe()
    if not refusal:
        return Finding(name="tmp", verdict=Verdict.OK, text="each app's process gets a /tmp of its own")
    required = worker.private_tmp == "require"
    return Finding(
        name="tmp",
        verdict=Verdict.FAIL if required else Verdict.WARN,
        text=f"apps share /tmp: {refusal}; "
        + ("the worker does not start" if required else "those that name files there run one at a time"),
        advice="run the worker as root, or allow user namespaces (sysctl kernel.unprivileged_userns_clone, "
        "kernel.apparmor_restrict_unprivileged_userns)",
    )


def look_at_disk(common: CommonSettings) -> Finding:
    """Free space and rights where the data lives."""
    place = common.data_dir
    while not place.exists():
        place = place.parent
    if not os.access(place, os.W_OK):
        return Finding(
            name="disk",
            verdict=Verdict.FAIL,
            text=f"'{place}' cannot be written",
            advice="choose another data directory with STOKER_DATA_DIR",
        )
    free = shutil.disk_usage(place).free
    text = f"{free / 1e9:.1f} GB free for {common.data_dir}"
    if free < DISK_FAIL_BYTES:
        return Finding(name="disk", verdict=Verdict.FAIL, text=text, advice="free some space")
    if free < DISK_WARN_BYTES:
        return Finding(
            name="disk", verdict=Verdict.WARN, text=text, advice="models and environments need more"
        )
    return Finding(name="disk", verdict=Verdict.OK, text=text)


async def look_at_store(common: CommonSettings) -> list[Finding]:
    """Whether what was accepted is on disk, and stays there."""
    where = common.redis_url or "the embedded server"
    try:
        from stoker.protocol import Store  # noqa: PLC0415 - half a second that no other command needs

        store = await Store.open(common.store_url, common.pool)
    except StokerError as error:
        if not common.redis_url:
            text = "the embedded server does not run now; `stoker up` starts it, with every write on disk"
            return [Finding(name="database", verdict=Verdict.OK, text=text)]
        return [
            Finding(name="database", verdict=Verdict.FAIL, text=f"{without_password(where)}: {error.message}")
        ]
    try:
        info = await store.info()
        config = {name: await _config(store, name) for name in CONFIG}
    finally:
        await store.close()
    return list(judge_store(without_password(where), info, config))


def look_at_port(gateway: GatewaySettings) -> Finding:
    """Whether the gateway's port is free, or a gateway is on it."""
    where = f"{gateway.host}:{gateway.port}"
    if gateway.port == 0:
        return Finding(name="port", verdict=Verdict.OK, text="any free one")
    family = socket.AF_INET6 if ":" in gateway.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((gateway.host, gateway.port))
        except OSError as error:
            own = gateway.url_file.exists()
            text = f"{where} is taken{' (this gateway runs)' if own else f' ({error.strerror})'}"
            advice = "" if own else "choose another with STOKER_PORT, or 0 for any free one"
            return Finding(name="port", verdict=Verdict.OK if own else Verdict.WARN, text=text, advice=advice)
    return Finding(name="port", verdict=Verdict.OK, text=f"{where} is free")


def setting_rows() -> Iterator[tuple[str, Any, str]]:
    """Every setting once: name, value, where it came from. Secrets are hidden."""
    seen: set[str] = set()
    for kind in ALL_SETTINGS:
        values, sources = load(kind), origins(kind)
        for name in kind.model_fields:
            if name not in seen:
                seen.add(name)
                value = getattr(values, name)
                if name in PRIVATE_FIELDS and value:
                    value = "(set)"
                yield name, without_password(str(value)), sources[name]


async def _config(store: "Store", name: str) -> str:
    try:
        return await store.config(name)
    except StokerError:
        return ""


async def _output(argv: list[str], stdin: bytes = b"") -> tuple[int, str]:
    """Exit status and output of a short program, bounded in time."""
    process = await asyncio.create_subprocess_exec(
        *argv,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(UV_TIMEOUT_S):
            text, _ = await process.communicate(stdin)
    except TimeoutError:
        process.kill()
        await process.wait()
        return 1, f"no answer within {UV_TIMEOUT_S:.0f} s"
    return process.returncode or 0, text.decode(errors="replace")


def _print(findings: list[Finding], rows: list[tuple[str, Any, str]]) -> None:
    for finding in findings:
        colour = COLOURS[finding.verdict]
        out.print(f"[{colour}]{finding.verdict:<4}[/] [bold]{finding.name:<11}[/] {escape(finding.text)}")
        if finding.advice:
            out.print(f"                 [dim]{escape(finding.advice)}[/]")
    out.print()
    file = settings.config_file()
    out.print(f"[dim]settings file:[/] {escape(str(file)) if file else 'none'}")
    table = [(name, Markup(escape(str(value))), source) for name, value, source in rows]
    print_table("", ("setting", "value", "from"), table, empty="every setting has its default")
