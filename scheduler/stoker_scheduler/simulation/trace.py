"""A trace: when which setup was asked for, by whom, and how long its task ran."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from msgspec import Struct

from stoker.core.errors import CallerError

GB: Final = 10**9
GENTD26_COLUMNS: Final = ("gmt_create", "exec_time_seconds", "checkpoint_model_version_id", "num_lora")
PLAIN_COLUMNS: Final = ("at_s", "setup", "run_s")


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
    lines. The last two have `at_s`, `setup` and `run_s`, and may have `tenant`, `priority`, `load_s`, `vram_gb`.

    Raises:
        TraceUnreadable: the file is not there, holds no request, or a line of it is none; names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            found = list(_requests(path, file))
    except (OSError, UnicodeDecodeError) as error:
        raise TraceUnreadable(f"cannot read the trace '{path}': {error}") from error
    if not found:
        raise TraceUnreadable(f"the trace '{path}' holds no request")
    found.sort(key=lambda request: request.at_s)
    begin_s = found[0].at_s
    return [moved(request, request.at_s - begin_s) for request in found]


def moved(request: Request, at_s: float) -> Request:
    """The same request at another time."""
    return Request(
        at_s=at_s,
        setup=request.setup,
        run_s=request.run_s,
        tenant=request.tenant,
        priority=request.priority,
        load_s=request.load_s,
        vram_bytes=request.vram_bytes,
    )


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
        rows: Iterator[Mapping[str, str]] = (
            _json_line(path, number, line) for number, line in enumerate(file, 1)
        )
        yield from _read(path, (row for row in rows if row), _plain, 1)
        return
    table = csv.DictReader(file)
    columns = set(table.fieldnames or ())
    if columns.issuperset(GENTD26_COLUMNS):
        kept = (row for row in table if row.get("predict_status", "SUCCEED") == "SUCCEED")
        yield from _read(path, kept, _gentd26, 2)
    elif columns.issuperset(PLAIN_COLUMNS):
        yield from _read(path, table, _plain, 2)
    else:
        raise TraceUnreadable(
            f"the trace '{path}' has the columns {', '.join(sorted(columns)) or 'none'}; it needs "
            f"{', '.join(PLAIN_COLUMNS)}, or those of GenTD26: {', '.join(GENTD26_COLUMNS)}"
        )


def _read(
    path: Path,
    rows: Iterable[Mapping[str, str]],
    read: Callable[[Mapping[str, str]], Request],
    first: int,
) -> Iterator[Request]:
    for number, row in enumerate(rows, first):
        try:
            yield read(row)
        except (KeyError, TypeError, ValueError) as error:
            raise TraceUnreadable(
                f"request {number} of the trace '{path}' cannot be read: {error!r}"
            ) from error


def _json_line(path: Path, number: int, line: str) -> Mapping[str, str]:
    if not line.strip():
        return {}
    try:
        row = json.loads(line)
    except ValueError as error:
        raise TraceUnreadable(f"line {number} of the trace '{path}' is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise TraceUnreadable(f"line {number} of the trace '{path}' is no object")
    return row


def _plain(row: Mapping[str, str]) -> Request:
    return Request(
        at_s=float(row["at_s"]),
        setup=str(row["setup"]),
        run_s=_positive(row["run_s"]),
        tenant=str(row.get("tenant") or ""),
        priority=int(row.get("priority") or 0),
        load_s=_positive(row.get("load_s") or 0),
        vram_bytes=int(_positive(row.get("vram_gb") or 0) * GB),
    )


def _gentd26(row: Mapping[str, str]) -> Request:
    """The setup of a task is its base model, and whether LoRA adapters are merged into it."""
    at = datetime.strptime(row["gmt_create"], "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    lora = float(row["num_lora"] or 0) > 0
    return Request(
        at_s=at.timestamp(),
        setup=row["checkpoint_model_version_id"] + ("/lora" if lora else ""),
        run_s=_positive(row["exec_time_seconds"]),
        tenant=row.get("groupId") or "",
    )


def _positive(value: str | float) -> float:
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError(f"{value!r} is no number of seconds or bytes")
    return number
