"""What the lines of `stoker top` are made of: bars, curves, and columns that give way when there is no room."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.text import Text

TRACK: Final = "on grey19"
"""What of a bar is not filled: a background, so that the last eighths of a column blend into it."""
DIM: Final = "grey62"
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"
_STEPS: Final = "▁▂▃▄▅▆▇█"
_GAP: Final = 2
_LEAST_BAR: Final = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A column of a line: text, with a bar before it that takes what room there is, `bar_max` at most.

    `rank`: those with the highest give way first; 0 never does.
    """

    text: Text
    rank: int = 0
    parts: Sequence[tuple[float, str]] = ()
    bar_max: int = 0

    @property
    def least(self) -> int:
        """Columns that it needs, with the gap before it."""
        return _GAP + self.text.cell_len + ((_LEAST_BAR + 1) if self.bar_max else 0)


def line(head: Text, cells: Sequence[Cell], width: int) -> Text:
    """A head and as many of the cells as fit, in their order, the bars as long as they may be."""
    room = width - head.cell_len
    kept = []
    for cell in sorted(cells, key=lambda cell: cell.rank):
        if cell.least <= room or cell.rank == 0:
            kept.append(cell)
            room -= cell.least
    bars = [cell for cell in cells if cell in kept and cell.bar_max]
    lengths = {id(cell): _LEAST_BAR for cell in bars}
    while room > 0 and (growing := [cell for cell in bars if lengths[id(cell)] < cell.bar_max]):
        for cell in growing[:room]:
            lengths[id(cell)] += 1
        room -= len(growing)
    text = head.copy()
    for cell in cells:
        if cell in kept:
            text.append(" " * _GAP)
            if cell.bar_max:
                text.append_text(bar(cell.parts, lengths[id(cell)])).append(" ")
            text.append_text(cell.text)
    text.truncate(width, overflow="ellipsis")
    return text


def bar(parts: Sequence[tuple[float, str]], width: int) -> Text:
    """Shares of a whole (0 to 1) side by side, each in its style, on a track."""
    text = Text()
    reached = 0.0
    for position, (share, style) in enumerate(parts):
        before = text.cell_len
        reached = min(1.0, reached + max(0.0, share))
        cells = reached * width
        if position < len(parts) - 1:
            text.append("█" * max(0, round(cells) - before), style)
            continue
        whole, rest = int(cells), int(cells % 1 * len(_EIGHTHS))
        text.append("█" * max(0, whole - before), style)
        if rest and text.cell_len == whole < width:
            text.append(_EIGHTHS[rest], f"{style} {TRACK}")
    text.append(" " * (width - text.cell_len), TRACK)
    return text


def curve(history: Sequence[float | None], width: int, style: str) -> Text:
    """The last points of a history of percents, one a column; a gap where nothing was read."""
    shown = list(history)[-width:] if width > 0 else []
    steps = "".join(
        " " if point is None else _STEPS[min(len(_STEPS) - 1, int(point * len(_STEPS) / 100))]
        for point in shown
    )
    return Text(steps.rjust(width), style)


def heat(percent: float) -> str:
    """The colour of a load."""
    return "red" if percent >= 95 else "yellow" if percent >= 80 else "green"


def fixed(text: str, width: int, style: str = "") -> Text:
    """Text cut or filled up to a width."""
    made = Text(text, style)
    made.truncate(width, overflow="ellipsis", pad=True)
    return made
