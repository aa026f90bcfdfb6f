"""A trace: when which setup was asked for, by whom, and how long its task ran."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Final

import msgspec
from msgspec import Struct

from stoker.core.errors import CallerError
from stoker_scheduler.simulation.numbers import GIGABYTES, MOMENTS, SECONDS, Bounds, within

GB: Final = 10**9
GENTD26_COLUMNS: Final = ("gmt_create", "exec_time_seconds", "checkpoint_model_version_id", "num_lora")
PLAIN_COLUMNS: Final = ("at_s", "setup", "run_s")
_ADAPTERS: Final = Bounds(0, 1_000_000, "adapters")

_Row = Mapping[str, str]


class TraceUnreadable(CallerError):
    """A trace cannot be read."""

    code = "trace_unreadable"


class Request(Struct, frozen=True, kw_only=True):
    """One task of a trace. `load_s` and `vram_bytes` 0 = as the fleet's file says."""

    at_s: float
    setup: str
    run_s: float
    tenant: str = ""
    priority: int = 0
    load_s: float = 0.0
    vram_bytes: int = 0


def read_trace(path: Path) -> list[Request]:
    """The requests of a trace, by time; the first one is at 0.

    Three forms are known: the published CSV of GenTD26 (its rows that succeeded), a CSV with a header, and JSON
    lines. The last two have `at_s`, `setup` and `run_s`, and may have `tenant`, `priority`, `load_s`, `vram_gb`; a
    setup has one size, the largest of its rows, and a row without `load_s` has the median of its setup's others.

    Raises:
        TraceUnreadable: the file is not there, holds no request, or a line of it is none; names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:  # spreadsheets write a mark of byte order
            found = list(_requests(path, file))
    except (OSError, UnicodeDecodeError) as error:
        raise TraceUnreadable(f"cannot read the trace '{path}': {error}") from error
    if not found:
        raise TraceUnreadable(f"the trace '{path}' holds no request")
    found.sort(key=lambda request: request.at_s)
    begin_s = found[0].at_s
    return known_loads(one_size(moved(request, request.at_s - begin_s) for request in found))


def one_size(requests: Iterable[Request]) -> list[Request]:
    """The same requests, where each setup has one size: an instance serves them all, and has room for the largest."""
    requests = list(requests)
    largest: dict[str, int] = {}
    for request in requests:
        largest[request.setup] = max(largest.get(request.setup, 0), request.vram_bytes)
    return [msgspec.structs.replace(request, vram_bytes=largest[request.setup]) for request in requests]


def known_loads(requests: Iterable[Request]) -> list[Request]:
    """The same requests, where one that was warm takes the median of its setup's loads, should it load here.

    A setup that was never seen to load has none: there the fleet's file says what a load takes.
    """
    requests = list(requests)
    measured: dict[str, list[float]] = {}
    for request in requests:
        if request.load_s:
            measured.setdefault(request.setup, []).append(request.load_s)
    usual = {setup: median(seconds) for setup, seconds in measured.items()}
    return [
        msgspec.structs.replace(request, load_s=request.load_s or usual.get(request.setup, 0.0))
        for request in requests
    ]


def moved(request: Request, at_s: float) -> Request:
    """The same request at another time."""
    return msgspec.structs.replace(request, at_s=at_s)


def faster(requests: Iterable[Request], speed: float) -> list[Request]:
    """The same requests, arriving `speed` times as fast."""
    return [moved(request, request.at_s / speed) for request in requests]


def shifted(requests: list[Request], share: float) -> list[Request]:
    """The same requests, begun at a share (0 to 1) of the trace, its first part after its last: for paired runs."""
    length_s = requests[-1].at_s + 1.0
    begin_s = length_s * share
    turned = [moved(request, (request.at_s - begin_s) % length_s) for request in requests]
    return sorted(turned, key=lambda request: request.at_s)


def _requests(path: Path, file: Iterable[str]) -> Iterator[Request]:
    if path.suffix in {".jsonl", ".ndjson"}:
        yield from _read(path, _json_lines(path, file), _plain)
        return
    table = csv.DictReader(file, strict=True)  # else a quote that is never closed swallows all that follows
    try:
        columns = set(table.fieldnames or ())
    except csv.Error as error:
        raise TraceUnreadable(f"the header of the trace '{path}' is no CSV: {error}") from error
    if columns.issuperset(GENTD26_COLUMNS):
        rows = _csv_lines(path, table)
        kept = ((line, row) for line, row in rows if row.get("predict_status", "SUCCEED") == "SUCCEED")
        yield from _read(path, kept, _gentd26)
    elif columns.issuperset(PLAIN_COLUMNS):
        yield from _read(path, _csv_lines(path, table), _plain)
    else:
        raise TraceUnreadable(
            f"the trace '{path}' has the columns {', '.join(sorted(columns)) or 'none'}; it needs "
            f"{', '.join(PLAIN_COLUMNS)}, or those of GenTD26: {', '.join(GENTD26_COLUMNS)}"
        )


def _read(path: Path, rows: Iterable[tuple[int, _Row]], read: Callable[[_Row], Request]) -> Iterator[Request]:
    for line, row in rows:
        try:
            yield read(row)
        except ValueError as error:
            raise TraceUnreadable(f"line {line} of the trace '{path}' is no request: {error}") from error


def _csv_lines(path: Path, table: "csv.DictReader[str]") -> Iterator[tuple[int, _Row]]:
    """The rows of a CSV, each with its line."""
    line = table.line_num
    try:
        for row in table:
            line = table.line_num
            yield line, row
    except csv.Error as error:
        raise TraceUnreadable(f"what follows line {line} of the trace '{path}' is no CSV: {error}") from error


def _json_lines(path: Path, file: Iterable[str]) -> Iterator[tuple[int, _Row]]:
    for line, text in enumerate(file, 1):
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except ValueError as error:
            raise TraceUnreadable(f"line {line} of the trace '{path}' is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise TraceUnreadable(f"line {line} of the trace '{path}' is no object")
        yield line, row


def _plain(row: _Row) -> Request:
    return Request(
        at_s=within("at_s", row.get("at_s"), MOMENTS),
        setup=_name("setup", row),
        run_s=within("run_s", row.get("run_s"), SECONDS),
        tenant=str(row.get("tenant") or ""),
        priority=_whole("priority", row.get("priority") or 0),
        load_s=within("load_s", row.get("load_s") or 0, SECONDS),
        vram_bytes=int(within("vram_gb", row.get("vram_gb") or 0, GIGABYTES) * GB),
    )


def _gentd26(row: _Row) -> Request:
    """The setup of a task is its base model, and whether LoRA adapters are merged into it."""
    lora = within("num_lora", row.get("num_lora") or 0, _ADAPTERS) > 0
    return Request(
        at_s=_time("gmt_create", row.get("gmt_create") or ""),
        setup=_name("checkpoint_model_version_id", row) + ("/lora" if lora else ""),
        run_s=within("exec_time_seconds", row.get("exec_time_seconds"), SECONDS),
        tenant=row.get("groupId") or "",
    )


def _name(column: str, row: _Row) -> str:
    value = row.get(column)
    if value is None or value == "":
        raise ValueError(f"{column} is missing; it must be a name")
    return str(value)


def _whole(column: str, value: str | float) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{column} is {value!r}; it must be a whole number") from error


def _time(column: str, value: str) -> float:
    try:
        return datetime.strptime(value, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise ValueError(f"{column} is {value!r}; it must be like 2024-11-15 16:57:50") from error
