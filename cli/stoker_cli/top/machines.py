"""A machine as `stoker top` shows it: the host, each worker, its devices, and what lives and runs there."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rich.text import Text

from stoker_cli.top.lines import DIM, TRACK, Cell, curve, fixed, heat, line
from stoker_cli.top.words import clean, duration, gigabytes, number, since, time_of

Record = dict[str, Any]

GLYPHS: Final = {"busy": "●", "idle": "○", "loading": "◐", "stopping": "◌", "parked": "◇"}
STYLES: Final = {"busy": "green", "idle": "cyan", "loading": "yellow", "stopping": "red", "parked": "blue"}
TITLE: Final = "bold bright_white"
OTHER: Final = "grey54"
"""Memory that no instance holds: a driver, or processes of others."""
_MEMORY_BAR: Final = 34
_USE_BAR: Final = 20
_LEAST_LABEL: Final = 12
_CURVE: Final = 20
_CURVE_STYLE: Final = "blue"
_MORE: Final = ((2, 6), (3, 9), (5, 8))
"""Rank and width of the columns after the curve."""
_FIGURES: Final = 13
_PERCENT: Final = 5
_STALE_S: Final = 30.0
"""A machine is heard every few seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What belongs into one frame with a border."""

    title: Text
    lines: list[Text]
    note: Text
    border: str = "grey42"


def machine_block(engine: Record, running: Sequence[Record], now: datetime, width: int) -> Block:
    """One machine. `running`: the tasks that workers hold, of all machines."""
    info = engine.get("system_info") or {}
    status = clean(engine.get("status"))
    title = Text(clean(engine.get("name") or engine.get("id")), TITLE)
    if status != "running":
        title.append(f" {status}", "yellow")
    gpus = info.get("gpus") or []
    heads = [_cpu_name(info), *map(_gpu_name, gpus)]
    heads += [_part_name(part) for gpu in gpus for part in gpu.get("mig") or []]
    label = max(_LEAST_LABEL, min(max(map(len, heads)), width // 5))
    lines = [_columns(info, label, width), _host(info, label, width)]
    for worker in engine.get("workers") or []:
        held = [task for task in running if task.get("worker_id") == worker.get("id")]
        lines += _worker(worker, info, held, now, label, width)
    return Block(title=title, lines=lines, note=_note(engine, info, now))


def _cpu_name(info: Record) -> str:
    return f"CPU, {clean((info.get('cpus') or [{}])[0].get('cores'))} cores"


def _gpu_name(gpu: Record) -> str:
    return f"GPU {clean(gpu.get('index'))} {clean(gpu.get('name')).removeprefix('NVIDIA ')}"


def _part_name(part: Record) -> str:
    """The driver puts the device's name before that of the profile."""
    return f"  MIG {clean(part.get('id'))} {clean(part.get('name')).rpartition('MIG ')[2]}"


def _note(engine: Record, info: Record, now: datetime) -> Text:
    """What the machine runs, and whether it is heard."""
    heard = time_of(engine.get("updated_at"))
    silent_s = (now - heard).total_seconds() if heard else 0.0
    if silent_s > _STALE_S:
        return Text(f"not heard for {duration(silent_s)}", "bold red")
    driver: Record = next((gpu for gpu in info.get("gpus") or [] if gpu.get("driver_version")), {})
    words = [f"driver {clean(driver['driver_version'])}"] if driver else []
    words += [f"CUDA {clean(driver['cuda_version'])}"] if driver.get("cuda_version") else []
    return Text(" · ".join([*words, f"stoker {clean(info.get('engine_version'))}"]), DIM)


def _columns(info: Record, label: int, width: int) -> Text:
    """The heads of the columns, above the bars of the lines below."""
    shape = line(Text(" " * label), _cells((), Text(" " * _FIGURES), (), Text(" " * _PERCENT), (), ()), width)
    bars = [span.start for span in shape.spans if span.style == TRACK]
    interval = number((info.get("history") or {}).get("interval_s")) or 0
    heads = [" "] * width
    for at, word in zip(bars, ("memory", "use"), strict=False):
        heads[at : at + len(word)] = word
    if interval and (curves := [span.start for span in shape.spans if span.style == _CURVE_STYLE]):
        words = f"last {_CURVE * interval:.0f} s"
        heads[curves[0] : curves[0] + len(words)] = words
    return Text("".join(heads)[:width].rstrip(), DIM)


