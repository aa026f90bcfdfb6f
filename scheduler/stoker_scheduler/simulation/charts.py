"""The charts of a simulation's report, as SVG without a script. Colours are classes: the page has them for light and dark."""

from collections import Counter
from collections.abc import Iterable, Sequence
from html import escape
from typing import Final, NamedTuple

from stoker_scheduler.simulation.engine import Outcome, Span, Stay
from stoker_scheduler.simulation.summary import copies_over_time, waiting_over_time

WIDTH: Final = 1100
LEFT: Final = 90
ROW: Final = 20
LANE: Final = 16
COLOURS: Final = 10
"""Models with a colour of their own; more could not be told apart."""
OTHERS: Final = "others"
ROWS_MAX: Final = 24
LANES_MAX: Final = 56
"""What one screen shows; a line says what is left out."""
POINTS: Final = 250
LETTER: Final = 6.5
"""Width of a letter, about."""
NAME_MAX: Final = 28
NAME_MIN: Final = 8
"""Letters of a name that still tell something."""
_STEPS_S: Final = (60, 300, 600, 1800, 3600, 10_800, 21_600, 43_200, 86_400, 172_800, 604_800, 2_419_200)
_TICKS_MAX: Final = 13
_DAY_S: Final = 86_400
_HOUR_S: Final = 3600


class Palette:
    """Which class the bars of a setup have: those with most tasks get a colour each, the same in all charts."""

    def __init__(self, outcomes: Iterable[Outcome]) -> None:
        tasks = Counter(job.request.setup for outcome in outcomes for job in outcome.jobs)
        ranked = sorted(tasks, key=lambda setup: (-tasks[setup], setup))
        self.named = ranked[:COLOURS]
        self.rest = len(ranked) - len(self.named)
        self._place = {setup: number for number, setup in enumerate(self.named)}

    def css(self, setup: str) -> str:
        """The class of a setup."""
        return f"m{self._place.get(setup, COLOURS)}"

    def layers(self) -> list[tuple[str, str]]:
        """The classes with what they stand for; the others come last."""
        return [*((self.css(setup), setup) for setup in self.named), (f"m{COLOURS}", OTHERS)]

    def legend(self) -> str:
        """The colours with their names."""
        names = [(self.css(setup), _short(setup)) for setup in self.named]
        if self.rest:
            names.append((f"m{COLOURS}", f"{self.rest} {OTHERS}"))
        keys = "".join(f'<span><i class="{css}"></i>{escape(name)}</span>' for css, name in names)
        return f'<p class="legend">{keys}</p>'


class Window(NamedTuple):
    """A stretch of time, and where it is drawn."""

    begin_s: float
    end_s: float

    def x(self, at_s: float) -> float:
        """The place of a moment, within the chart."""
        inside = min(max(at_s, self.begin_s), self.end_s) - self.begin_s
        return LEFT + inside / (self.end_s - self.begin_s) * (WIDTH - LEFT)

    def meets(self, begin_s: float, end_s: float) -> bool:
        """Whether something of it is in here."""
        return end_s > self.begin_s and begin_s < self.end_s


def gantt(outcome: Outcome, window: Window, palette: Palette) -> str:
    """A row for each worker: a bar for each run, an outlined one for each load."""
    shown = outcome.workers[:ROWS_MAX]
    tops = {worker.id: number * ROW + 2 for number, worker in enumerate(shown)}
    drawn = [_text(0, top + 12, worker) for worker, top in tops.items()]
    for span in outcome.spans:
        if span.worker in tops and window.meets(span.begin_s, span.end_s):
            drawn.append(_span(span, window, palette, tops[span.worker], ROW - 4))
            if span.kind == "run":
                drawn.append(_name(span.setup, span.begin_s, span.end_s, window, tops[span.worker] + 12))
    height = len(tops) * ROW + 24
    chart = _svg("what each worker did", height, [*drawn, *_ticks(window, height)])
    return chart + _left_out(len(outcome.workers) - len(shown))


def residents(outcome: Outcome, window: Window, palette: Palette) -> str:
    """A band for each model that is loaded on a worker: full where it runs, outlined where it loads, else pale."""
    spans: dict[tuple[str, str], list[Span]] = {}
    for span in outcome.spans:
        if window.meets(span.begin_s, span.end_s):
            spans.setdefault((span.worker, span.setup), []).append(span)
    drawn: list[str] = []
    top, shown, lanes_shown = 0, 0, 0
    for worker in outcome.workers:
        lanes = lanes_of(
            [s for s in outcome.stays if s.worker == worker.id and window.meets(s.begin_s, s.end_s)]
        )
        lanes_shown += max(1, len(lanes))
        if lanes_shown > LANES_MAX and shown:
            break
        shown += 1
        drawn.append(_text(0, top + 12, worker.id))
        for number, lane in enumerate(lanes):
            for stay in lane:
                of_stay = [
                    s
                    for s in spans.get((stay.worker, stay.setup), ())
                    if stay.begin_s <= s.begin_s < stay.end_s
                ]
                drawn += _band(stay, of_stay, window, palette, top + number * LANE)
        top += max(1, len(lanes)) * LANE + 6
    height = top + 20
    chart = _svg("which models were loaded where", height, [*drawn, *_ticks(window, height)])
    return chart + _left_out(len(outcome.workers) - shown)


