"""The report of a simulation as one HTML page with drawn charts; it needs nothing from elsewhere."""

from collections.abc import Sequence
from html import escape
from typing import Final

from stoker_scheduler.simulation.bounds import Bound
from stoker_scheduler.simulation.charts import COLOURS, Palette, Window, copies, gantt, queue, residents
from stoker_scheduler.simulation.engine import Outcome
from stoker_scheduler.simulation.summary import Summary, busiest

WINDOW_S: Final = 3600.0
_LIGHT: Final = (
    "#2f6fde", "#c4640a", "#23864b", "#c9374b", "#7f52c7", "#84602f", "#c2488f", "#0f8587", "#7a7f12", "#4d6c8f",
    "#b4bdc7",
)  # fmt: skip
"""Colours of the models with most tasks, then that of all others, which stay in the background."""
_DARK: Final = (
    "#4c86ea", "#d27a22", "#37995e", "#d95364", "#9570d8", "#a07a45", "#d067a2", "#2b9c9e", "#929830", "#6785a8",
    "#4b545f",
)  # fmt: skip
_STYLE: Final = """
:root { color-scheme: light dark; --text: #1b1f24; --back: #fff; --soft: #57606a; --line: #d0d7de; --ours: #ddf4e4;
  --accent: #1f6feb; LIGHT }
@media (prefers-color-scheme: dark) { :root { --text: #e3e8ee; --back: #12161b; --soft: #9aa6b2; --line: #39424d;
  --ours: #17382a; --accent: #6aa5ff; DARK } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; padding: 0 1em; max-width: 1140px;
  color: var(--text); background: var(--back) }
h1 { font-size: 1.5em } h2 { font-size: 1.25em; margin-top: 2.2em } h3 { font-size: 1em; margin: 1.6em 0 .4em }
p.note { color: var(--soft); max-width: 60em; margin: .4em 0 }
div.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .3em .65em; text-align: right; border-bottom: 1px solid var(--line) }
th { border-bottom-width: 2px; font-weight: 600 } th:first-child, td:first-child, .words { text-align: left }
th, td:not(.words) { white-space: nowrap }
tr.ours td { background: var(--ours); font-weight: 600 } tr.bound td { color: var(--soft); font-style: italic }
p.legend { margin: .4em 0; font-size: 13px } p.legend span { display: inline-block; margin-right: 1.4em }
p.legend i { display: inline-block; width: 12px; height: 12px; margin-right: .4em; border-radius: 2px; background: var(--c) }
svg { display: block } svg text { font: 11px system-ui, sans-serif; fill: var(--soft) }
svg .name { fill: var(--text); stroke: var(--back); stroke-width: 2.5; stroke-opacity: .75; paint-order: stroke;
  font-weight: 600; pointer-events: none }
rect, polygon { fill: var(--c) } .load { fill-opacity: .25; stroke: var(--c); stroke-width: 1 } .idle { fill-opacity: .5 }
.piece { stroke: var(--back); stroke-width: .5 } .area { fill: var(--accent); fill-opacity: .15 }
.line { fill: none; stroke: var(--accent); stroke-width: 1.5 }
"""
_COLUMNS: Final = (
    "policy", "warm", "mean s", "p50", "p95", "p99", "max", "total s", "loads", "loading h", "evicted", "came back", "Jain",
    "worst s",
)  # fmt: skip
_BOUND_COLUMNS: Final = ("bound", "mean s", "loads", "loading h", "above it s", "above it h")


def page(
    title: str,
    summaries: Sequence[Summary],
    bounds: Sequence[Bound],
    outcomes: dict[str, Outcome],
    ours: str,
    bound: str,
) -> str:
    """The whole page.

    Args:
        bounds: those of the policy `ours`; empty when it did not run.
        outcomes: runs to draw, by the name of their policy; all show the busiest hour of the first.
        ours: the policy whose row is marked.
        bound: the row that is no policy.
    """
    parts = [f"<h1>{escape(title)}</h1>", _table(summaries, ours, bound)]
    parts.append(
        '<p class="note">Seconds are a task\'s whole time but its execution; "total s" is the mean with it. "Came back" counts '
        'loads of what the same worker had evicted within ten minutes, "worst s" is the mean of the tenant that fared worst. '
        "The last row is a bound, not a policy.</p>"
    )
    if bounds:
        parts.append(f"<h2>How far {escape(ours)} is from its bounds</h2>{_bounds(bounds)}")
    palette = Palette(outcomes.values())
    names = sorted(outcomes, key=lambda name: name != ours)
    window = Window(*busiest(outcomes[names[0]].spans, WINDOW_S)) if names else Window(0, 1)
    for name in names:
        parts += _charts(name, outcomes[name], window, palette)
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{_style()}</style>{body}</html>\n'
    )


def _charts(name: str, outcome: Outcome, window: Window, palette: Palette) -> list[str]:
    legend = palette.legend()
    return [
        f"<h2>{escape(name)}</h2>{legend}",
        f"<h3>the workers in the busiest hour: runs, and loads (outlined)</h3>{gantt(outcome, window, palette)}",
        f"<h3>what was loaded in that hour: a band for each model, pale while it is idle</h3>{residents(outcome, window, palette)}",
        f"<h3>loaded copies of each model, over the whole trace</h3>{copies(outcome, palette)}",
        f"<h3>tasks that wait</h3>{queue(outcome)}",
    ]


def _style() -> str:
    def named(colours: Sequence[str]) -> str:
        return " ".join(f"--m{number}: {colour};" for number, colour in enumerate(colours))

    classes = "\n".join(f".m{number} {{ --c: var(--m{number}) }}" for number in range(COLOURS + 1))
    return _STYLE.replace("LIGHT", named(_LIGHT)).replace("DARK", named(_DARK)) + classes


def _table(summaries: Sequence[Summary], ours: str, bound: str) -> str:
    rows = []
    for each in summaries:
        kind = "ours" if each.policy == ours else "bound" if each.policy == bound else ""
        overhead = each.overhead
        numbers = (overhead.mean, overhead.p50, overhead.p95, overhead.p99, overhead.max)
        cells = [escape(each.policy), f"{each.warm:.1%}", *(f"{number:.1f}" for number in numbers)]
        cells += [
            f"{each.total.mean:.1f}",
            str(each.loads),
            f"{each.loading_h:.1f}",
            str(each.evictions),
            str(each.returns),
            f"{each.jain:.2f}",
            f"{each.worst_overhead_s:.0f}",
        ]
        rows.append(f'<tr class="{kind}">' + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    return _framed(_COLUMNS, rows)


def _bounds(bounds: Sequence[Bound]) -> str:
    rows = []
    for each in bounds:
        if each.note:
            cells = ["-"] * 5
        else:
            cells = [
                f"{each.mean_s:.2f}",
                str(each.loads),
                f"{each.loading_h:.1f}",
                f"{each.above_s:+.2f}",
                f"{each.above_h:+.1f}",
            ]
        numbers = "".join(f"<td>{cell}</td>" for cell in cells)
        words = f"{each.what}; {each.note}" if each.note else each.what
        rows.append(f'<tr><td>{escape(each.name)}</td>{numbers}<td class="words">{escape(words)}</td></tr>')
    return _framed(_BOUND_COLUMNS, rows, '<th class="words">what it is</th>')


def _framed(columns: Sequence[str], rows: Sequence[str], last: str = "") -> str:
    head = "".join(f"<th>{name}</th>" for name in columns) + last
    return f'<div class="wide"><table><tr>{head}</tr>{"".join(rows)}</table></div>'