def _cells(
    memory: Sequence[tuple[float, str]],
    figures: Text,
    use: Sequence[tuple[float, str]],
    percent: Text,
    history: Sequence[float | None],
    more: Sequence[Text],
) -> list[Cell]:
    """The columns that hosts and devices share, each as wide in every line."""
    texts = [*more, Text(), Text(), Text()]
    return [
        Cell(text=figures, parts=memory, bar_max=_MEMORY_BAR),
        Cell(text=percent, rank=1, parts=use, bar_max=_USE_BAR),
        Cell(text=curve(history, _CURVE, _CURVE_STYLE), rank=4),
        *(
            Cell(text=_right(text, columns), rank=rank)
            for text, (rank, columns) in zip(texts, _MORE, strict=False)
        ),
    ]


def _right(text: Text, columns: int) -> Text:
    made = text.copy()
    made.pad_left(max(0, columns - text.cell_len))
    return made


def _host(info: Record, label: int, width: int) -> Text:
    cpu = (info.get("cpus") or [{}])[0]
    ram = info.get("ram") or {}
    used, total = number(ram.get("used")) or 0, number(ram.get("total")) or 0
    percent = number(cpu.get("usage")) or 0
    history = (info.get("history") or {}).get("cpu") or ()
    loads = info.get("load") or ()
    volumes = [number(volume.get("usage")) or 0 for volume in info.get("volumes") or []]
    return line(
        fixed(_cpu_name(info), label),
        _cells(
            [(used / total if total else 0, heat(100 * used / total if total else 0))],
            _of(used, total),
            [(percent / 100, heat(percent))],
            Text(f"{percent:.0f} %".rjust(_PERCENT)),
            history,
            [
                Text(),
                Text(f"disk {max(volumes):.0f} %" if volumes else "", _alarm(max(volumes, default=0), 90)),
                Text(f"load {loads[0]:.1f}"[:8] if loads else "", DIM),
            ],
        ),
        width,
    )


def _worker(
    worker: Record, info: Record, held: Sequence[Record], now: datetime, label: int, width: int
) -> Iterator[Text]:
    """A worker: its name and state, its devices, its instances, and tasks that have none yet."""
    yield Text("")
    yield _worker_name(worker, width)
    if why := worker.get("quarantine"):
        yield _warning(_quarantine(why), "yellow", width)
    residents = worker.get("residents") or []
    parked = worker.get("parked") or []
    own = {str(gpu.get("gpu_id")) for gpu in worker.get("gpus") or []}
    devices = {str(gpu.get("id")): gpu for gpu in info.get("gpus") or [] if str(gpu.get("id")) in own}
    for device in devices.values():
        yield from _device(device, [*residents, *parked], len(devices), now, label, width)
    tasks = {str(task.get("task_id")): task for task in held}
    for resident in residents:
        yield _resident(resident, tasks.pop(str(resident.get("task_id")), None), now, width)
    for resident in parked:
        yield _resident(resident, None, now, width)
    for task in tasks.values():
        yield _resident({"app": task.get("app"), "state": "loading"}, task, now, width)


def _quarantine(why: Record) -> str:
    """Why a worker gets no tasks; without an end it ends when its cause does."""
    if not why.get("until"):
        return f"gets no tasks: {clean(why.get('reason'))}"
    failures = clean(why.get("failures"))
    return f"gets no tasks until {clean(why['until'])}: {failures} failed in a row, the last: {clean(why.get('reason'))}"


def _worker_name(worker: Record, width: int) -> Text:
    status = "quarantined" if worker.get("quarantine") else clean(worker.get("status"))
    style = {"busy": "green", "idle": "cyan", "quarantined": "yellow"}.get(status, DIM)
    text = Text(clean(worker.get("name") or worker.get("id")), "bold").append(f"  {status}", style)
    if session := worker.get("active_session_id"):
        text.append(f"  leased to {clean(session)}", DIM)
    text.truncate(width, overflow="ellipsis")
    return text


def _device(
    gpu: Record, residents: Sequence[Record], shared_by: int, now: datetime, label: int, width: int
) -> Iterator[Text]:
    head = fixed(_gpu_name(gpu), label)
    if gpu.get("lost"):
        head.append(f"  lost: {clean(gpu['lost'])}", "bold red")
        head.truncate(width, overflow="ellipsis")
        yield head
    else:
        yield line(head, _device_cells(gpu, residents, shared_by), width)
    for part in gpu.get("mig") or []:
        used, total = number(part.get("memory_used")) or 0, number(part.get("memory_total")) or 0
        share = used / total if total else 0
        figures = Cell(text=_of(used, total), parts=[(share, heat(100 * share))], bar_max=_MEMORY_BAR)
        yield line(fixed(_part_name(part), label), [figures], width)
    yield from _troubles(gpu, now, width)