def lanes_of(stays: Sequence[Stay]) -> list[list[Stay]]:
    """Stays in as few lanes as they need: one takes the lane that was free first."""
    lanes: list[list[Stay]] = []
    for stay in sorted(stays, key=lambda stay: (stay.begin_s, stay.end_s, stay.setup)):
        free = [lane for lane in lanes if lane[-1].end_s <= stay.begin_s]
        if free:
            min(free, key=lambda lane: lane[-1].end_s).append(stay)
        else:
            lanes.append([stay])
    return lanes


def copies(outcome: Outcome, palette: Palette) -> str:
    """How many instances of each model were loaded, one upon the other, over the whole trace."""
    window = _whole(outcome)
    found = copies_over_time(outcome.stays, window.end_s, POINTS, palette.css)
    most = max((sum(counts.values()) for counts in found), default=0.0) or 1.0
    height, base = 200, 182
    drawn: list[str] = []
    below = [0.0] * len(found)
    for css, name in palette.layers():
        above = [low + counts.get(css, 0.0) for low, counts in zip(below, found, strict=True)]
        if above != below:
            edges = [*_edge(above, window, base, most), *reversed(_edge(below, window, base, most))]
            drawn.append(
                f'<polygon class="{css} piece" points="{" ".join(edges)}"><title>{escape(name)}</title></polygon>'
            )
            below = above
    drawn += [_text(0, 20, f"{most:.0f} loaded"), _text(0, base, "0"), *_ticks(window, height)]
    return _svg("loaded copies of each model over time", height, drawn)


def queue(outcome: Outcome) -> str:
    """How many tasks waited, over the whole trace."""
    found = waiting_over_time(outcome.jobs, POINTS)
    window = _whole(outcome)
    top, height = max(1, *(count for _, count in found)), 130
    base = height - 18
    points = " ".join(f"{window.x(at_s):.1f},{base - count / top * (base - 12):.1f}" for at_s, count in found)
    area = f'<polygon class="area" points="{LEFT},{base} {points} {window.x(found[-1][0]):.1f},{base}"/>'
    line = f'<polyline class="line" points="{points}"/>'
    texts = [_text(0, 20, f"{top} tasks"), _text(0, base, "0")]
    return _svg("tasks that wait over time", height, [area, line, *texts, *_ticks(window, height)])


def _whole(outcome: Outcome) -> Window:
    return Window(0.0, max(job.ended_s for job in outcome.jobs) or 1.0)


def _edge(values: Sequence[float], window: Window, base: int, most: float) -> list[str]:
    """The upper line of a layer of a stacked chart; each value holds for a part of the time."""
    length_s = window.end_s / len(values)
    return [
        f"{window.x((number + side) * length_s):.1f},{base - value / most * (base - 12):.1f}"
        for number, value in enumerate(values)
        for side in (0, 1)
    ]


def _band(stay: Stay, spans: Sequence[Span], window: Window, palette: Palette, top: int) -> list[str]:
    about = f"{stay.setup}: loaded for {stay.end_s - stay.begin_s:.0f} s"
    drawn = [_bar(stay.begin_s, stay.end_s, window, top, LANE - 2, f"{palette.css(stay.setup)} idle", about)]
    drawn += [_span(span, window, palette, top, LANE - 2) for span in spans]
    return [*drawn, _name(stay.setup, stay.begin_s, stay.end_s, window, top + 11)]


def _span(span: Span, window: Window, palette: Palette, top: int, height: int) -> str:
    about = f"{span.kind} {span.setup}: {span.end_s - span.begin_s:.0f} s"
    return _bar(
        span.begin_s, span.end_s, window, top, height, f"{palette.css(span.setup)} {span.kind}", about
    )


def _bar(begin_s: float, end_s: float, window: Window, top: int, height: int, css: str, about: str) -> str:
    left, right = window.x(begin_s), window.x(end_s)
    width = max(1.0, right - left - 0.5)
    return (
        f'<rect class="{css}" x="{left:.1f}" y="{top}" width="{width:.1f}" height="{height}" rx="2">'
        f"<title>{escape(about)}</title></rect>"
    )


def _name(setup: str, begin_s: float, end_s: float, window: Window, y: int) -> str:
    """A bar's name, where there is room for it."""
    left, right = window.x(begin_s), window.x(end_s)
    letters = int((right - left - 6) / LETTER)
    if letters < min(len(setup), NAME_MIN):
        return ""
    return f'<text class="name" x="{left + 4:.1f}" y="{y}">{escape(setup[:letters])}</text>'


def _ticks(window: Window, height: int) -> list[str]:
    length_s = window.end_s - window.begin_s
    step_s = next((step for step in _STEPS_S if length_s / step < _TICKS_MAX), _STEPS_S[-1])
    return [
        _text(window.x(window.begin_s + number * step_s), height - 5, _time(number * step_s))
        for number in range(int(length_s // step_s) + 1)
        if length_s - number * step_s > length_s / 40
    ]


def _time(seconds: int) -> str:
    if seconds and seconds % _DAY_S == 0:
        return f"day {seconds // _DAY_S}"
    if seconds and seconds % _HOUR_S == 0:
        return f"{seconds // _HOUR_S} h"
    return f"{seconds // 60} min" if seconds else "0"


def _left_out(workers: int) -> str:
    return f'<p class="note">and {workers} more workers</p>' if workers > 0 else ""


def _short(name: str) -> str:
    return name if len(name) <= NAME_MAX else f"{name[: NAME_MAX - 1]}…"


def _text(x: float, y: float, text: str) -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}">{escape(text)}</text>'


def _svg(about: str, height: int, drawn: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="100%" role="img" aria-label="{escape(about)}">'
        f"{''.join(drawn)}</svg>"
    )
