"""A result: what was measured where, as JSON to keep and as tables to read."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks import figures
from benchmarks.figures import MEASURES, Better, Round, Summary

_EVEN = 0.1  # ratios closer to 1 than this are noise

COLUMNS = (
    ("drain.rate", "drain,\nresults"),
    ("bare.rate", "no\nresults"),
    ("default.rate", "as it\ncomes"),
    ("sleepers.rate", "wait\n20 ms"),
    ("accept.rate", "send,\none/s"),
    ("accept.p99", "99 %\nms"),
    ("many.rate", "send,\nmany/s"),
    ("pickup.p50", "pick-up\nms"),
    ("pickup.p99", "99 %\nms"),
    ("drain.cpu", "CPU s/\n1,000"),
    ("memory.idle", "MiB\nidle"),
    ("drain.memory", "MiB\ndrained"),
    ("commands.send", "asked,\nsend"),
    ("commands.run", "asked,\nrun"),
    ("commands.run_all", "done,\nrun"),
)


@dataclass
class Result:
    """Everything about one benchmark.

    Attributes:
        at: when it began, UTC, ISO 8601.
        sizes: how much of each was done.
        machine: processor, server, load.
        contenders: label, settings, versions by name, in the tables' order.
        left_out: who could not be measured, and why.
        rounds: figures of each round, by contender.
    """

    at: str
    sizes: dict[str, float]
    machine: dict[str, Any]
    contenders: dict[str, dict[str, Any]]
    left_out: dict[str, str] = field(default_factory=dict)
    rounds: dict[str, list[Round]] = field(default_factory=dict)

    def summary(self, name: str, key: str) -> Summary | None:
        """A figure of a contender over all rounds."""
        return figures.summary(self.rounds.get(name, ()), key)

    def median(self, name: str, key: str) -> float | None:
        """The middle of that figure over all rounds."""
        found = self.summary(name, key)
        return None if found is None else found.median

    def ratio(self, name: str, base: str, key: str, other: str = "") -> float | None:
        """That figure as a multiple of `base`'s, which may be called otherwise there."""
        if name not in self.rounds or base not in self.rounds:
            return None
        return figures.ratio(self.rounds[name], self.rounds[base], key, other)

    def best(self, key: str, better: Better, among: Sequence[str] = ()) -> str:
        """The peer with the best median, of these or of all; nobody where none was measured."""
        peers = among or [name for name in self.rounds if not name.startswith("errands")]
        found = {name: median for name in peers if (median := self.median(name, key)) is not None}
        if not found:
            return ""
        choose = max if better is Better.HIGHER else min
        return choose(found, key=lambda name: found[name])

    def to_json(self) -> dict[str, Any]:
        """The rounds as they were, the medians made of them, and what is said of the targets."""
        from benchmarks.targets import judge

        medians = {
            name: {key: asdict(found) for key in MEASURES if (found := self.summary(name, key)) is not None}
            for name in self.rounds
        }
        return {**asdict(self), "summary": medians, "targets": [asdict(verdict) for verdict in judge(self)]}


def machine(server: str) -> dict[str, Any]:
    """Where this runs."""
    return {
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "server": server,
        "load_before": round(os.getloadavg()[0], 2),
    }


def show(result: Result, console: Console) -> None:
    """Print the tables, with what is needed to read them."""
    if result.rounds:
        console.print(_overview(result))
    if verdicts := list(_verdicts(result)):
        table = Table(title="Targets")
        for heading in ("", "found", "reached", "dream"):
            table.add_column(heading)
        for row in verdicts:
            table.add_row(*row)
        console.print(table)
    for line in _notes(result):
        console.print(Text(line, style="dim"))


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def versions_of(told: Mapping[str, Any]) -> str:
    """What a contender is made of, with versions."""
    versions: Mapping[str, str] = told["versions"]
    return ", ".join(f"{name} {found}" for name, found in versions.items())


def where(result: Result) -> str:
    """The machine, and how busy it was before."""
    facts = result.machine
    return (
        f"{facts['processor']}, {facts['cpus']} CPUs, {facts['system']}, Python {facts['python']}, "
        f"{facts['server']}; load {facts['load_before']} before the start"
    )


def _overview(result: Result) -> Table:
    rounds = max(len(found) for found in result.rounds.values())
    title = f"{result.sizes['tasks']:,.0f} tasks, median of {rounds} rounds" if rounds > 1 else "one round"
    table = Table(title=title)
    table.add_column("", no_wrap=True)
    columns = [
        (key, heading)
        for key, heading in COLUMNS
        if any(result.median(name, key) is not None for name in result.rounds)
    ]
    for _, heading in columns:
        table.add_column(heading, justify="right", no_wrap=True)
    for name in result.rounds:
        cells = [result.median(name, key) for key, _ in columns]
        table.add_row(
            result.contenders[name]["label"], *("" if cell is None else number(cell) for cell in cells)
        )
    if "errands" in result.rounds:
        table.add_section()
        table.add_row("Errands ÷ best peer", *(_beside_the_best(result, key) for key, _ in columns))
    return table


def _beside_the_best(result: Result, key: str) -> Text:
    better = MEASURES[key].better
    best = result.best(key, better)
    value = result.ratio("errands", best, key) if best else None
    if value is None:
        return Text("")
    good = value > 1 if better is Better.HIGHER else value < 1
    style = "" if abs(value - 1) < _EVEN else "green" if good else "red"
    return Text(f"{value:.2f}", style=style)


def _verdicts(result: Result) -> Iterator[tuple[str, str, Text, Text]]:
    from benchmarks.targets import judge

    for verdict in judge(result):
        if verdict.reached is None:
            yield verdict.label, "not measured", Text(""), Text("")
            continue
        reached = Text("reached", "green") if verdict.reached else Text("missed", "red")
        dream = "" if verdict.dream is None else "reached" if verdict.dream else "not yet"
        yield verdict.label, verdict.found, reached, Text(dream)


def _notes(result: Result) -> Iterator[str]:
    yield (
        "drain … wait 20 ms: tasks a second. CPU, MiB: of the whole worker, a shared page divided among "
        "those that share it. asked: commands that clients send the server for a task; done: those in "
        "scripts as well."
    )
    for told in result.contenders.values():
        yield f"{told['label']} ({versions_of(told)}): {told['settings'].get('best', '')}"
    for name, why in result.left_out.items():
        yield f"LEFT OUT: {name}: {why}"
    yield where(result)


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