def _device_cells(gpu: Record, residents: Sequence[Record], shared_by: int) -> list[Cell]:
    used, total = number(gpu.get("memory_used")) or 0, number(gpu.get("memory_total")) or 0
    percent = number(gpu.get("utilization"))
    celsius, watts = number(gpu.get("temperature")) or 0, number(gpu.get("power"))
    limit, clock = number(gpu.get("power_limit")), number(gpu.get("clock"))
    power = "" if watts is None else f"{watts:.0f} W" if limit is None else f"{watts:.0f}/{limit:.0f} W"
    return _cells(
        memory_parts(residents, used, total, shared_by),
        _of(used, total),
        [((percent or 0) / 100, _CURVE_STYLE)],
        Text(("-" if percent is None else f"{percent:.0f} %").rjust(_PERCENT)),
        (gpu.get("history") or {}).get("utilization") or (),
        [
            Text(f"{celsius:.0f} °C" if celsius else "", _alarm(celsius, 85)),
            Text(power, DIM),
            Text("" if clock is None else f"{clock:.0f} MHz", DIM),
        ],
    )


def memory_parts(
    residents: Sequence[Record], used: float, total: float, shared_by: int
) -> list[tuple[float, str]]:
    """Whose the used memory of a device is: instances by what they do, and the rest."""
    if total <= 0:
        return []
    parts, left = [], used
    for resident in sorted(residents, key=lambda each: list(GLYPHS).index(_state(each))):
        own = min(left, (number(resident.get("vram")) or 0) / max(1, shared_by))
        parts.append((own / total, STYLES[_state(resident)]))
        left -= own
    return [*parts, (left / total, OTHER)]


def _troubles(gpu: Record, now: datetime, width: int) -> Iterator[Text]:
    """What is wrong with a device, a line each."""
    if throttled := gpu.get("throttled"):
        yield _warning("slowed down: " + ", ".join(clean(reason) for reason in throttled), "yellow", width)
    if errors := number((gpu.get("ecc") or {}).get("uncorrected")):
        yield _warning(f"{errors:.0f} memory errors that could not be corrected", "red", width)
    if xids := gpu.get("xids"):
        count = int(number(gpu.get("xid_count")) or len(xids))
        ago = since(xids[-1].get("at"), now)
        more = f", and {count - 1} before" if count > 1 else ""
        yield _warning(f"{clean(xids[-1].get('meaning'))}{f', {ago} ago' if ago else ''}{more}", "red", width)


def _resident(resident: Record, task: Record | None, now: datetime, width: int) -> Text:
    state = _state(resident)
    head = Text(f"  {GLYPHS[state]} ", STYLES[state])
    head.append_text(fixed(clean(resident.get("app")), max(_LEAST_LABEL, min(30, width // 4))))
    vram = number(resident.get("vram"))
    cells = [
        Cell(text=Text((f"{gigabytes(vram)} GB" if vram else "").rjust(8), DIM), rank=1),
        Cell(text=_doing(resident, task, now)),
        Cell(text=Text(clean((task or {}).get("task_id")), DIM), rank=2),
    ]
    return line(head, cells, width)


def _doing(resident: Record, task: Record | None, now: datetime) -> Text:
    state = _state(resident)
    if task is not None:
        words = f"{clean(task.get('state')).replace('_', ' ')} for {since(task.get('since'), now)}"
        return Text(words, STYLES[state])
    if state == "parked":
        taken = gigabytes(number(resident.get("host_memory")) or 0)
        return Text(f"parked, takes {taken} GB of the machine's memory", STYLES[state])
    if state != "idle":
        return Text(state, STYLES[state])
    pinned = ", pinned" if resident.get("pinned") else ""
    return Text(f"warm{pinned}, loaded {since(resident.get('since'), now)} ago", DIM)


def _state(resident: Record) -> str:
    state = str(resident.get("state"))
    return state if state in GLYPHS else "loading"


def _warning(words: str, style: str, width: int) -> Text:
    text = Text(f"  ▲ {words}", style)
    text.truncate(width, overflow="ellipsis")
    return text


def _of(used: float, total: float) -> Text:
    return Text(f"{gigabytes(used)}/{gigabytes(total)} GB".rjust(_FIGURES))


def _alarm(value: float, bound: float) -> str:
    return "bold red" if value >= bound else DIM
