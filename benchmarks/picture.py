"""A result as a picture: a group of bars for each figure that matters most, drawn as SVG by hand."""

from __future__ import annotations

from html import escape

from benchmarks.figures import MEASURES, Better, Summary
from benchmarks.report import Result, number

_GROUPS = (
    ("drain.rate", "Empty tasks, results kept"),
    ("bare.rate", "Empty tasks, no results"),
    ("sleepers.rate", "Tasks that wait 20 ms"),
    ("accept.rate", "Sending one by one"),
    ("many.rate", "Sending many together"),
    ("pickup.p50", "Pick-up by an idle worker, median"),
    ("pickup.p99", "Pick-up by an idle worker, 99 %"),
    ("drain.memory", "Memory of the worker for 2 cores"),
    ("drain.cpu", "CPU of the worker for 1,000 tasks"),
    ("commands.run", "Commands sent to the server to run a task"),
)
_WIDTH, _GUTTER, _LEFT, _RIGHT = 1100, 30, 150, 80
_BAR, _GAP, _HEAD, _TOP = 15, 4, 28, 66
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f; }
.title { font-size: 17px; font-weight: 600; } .head { font-size: 13px; font-weight: 600; }
.dim { fill: #57606a; } .ours { font-weight: 600; }
.bar { fill: #8c98a8; } .bar.stock { fill: #5b7db1; } .bar.errands { fill: #d9822b; }
.bar.variant { fill: #e7b98a; }
.range { stroke: #24292f; stroke-width: 1; fill: none; } .back { fill: #ffffff; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .dim { fill: #9198a1; } .range { stroke: #e6edf3; } .back { fill: #0d1117; }
  .bar { fill: #6e7a8a; } .bar.variant { fill: #8a5a26; }
}
"""


def draw(result: Result) -> str:
    """The picture, as an SVG document. Bars are medians, whiskers run from the least to the most; two groups
    stand beside each other. Nobody has a bar in a group in which he was not measured."""
    wide = (_WIDTH - 3 * _GUTTER) / 2
    lines: list[str] = []
    y = float(_TOP)
    groups = [(key, title) for key, title in _GROUPS if _measured(result, key)]
    for start in range(0, len(groups), 2):
        deepest = 0.0
        for column, (key, title) in enumerate(groups[start : start + 2]):
            x = _GUTTER + column * (wide + _GUTTER)
            found = _measured(result, key)
            lines += _group(result, key, title, found, x, y, wide)
            deepest = max(deepest, _HEAD + len(found) * (_BAR + _GAP) + 18)
        y += deepest
    facts = result.machine
    rounds = max((len(found) for found in result.rounds.values()), default=0)
    about = (
        f"{result.sizes['tasks']:,.0f} tasks, rounds: {rounds}; {facts['cpus']} CPUs, "
        f"Python {facts['python']}, {facts['server']}; {result.at[:10]}"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y:.0f}" role="img">',
            "<title>Errands beside its peers</title>",
            f"<style>{_STYLE}</style>",
            f'<rect class="back" width="{_WIDTH}" height="{y:.0f}"/>',
            _text(_GUTTER, 28, "Errands beside its peers", "title"),
            _text(_GUTTER, 48, about, "dim"),
            *lines,
            "</svg>",
            "",
        ]
    )


def _measured(result: Result, key: str) -> dict[str, Summary]:
    return {name: found for name in result.rounds if (found := result.summary(name, key)) is not None}


def _group(
    result: Result, key: str, title: str, found: dict[str, Summary], x: float, y: float, wide: float
) -> list[str]:
    measure = MEASURES[key]
    better = "more is better" if measure.better is Better.HIGHER else "less is better"
    lines = [
        _text(x, y + 16, title, "head"),
        _text(x + wide, y + 16, f"{measure.unit}, {better}", "dim", "end"),
    ]
    longest = max(summary.most for summary in found.values()) or 1.0
    scale = (wide - _LEFT - _RIGHT) / longest
    # The best on top: what is asked of a picture is who comes where.
    order = sorted(found, key=lambda name: found[name].median, reverse=measure.better is Better.HIGHER)
    for row, name in enumerate(order):
        summary, top = found[name], y + _HEAD + row * (_BAR + _GAP)
        middle, left = top + _BAR / 2, x + _LEFT
        least, most = left + summary.least * scale, left + summary.most * scale
        ours = "ours" if name == "errands" else ""
        lines += [
            _text(left - 8, top + 12, result.contenders[name]["label"], ours, "end"),
            f'<rect class="bar {_kind(name)}" x="{left:.1f}" y="{top:.1f}" '
            f'width="{summary.median * scale:.1f}" height="{_BAR}"/>',
            f'<path class="range" d="M{least:.1f} {middle:.1f}H{most:.1f}M{least:.1f} {middle - 3:.1f}v6'
            f'M{most:.1f} {middle - 3:.1f}v6"/>',
            _text(most + 7, top + 12, number(summary.median), ours),
        ]
    return lines


def _kind(name: str) -> str:
    if name == "errands":
        return "errands"
    return "variant" if name.startswith("errands") else "stock" if name.startswith("celery") else "peer"


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
