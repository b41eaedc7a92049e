"""The arithmetic: what is measured, medians over rounds, ratios within rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

Round = Mapping[str, float]
"""One contender's figures of one round, by the keys of `MEASURES`."""


class Better(Enum):
    """Which way a figure is good."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True)
class Measure:
    """A figure: its key, what people call it, its unit, which way it is good."""

    key: str
    label: str
    unit: str
    better: Better = Better.LOWER


@dataclass(frozen=True)
class Summary:
    """A figure over all rounds."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Of at least one value.

        Raises:
            ValueError: there are none.
        """
        if not values:
            raise ValueError("no values to summarise")
        return cls(statistics.median(values), min(values), max(values))


def _of_a_drain(key: str, label: str) -> tuple[Measure, ...]:
    return (
        Measure(f"{key}.rate", label, "tasks/s", Better.HIGHER),
        Measure(f"{key}.cpu", "CPU of the worker", "s per 1,000"),
        Measure(f"{key}.server_cpu", "CPU of the server", "s per 1,000"),
        Measure(f"{key}.memory", "memory of the worker then", "MiB"),
        Measure(f"{key}.resident", "shared pages counted for each process", "MiB"),
        Measure(f"{key}.companion_cpu", "CPU of the beat", "s per 1,000"),
        Measure(f"{key}.companion_memory", "memory of the beat", "MiB"),
        Measure(f"{key}.record_lag", "ledger complete after", "s"),
    )


GROUPS: Mapping[str, tuple[Measure, ...]] = {
    "empty tasks": (
        *_of_a_drain("drain", "drained, results kept"),
        *_of_a_drain("bare", "drained, no results"),
        *_of_a_drain("default", "drained, as it comes, results kept"),
    ),
    "tasks that wait 20 ms": _of_a_drain("sleepers", "drained, results kept"),
    "sending": (
        Measure("accept.rate", "one by one", "calls/s", Better.HIGHER),
        Measure("accept.p50", "a call, median", "ms"),
        Measure("accept.p99", "a call, 99 %", "ms"),
        Measure("accept.cpu", "CPU of the sender", "s per 1,000"),
        Measure("many.rate", "many together", "tasks/s", Better.HIGHER),
        Measure("many.cpu", "CPU of the sender", "s per 1,000"),
    ),
    "an idle worker": (
        Measure("pickup.p50", "picks up a task, median", "ms"),
        Measure("pickup.p99", "picks up a task, 99 %", "ms"),
        Measure("ping.p50", "raw round trip, median", "ms"),
        Measure("ping.p99", "raw round trip, 99 %", "ms"),
        Measure("ping.rare", "raw round trip each 10 to 40 ms, median", "ms"),
        Measure("memory.idle", "memory", "MiB"),
        Measure("memory.idle_resident", "shared pages counted for each process", "MiB"),
    ),
    "asked of the server for a task": (
        Measure("commands.send", "sent to it when sending", "commands"),
        Measure("commands.run", "sent to it when running, with result", "commands"),
        Measure("commands.send_all", "executed when sending, scripts included", "commands"),
        Measure("commands.run_all", "executed when running, scripts included", "commands"),
    ),
}

MEASURES: Mapping[str, Measure] = {measure.key: measure for group in GROUPS.values() for measure in group}


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of `values` that at least `percent` of them do not exceed (the nearest rank).

    Raises:
        ValueError: there are no values, or `percent` is not in 0 < percent <= 100.
    """
    if not values or not 0 < percent <= 100:
        raise ValueError("percentile needs values, and a percentage over 0 and up to 100")
    rank = -(-len(values) * percent // 100)
    return sorted(values)[int(rank) - 1]


def summary(rounds: Sequence[Round], key: str) -> Summary | None:
    """A figure over the rounds; None where this contender has no such thing."""
    values = [figures[key] for figures in rounds if key in figures]
    return Summary.of(values) if values else None


def ratio(ours: Sequence[Round], theirs: Sequence[Round], key: str, other: str = "") -> float | None:
    """How many times theirs ours is: the median of the ratios within each round, where both met the same
    machine. None where either has no such figure, or theirs is nothing.

    Args:
        ours: rounds of one contender.
        theirs: the same rounds of another.
        key: of the figure.
        other: theirs, where it is called otherwise.
    """
    ratios = [
        mine[key] / known[other or key]
        for mine, known in zip(ours, theirs, strict=True)
        if key in mine and known.get(other or key)
    ]
    return statistics.median(ratios) if ratios else None
