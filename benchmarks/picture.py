"""A result as a picture: one group of bars for each figure that matters most, drawn as SVG by hand."""

from __future__ import annotations

from html import escape

from benchmarks.figures import Better, Summary
from benchmarks.report import Result, number

_GROUPS = (
    ("empty.enqueue_rate", "Sending, empty task", "tasks/s", Better.HIGHER),
    ("arguments.enqueue_rate", "Sending, three typed arguments", "tasks/s", Better.HIGHER),
    ("empty.drain_rate", "Draining, empty task", "tasks/s", Better.HIGHER),
    ("arguments.drain_rate", "Draining, three typed arguments", "tasks/s", Better.HIGHER),
    ("sleeper.drain_rate", "Draining, each waits 20 ms", "tasks/s", Better.HIGHER),
    ("pickup_p50", "Pick-up by an idle worker", "ms", Better.LOWER),
)
_WIDTH, _LEFT, _RIGHT = 760, 130, 110
_BAR, _GAP, _HEAD, _TOP = 18, 5, 30, 62
_COLOURS = ("#8a94a6", "#5b7db1", "#d9822b", "#4c9f70", "#a463b5", "#c0504d")
_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f; }
.title { font-size: 17px; font-weight: 600; } .head { font-weight: 600; }
.dim { fill: #6e7781; font-size: 12px; }
.range { stroke: #24292f; stroke-width: 1.2; } .back { fill: #ffffff; }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3; } .dim { fill: #9198a1; } .range { stroke: #e6edf3; } .back { fill: #0d1117; }
}
"""


def draw(result: Result) -> str:
    """The picture, as an SVG document. Bars are medians, whiskers run from the least to the most."""
    names = list(result.rounds)
    height_of_group = _HEAD + len(names) * (_BAR + _GAP) + 14
    height = _TOP + len(_GROUPS) * height_of_group + 10
    facts = result.machine
    rounds = len(result.rounds[names[0]])
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" role="img">',
        "<title>Errands beside stock Celery</title>",
        f"<style>{_STYLE}</style>",
        f'<rect class="back" width="{_WIDTH}" height="{height}"/>',
        _text(16, 26, "Errands beside stock Celery", "title"),
        _text(
            16, 46,
            f"{result.tasks:,} tasks, {result.processes} processes, {rounds} rounds; {facts['cpus']} CPUs, "
            f"Python {facts['python']}, {facts['server']}, Celery {facts['packages'].get('celery', '')}; "
            f"{result.at[:10]}",
            "dim",
        ),
    ]  # fmt: skip
    y = _TOP
    for key, title, unit, better in _GROUPS:
        found = {name: summary for name in names if (summary := result.summary(name, key)) is not None}
        lines.append(_text(16, y + 18, title, "head"))
        lines.append(_text(_WIDTH - 16, y + 18, f"{unit}, {better.value} is better", "dim", "end"))
        lines += _bars(result, names, found, unit, y + _HEAD)
        y += height_of_group
    return "\n".join([*lines, "</svg>", ""])


def _bars(result: Result, names: list[str], found: dict[str, Summary], unit: str, y: float) -> list[str]:
    longest = max((summary.most for summary in found.values()), default=0.0) or 1.0
    scale = (_WIDTH - _LEFT - _RIGHT) / longest
    lines = []
    for index, name in enumerate(names):
        summary = found.get(name)
        if summary is None:
            continue
        top, middle = y + index * (_BAR + _GAP), y + index * (_BAR + _GAP) + _BAR / 2
        colour = _COLOURS[index % len(_COLOURS)]
        least, most = _LEFT + summary.least * scale, _LEFT + summary.most * scale
        lines += [
            _text(_LEFT - 8, top + 13, result.contenders[name]["label"], "", "end"),
            f'<rect x="{_LEFT}" y="{top}" width="{summary.median * scale:.1f}" height="{_BAR}" '
            f'fill="{colour}"/>',
            f'<path class="range" d="M{least:.1f} {middle}H{most:.1f}M{least:.1f} {middle - 4}v8'
            f'M{most:.1f} {middle - 4}v8"/>',
            _text(most + 8, top + 13, f"{number(summary.median)} {unit}"),
        ]
    return lines


def _text(x: float, y: float, text: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'
