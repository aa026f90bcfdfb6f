"""The report of a simulation as one HTML page with drawn charts; it needs nothing from elsewhere."""

import colorsys
import hashlib
from collections.abc import Sequence
from html import escape
from typing import Final

from stoker_scheduler.simulation.engine import Outcome
from stoker_scheduler.simulation.summary import Summary, busiest, waiting_over_time

WIDTH: Final = 1100
ROW: Final = 20
LEFT: Final = 90
WINDOW_S: Final = 3600.0
POINTS: Final = 400
NAMED_S: Final = 90.0
"""A span that is shorter than this, of an hour, has no room for its name."""
_STYLE: Final = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 1140px; color: #1b1f24; background: #fff; }
h1 { font-size: 1.5em } h2 { font-size: 1.15em; margin-top: 2em } p.note { color: #57606a; max-width: 60em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums } th, td { padding: .3em .8em; text-align: right }
th { border-bottom: 2px solid #d0d7de; font-weight: 600 } td { border-bottom: 1px solid #eaeef2 }
th:first-child, td:first-child { text-align: left } tr.ours td { background: #ddf4e4; font-weight: 600 }
tr.bound td { color: #57606a; font-style: italic } svg text { font: 11px system-ui, sans-serif; fill: #57606a }
svg .name { fill: #fff; font-weight: 600 }
"""
_COLUMNS: Final = (
    "policy", "warm", "mean s", "p50", "p95", "p99", "max", "loads", "loading h", "evictions", "came back", "Jain",
)  # fmt: skip


def page(
    title: str, summaries: Sequence[Summary], outcomes: dict[str, Outcome], ours: str, bound: str
) -> str:
    """The whole page.

    Args:
        outcomes: runs to draw, by the name of their policy.
        ours: the policy whose row is marked.
        bound: the row that is no policy.
    """
    parts = [f"<h1>{escape(title)}</h1>", _table(summaries, ours, bound)]
    parts.append(
        '<p class="note">Seconds are a task\'s whole time but its execution. "Came back" counts loads of what the same '
        "worker had evicted within ten minutes; the last row is a bound, not a policy.</p>"
    )
    for name, outcome in outcomes.items():
        begin_s, end_s = busiest(outcome.spans, WINDOW_S)
        parts.append(f"<h2>{escape(name)}: the busiest hour</h2>{_gantt(outcome, begin_s, end_s)}")
        parts.append(f"<h2>{escape(name)}: tasks that wait</h2>{_queue(outcome)}")
    body = "\n".join(parts)
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title><style>{_STYLE}</style>{body}</html>\n'


def colour(setup: str) -> str:
    """The same for a setup in every chart: dark enough for white letters."""
    digest = hashlib.sha256(setup.encode()).digest()
    red, green, blue = colorsys.hls_to_rgb(digest[0] / 256, 0.36 + digest[1] / 2560, 0.55)
    return f"#{int(red * 255):02x}{int(green * 255):02x}{int(blue * 255):02x}"


def _table(summaries: Sequence[Summary], ours: str, bound: str) -> str:
    rows = []
    for each in summaries:
        kind = "ours" if each.policy == ours else "bound" if each.policy == bound else ""
        overhead = each.overhead
        numbers = (overhead.mean, overhead.p50, overhead.p95, overhead.p99, overhead.max)
        cells = [escape(each.policy), f"{each.warm:.1%}", *(f"{number:.1f}" for number in numbers)]
        cells += [
            str(each.loads),
            f"{each.loading_h:.1f}",
            str(each.evictions),
            str(each.returns),
            f"{each.jain:.2f}",
        ]
        rows.append(f'<tr class="{kind}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{name}</th>" for name in _COLUMNS)
    return f"<table><tr>{head}</tr>{''.join(rows)}</table>"


def _gantt(outcome: Outcome, begin_s: float, end_s: float) -> str:
    """A row for each worker: a bar for each run in its setup's colour, a pale one for each load."""
    height = len(outcome.workers) * ROW + 24
    rows = {worker.id: number for number, worker in enumerate(outcome.workers)}
    scale = (WIDTH - LEFT) / (end_s - begin_s)
    drawn = [
        f'<text x="0" y="{number * ROW + 14}">{escape(worker)}</text>' for worker, number in rows.items()
    ]
    for span in outcome.spans:
        if span.end_s <= begin_s or span.begin_s >= end_s:
            continue
        left = LEFT + (max(span.begin_s, begin_s) - begin_s) * scale
        width = max(1.0, (min(span.end_s, end_s) - max(span.begin_s, begin_s)) * scale - 0.5)
        top = rows[span.worker] * ROW + 2
        pale = ' fill-opacity=".35"' if span.kind == "load" else ""
        about = f"{span.kind} {span.setup}: {span.end_s - span.begin_s:.0f} s"
        drawn.append(
            f'<rect x="{left:.1f}" y="{top}" width="{width:.1f}" height="{ROW - 4}" rx="2" fill="{colour(span.setup)}"{pale}>'
            f"<title>{escape(about)}</title></rect>"
        )
        if span.kind == "run" and span.end_s - span.begin_s > NAMED_S:
            drawn.append(
                f'<text class="name" x="{left + 4:.1f}" y="{top + 12}">{escape(span.setup[:8])}</text>'
            )
    marks = [
        f'<text x="{LEFT + minute * 60 * scale:.0f}" y="{height - 6}">{minute} min</text>'
        for minute in range(0, 60, 10)
    ]
    return f'<svg viewBox="0 0 {WIDTH} {height}" width="100%">{"".join(drawn + marks)}</svg>'


def _queue(outcome: Outcome) -> str:
    found = waiting_over_time(outcome.jobs, POINTS)
    top, end_s, height = max(1, *(count for _, count in found)), found[-1][0], 120
    points = [
        f"{LEFT + at_s / end_s * (WIDTH - LEFT):.1f},{height - 18 - count / top * (height - 30):.1f}"
        for at_s, count in found
    ]
    line = f'<polyline points="{" ".join(points)}" fill="none" stroke="#1f6feb" stroke-width="1.5"/>'
    days = int(end_s // 86_400)
    marks = [
        f'<text x="{LEFT + day * 86_400 / end_s * (WIDTH - LEFT):.0f}" y="{height - 4}">day {day}</text>'
        for day in range(days + 1)
    ]
    return (
        f'<svg viewBox="0 0 {WIDTH} {height}" width="100%"><text x="0" y="14">{top} tasks</text>'
        f'<text x="0" y="{height - 18}">0</text>{line}{"".join(marks)}</svg>'
    )
