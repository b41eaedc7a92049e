"""A result: what was measured where, as JSON to keep and as a table to read."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from benchmarks import figures
from benchmarks.contender import Contender
from benchmarks.figures import Better, Measure, Round, Summary
from benchmarks.work import WORKLOADS

_EVEN = 0.1  # ratios closer to 1 than this are noise


@dataclass
class Result:
    """Everything about one benchmark.

    Attributes:
        at: when it began, UTC, ISO 8601.
        tasks: asked for per workload.
        machine: processor, versions, load.
        contenders: label and set-up by name, in the table's order.
        rounds: figures of each round, by contender.
    """

    at: str
    tasks: int
    processes: int
    machine: dict[str, Any]
    contenders: dict[str, dict[str, str]]
    rounds: dict[str, list[Round]] = field(default_factory=dict)

    def summary(self, name: str, key: str) -> Summary | None:
        """A figure of a contender over all rounds."""
        return figures.summary(self.rounds[name], key)

    def ratio(self, name: str, base: str, key: str) -> float | None:
        """That figure as a multiple of `base`'s."""
        return figures.ratio(self.rounds[name], self.rounds[base], key)

    def to_json(self) -> dict[str, Any]:
        """The rounds as they were, and the medians made of them."""
        keys = [measure.key for group in figures.measures(list(WORKLOADS)).values() for measure in group]
        medians = {
            name: {key: asdict(found) for key in keys if (found := self.summary(name, key)) is not None}
            for name in self.rounds
        }
        return {**asdict(self), "summary": medians}


def machine(contenders: Sequence[Contender], server: str) -> dict[str, Any]:
    """Where this runs, and with what."""
    packages = dict.fromkeys(package for contender in contenders for package in contender.packages)
    return {
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "server": server,
        "packages": {package: _version(package) for package in packages},
        "load_before": round(os.getloadavg()[0], 2),
    }


def show(result: Result, console: Console) -> None:
    """Print the table, with what is needed to read it."""
    base, *others = result.rounds
    contenders = result.contenders
    rounds = len(result.rounds[base])
    how = f"median of {rounds} rounds (range)" if rounds > 1 else "one round"
    table = Table(title=f"{result.tasks:,} tasks, {result.processes} processes, {how}")
    table.add_column("", no_wrap=True)
    for name in result.rounds:
        table.add_column(contenders[name]["label"], justify="right", no_wrap=True)
    ours = others[-1] if others else None
    bases = [name for name in result.rounds if name != ours] if ours else []
    for name in bases:
        table.add_column(f"{contenders[str(ours)]['label']} ÷ {contenders[name]['label']}", justify="right")
    measured = {key for each in result.rounds.values() for found in each for key in found}
    detailed = True
    for work, group in figures.measures(list(WORKLOADS)).items():
        told = [measure for measure in group if measure.key in measured and (detailed or not measure.detail)]
        if not told:
            continue
        detailed = False
        table.add_section()
        table.add_row(Text(WORKLOADS[work].label if work else "idle", style="bold"))
        for measure in told:
            cells = [_cell(result.summary(name, measure.key)) for name in result.rounds]
            ratios = [_ratio(result.ratio(str(ours), name, measure.key), measure) for name in bases]
            table.add_row(f"  {measure.label}, {measure.unit}", *cells, *ratios)
    console.print(Group(table, *_notes(result)))


def number(value: float) -> str:
    """Three significant digits, no exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _cell(found: Summary | None) -> str:
    if found is None:
        return ""
    text, least, most = number(found.median), number(found.least), number(found.most)
    return text if least == most else f"{text} ({least}–{most})"


def _ratio(value: float | None, measure: Measure) -> Text:
    if value is None:
        return Text("")
    good = value > 1 if measure.better is Better.HIGHER else value < 1
    style = "" if abs(value - 1) < _EVEN else "green" if good else "red"
    return Text(f"{value:.2f}", style=style)


def _notes(result: Result) -> list[Text]:
    facts = result.machine
    packages: Mapping[str, str] = facts["packages"]
    lines = [f"{told['label']}: {told['setup']}" for told in result.contenders.values()]
    lines += [
        f"{facts['processor']}, {facts['cpus']} CPUs; load {facts['load_before']} before the start",
        f"{facts['system']}, Python {facts['python']}, {facts['server']}, "
        + ", ".join(f"{name} {found}" for name, found in packages.items()),
    ]
    return [Text(line, style="dim") for line in lines]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # a checkout that was not installed
        return "of this checkout"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()
