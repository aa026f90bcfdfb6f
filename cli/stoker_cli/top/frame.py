"""One frame of `stoker top`, from data alone: knows no terminal, no clock and no gateway."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from stoker_cli.top.lines import DIM, fixed
from stoker_cli.top.machines import GLYPHS, OTHER, STYLES, TITLE, Block, machine_block
from stoker_cli.top.words import clean, since

Record = dict[str, Any]

_BORDER: Final = 2
"""Lines of a frame around a block."""
_SIDES: Final = 4
"""Columns of it, with the space inside."""
_LEAST_QUEUE: Final = 3
"""Waiting tasks that are shown however many machines there are."""
_LEAST_APP: Final = 12
_SHOWN_STATES: Final = frozenset({"running", "draining"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """What the gateway told last. `away`: why it tells nothing now; `queue`: None when it has none to tell."""

    url: str
    now: datetime
    engines: Sequence[Record] = ()
    queue: Record | None = None
    away: str = ""


def frame(snapshot: Snapshot, width: int, height: int | None = None, *, live: bool = False) -> RenderableType:
    """A frame of at most `height` lines (None: as many as it takes). `live`: it says how to end it."""
    inside = max(1, width - _SIDES)
    queue = snapshot.queue or {}
    there = [engine for engine in snapshot.engines if engine.get("status") in _SHOWN_STATES]
    gone = [engine for engine in snapshot.engines if engine.get("status") == "disconnected"]
    head = [_header(snapshot, there, width)]
    if snapshot.away:
        head.append(_cut(Text(f"{clean(snapshot.away)}; trying again", "bold white on red"), width))
    foot = [_legend(width, live=live)]
    running = queue.get("running") or []
    machines = [machine_block(engine, running, snapshot.now, inside) for engine in there]
    if gone:
        names = ", ".join(clean(engine.get("name") or engine.get("id")) for engine in gone)
        foot.insert(0, _cut(Text(f"not connected: {names}", DIM), width))
    if not there:
        machines.append(_nobody())
    waiting = _waiting_block(snapshot, inside)
    if height is not None:
        room = height - len(head) - len(foot)
        machines, waiting = _fitted(machines, waiting, room)
    panels = [_panel(block, width) for block in (*machines, waiting)]
    return Group(*head, *panels, *foot)


def _header(snapshot: Snapshot, engines: Sequence[Record], width: int) -> Text:
    queue = snapshot.queue or {}
    workers = sum(len(engine.get("workers") or []) for engine in engines)
    places = f"{_count(len(engines), 'machine')} · {_count(workers, 'worker')} · "
    tasks = f"{len(queue.get('running') or [])} running · {queue.get('pending') or 0} waiting"
    if queue.get("delayed"):
        tasks += f" · {queue['delayed']} later"
    name, url = Text("stoker top", "bold"), Text(f"  {clean(snapshot.url)}", DIM)
    clock = Text(f"   {snapshot.now:%H:%M:%S}", DIM)
    for left, right in (  # the first that fits; a narrow window has the tasks alone
        (name + url, Text(places + tasks) + clock),
        (name, Text(places + tasks) + clock),
        (name, Text(tasks) + clock),
        (Text(), Text(tasks)),
    ):
        gap = width - left.cell_len - right.cell_len
        if gap > 1:
            return left + Text(" " * gap) + right
    return _cut(Text(tasks), width)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _legend(width: int, *, live: bool) -> Text:
    text = Text(" ")
    for state in ("busy", "idle", "loading"):
        text.append(f"{GLYPHS[state]} ", STYLES[state]).append(
            f"{'warm' if state == 'idle' else state}   ", DIM
        )
    text.append("█ ", OTHER).append("other memory", DIM)
    if live:
        text.append("   q ", "bold").append("ends", DIM)
    return _cut(text, width)


def _nobody() -> Block:
    text = Text("No worker is there. Start one with: ", DIM).append("stoker worker", "bold")
    return Block(title=Text("machines", TITLE), lines=[text], note=Text(""))


def _waiting_block(snapshot: Snapshot, width: int) -> Block:
    if snapshot.queue is None:
        words = (
            "" if snapshot.away else "This gateway does not tell what waits: it is older than this command."
        )
        return Block(title=Text("waiting", TITLE), lines=[Text(words, DIM)], note=Text(""))
    items = snapshot.queue.get("waiting") or []
    total = (snapshot.queue.get("pending") or 0) + (snapshot.queue.get("delayed") or 0)
    longest = max((len(clean(item.get("app"))) for item in items), default=0)
    columns = max(_LEAST_APP, min(longest, width // 3))
    lines = [_waiting_line(item, snapshot.now, columns, width) for item in items]
    if total > len(items):
        lines.append(Text(f"{total - len(items)} more", DIM))
    empty = [Text("Nothing waits.", DIM)]
    return Block(title=Text(f"waiting {total}", TITLE), lines=lines or empty, note=Text(""))


def _waiting_line(item: Record, now: datetime, columns: int, width: int) -> Text:
    text = Text().append(since(item.get("since"), now).rjust(9), DIM).append("  ")
    text.append_text(fixed(clean(item.get("app")), columns, "bold")).append("  ")
    text.append(clean(item.get("queue_reason")), DIM)
    return _cut(text, width)


def _fitted(machines: list[Block], waiting: Block, room: int) -> tuple[list[Block], Block]:
    """The blocks, cut to so many lines in all: first the queue gives way, then the machines at the end."""
    wanted = sum(len(block.lines) + _BORDER for block in machines)
    least = min(len(waiting.lines), _LEAST_QUEUE) + _BORDER
    waiting = _shortened(waiting, max(least, room - wanted) - _BORDER)
    left = room - len(waiting.lines) - _BORDER
    shown: list[Block] = []
    for position, block in enumerate(machines):
        if left < _BORDER + 1:
            return shown, _noted(waiting, f"{_count(len(machines) - position, 'machine')} more")
        shown.append(_shortened(block, left - _BORDER))
        left -= len(shown[-1].lines) + _BORDER
    return shown, waiting


def _shortened(block: Block, lines: int) -> Block:
    if len(block.lines) <= lines:
        return block
    kept = block.lines[: max(0, lines - 1)]
    more = Text(f"{len(block.lines) - len(kept)} lines more: make the window taller", DIM)
    return Block(title=block.title, lines=[*kept, more], note=block.note)


def _noted(block: Block, words: str) -> Block:
    return Block(title=block.title, lines=block.lines, note=Text(words, "yellow"))


def _panel(block: Block, width: int) -> Panel:
    for each in block.lines:
        each.no_wrap = True
        each.truncate(max(1, width - _SIDES), overflow="ellipsis")
    return Panel(
        Group(*block.lines),
        title=block.title,
        title_align="left",
        subtitle=block.note if block.note.plain else None,
        subtitle_align="right",
        border_style=block.border,
        box=box.ROUNDED,
        width=width,
    )


def _cut(text: Text, width: int) -> Text:
    text.no_wrap = True
    text.truncate(width, overflow="ellipsis")
    return text
