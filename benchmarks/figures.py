"""The arithmetic: what is measured, medians over rounds, ratios within rounds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

Round = Mapping[str, float]
"""One contender's figures of one round, by the keys of `MEASURES`."""


class Better(Enum):
    """Which way a figure is good."""

    HIGHER = "higher"
    LOWER = "lower"


@dataclass(frozen=True)
class Measure:
    """A figure: its key, what people call it, its unit, which way it is good; in detail: only the first
    workload's is worth a line in the table."""

    key: str
    label: str
    unit: str
    better: Better = Better.LOWER
    detail: bool = False


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


_OF_A_WORKLOAD = (
    Measure("enqueue_rate", "sent", "/s", Better.HIGHER),
    Measure("drain_rate", "drained", "/s", Better.HIGHER),
    Measure("sender_cpu", "CPU to send", "ms/task", detail=True),
    Measure("worker_cpu", "CPU of the worker", "ms/task"),
    Measure("companion_cpu", "CPU of the beat", "ms/task", detail=True),
    Measure("server_cpu", "CPU of the server", "ms/task", detail=True),
    Measure("enqueue_commands", "commands to send", "/task", detail=True),
    Measure("drain_commands", "commands to drain", "/task", detail=True),
    Measure("enqueue_reads", "round trips to send", "/task", detail=True),
    Measure("drain_reads", "round trips to drain", "/task", detail=True),
    Measure("record_lag", "ledger complete after", "s", detail=True),
    Measure("worker_memory", "memory of the worker", "MiB", detail=True),
)
_OF_ALL = (
    Measure("pickup_p50", "pick-up when idle, median", "ms"),
    Measure("pickup_p99", "pick-up when idle, 99 %", "ms"),
    Measure("companion_memory", "memory of the beat", "MiB"),
)


def measures(workloads: Sequence[str]) -> dict[str, list[Measure]]:
    """All measures, by workload; those of no workload in particular under the empty name."""
    found = {
        name: [replace(measure, key=f"{name}.{measure.key}") for measure in _OF_A_WORKLOAD]
        for name in workloads
    }
    return {**found, "": list(_OF_ALL)}


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


def ratio(ours: Sequence[Round], theirs: Sequence[Round], key: str) -> float | None:
    """How many times theirs ours is: the median of the ratios within each round, where both met the same
    machine. None where either has no such figure, or theirs is nothing."""
    ratios = [
        mine[key] / other[key]
        for mine, other in zip(ours, theirs, strict=True)
        if key in mine and other.get(key)
    ]
    return statistics.median(ratios) if ratios else None
