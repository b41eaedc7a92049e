"""The course that each contender goes through once in every round."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from benchmarks.contender import BenchmarkError, Contender
from benchmarks.figures import percentile
from benchmarks.observe import ServerUse, cpu_seconds, resident_mib
from benchmarks.stand import Stand, stand
from benchmarks.work import WORKLOADS, Workload

PROCESSES = 2
ALL = tuple(WORKLOADS.values())
_START_SECONDS = 60.0
_SLOWEST_RATE = 20.0  # tasks a second; a worker that does fewer is taken to hang
_RUN_UP = 0.05


def run(
    name: str, contender: Contender, tasks: int, probes: int, works: Sequence[Workload] = ALL
) -> dict[str, float]:
    """Measure everything once, on a fresh server.

    Args:
        name: of the contender's file.
        tasks: how many of each workload; see `Workload.count`.
        probes: tasks sent to an idle worker.
        works: the workloads, in this order.

    Returns:
        Figures by the keys of `figures.MEASURES`.

    Raises:
        BenchmarkError: a process failed, or tasks were lost or ran twice.
    """
    found: dict[str, float] = {}
    with stand(name, contender) as place:
        for work in works:
            figures = _workload(place, work, work.count(tasks))
            found |= {f"{work.name}.{key}": value for key, value in figures.items()}
        found |= _idle(place, probes)
    return found


def _workload(place: Stand, work: Workload, count: int) -> dict[str, float]:
    """Send everything first, then start a worker on it: neither side's speed hides the other's."""
    client, done = place.place.client, place.tally.count()
    first, companions = ServerUse.of(client), cpu_seconds(place.companions)
    sending = place.call(work.name, str(count))
    sent = int(sending["sent"])
    sending_use = ServerUse.of(client) - first
    # Whatever the sending left to be written down is not the worker's to wait for.
    place.wait(place.recorded, "recording what was sent", _START_SECONDS + count / _SLOWEST_RATE)
    with place.running("worker", place.contender.worker(PROCESSES)) as worker:
        run_up = done + max(1, round(sent * _RUN_UP))
        place.wait(lambda: place.tally.count() >= run_up, "the worker's start", _START_SECONDS)
        begun, use, cpu = place.tally.count(), ServerUse.of(client), cpu_seconds([worker])
        start = time.monotonic()
        longest = _START_SECONDS + count / _SLOWEST_RATE
        place.wait(lambda: place.tally.count() >= done + sent, "the work", longest)
        place.wait(place.settled, "acknowledging the work", _START_SECONDS)
        end = time.monotonic()
        cpu, use = cpu_seconds([worker]) - cpu, ServerUse.of(client) - use
        memory = resident_mib([worker])
        place.wait(place.recorded, "recording the work", _START_SECONDS + count / _SLOWEST_RATE)
        lag = time.monotonic() - end
    ran = place.tally.count() - done
    if ran != sent:
        raise BenchmarkError(f"{place.contender.label}: {sent} tasks were sent, but {ran} ran")
    drained = done + sent - begun
    figures = {
        "enqueue_rate": count / sending["seconds"],
        "drain_rate": drained / (end - start),
        "sender_cpu": 1000 * sending["cpu"] / count,
        "worker_cpu": 1000 * cpu / drained,
        "server_cpu": 1000 * (ServerUse.of(client) - first).cpu / sent,
        "enqueue_commands": sending_use.commands / sent,
        "enqueue_reads": sending_use.reads / sent,
        "drain_commands": use.commands / drained,
        "drain_reads": use.reads / drained,
        "worker_memory": memory,
    }
    if place.companions:
        figures["companion_cpu"] = 1000 * (cpu_seconds(place.companions) - companions) / sent
        figures["record_lag"] = lag
    return figures


def _idle(place: Stand, probes: int) -> dict[str, float]:
    """How soon an idle worker begins a task, and what it weighs."""
    with place.running("worker", place.contender.worker(PROCESSES)):
        waits: Iterable[float] = place.call("--probe", str(probes))["waits"]
    milliseconds = [1000 * wait for wait in waits]
    found = {"pickup_p50": percentile(milliseconds, 50), "pickup_p99": percentile(milliseconds, 99)}
    if place.companions:
        found["companion_memory"] = resident_mib(place.companions)
    return found
