"""What is measured, each a function whose first words are its definition.

Each works on a fresh stand, does the work with everything checked (nothing lost, nothing twice, results
really there), and returns figures by the keys of `figures.MEASURES`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from benchmarks.contender import (
    ACCEPT,
    BARE,
    COMMANDS,
    DEFAULT,
    DRAIN,
    MANY,
    PICKUP,
    SLEEPERS,
    BenchmarkError,
    Contender,
)  # fmt: skip
from benchmarks.figures import percentile
from benchmarks.monitor import Monitor
from benchmarks.observe import Memory, cpu_seconds, server_cpu
from benchmarks.sender import pause
from benchmarks.stand import Stand, stand
from benchmarks.work import EMPTY, SLEEPER

Figures = dict[str, float]

RUN_UP = 0.05
_START_SECONDS = 60.0
_SLOWEST_RATE = 20.0  # tasks a second; a worker that does fewer is taken to hang
_ROUND_TRIPS, _RARE_ROUND_TRIPS = 500, 100
_COUNTED_CALLS_SECONDS = 0.3


@dataclass(frozen=True)
class Sizes:
    """How much of each is done.

    Attributes:
        tasks: empty tasks, for a system with a share of 1.
        sleepers: tasks that wait 20 ms.
        seconds: of sending one by one.
        probes: tasks sent to an idle worker.
        counted: tasks whose commands are counted.
    """

    tasks: int
    sleepers: int
    seconds: float
    probes: int
    counted: int


def drain(contender: Contender, sizes: Sizes) -> Figures:
    """Empty tasks, results kept: all are in the queue, the worker is started on them; from the body of the
    one that makes 5 % to the body of the last."""
    return _drain(contender, DRAIN, EMPTY, contender.count(sizes.tasks))


def bare(contender: Contender, sizes: Sizes) -> Figures:
    """`drain`, results switched off in the way of the system's documentation."""
    return _drain(contender, BARE, EMPTY, contender.count(sizes.tasks), results=False)


def default(contender: Contender, sizes: Sizes) -> Figures:
    """`drain`, set up as the documentation starts, a quarter as many tasks."""
    return _drain(contender, DEFAULT, EMPTY, max(50, contender.count(sizes.tasks) // 4))


def sleepers(contender: Contender, sizes: Sizes) -> Figures:
    """`drain` with tasks that wait 20 ms, results kept, as many at a time as is best for the system."""
    return _drain(contender, SLEEPERS, SLEEPER, sizes.sleepers)


def accept(contender: Contender, sizes: Sizes) -> Figures:
    """Tasks sent one by one, each when the call before returned, by one process, no worker running: calls a
    second, and how long the median and the slowest hundredth took."""
    with stand(contender, contender.setting(ACCEPT)) as place:
        sending = place.send("accept", EMPTY, sizes.seconds)
        calls = [1000 * seconds for seconds in sending["calls"]]
        return {
            "accept.rate": len(calls) / sending["seconds"],
            "accept.p50": percentile(calls, 50),
            "accept.p99": percentile(calls, 99),
            "accept.cpu": 1000 * sending["cpu"] / len(calls),
        }


def many(contender: Contender, sizes: Sizes) -> Figures:
    """Tasks sent together by one process in the best way that the documentation knows (a call for many, a
    pipeline, or many calls at once), no worker running."""
    with stand(contender, contender.setting(MANY)) as place:
        count = contender.count(sizes.tasks) // 2
        sending = place.send("many", EMPTY, count)
        return {"many.rate": count / sending["seconds"], "many.cpu": 1000 * sending["cpu"] / count}


def pickup(contender: Contender, sizes: Sizes) -> Figures:
    """One task sent to an idle worker, and the next 10 to 40 ms after its body ran: from just before the call
    until the body. Beside it the raw round trip, PING from the same machine at the same time, and the memory
    of the worker afterwards."""
    with stand(contender, contender.setting(PICKUP)) as place, place.working():
        # The first probes wait for the worker to be up; they are its warm-up.
        waits = [1000 * wait for wait in place.send("probe", EMPTY, sizes.probes)["waits"]]
        memory, trips = Memory.of(place.workers), _round_trips(place, _ROUND_TRIPS)
        # As rare as the tasks were: what has not run for some milliseconds runs slowly, also in a server.
        rare = _round_trips(place, _RARE_ROUND_TRIPS, pauses=True)
    return {
        "pickup.p50": percentile(waits, 50),
        "pickup.p99": percentile(waits, 99),
        "ping.p50": percentile(trips, 50),
        "ping.p99": percentile(trips, 99),
        "ping.rare": percentile(rare, 50),
        "memory.idle": memory.proportional,
        "memory.idle_resident": memory.resident,
    }


def commands(contender: Contender, sizes: Sizes) -> Figures:
    """What the server is asked for each task whose result is kept, to send it (one by one) and to run it:
    sent by clients, and executed in all, those inside scripts included. Counted by MONITOR, the worker's
    start left out."""
    with stand(contender, contender.setting(COMMANDS)) as place:
        with Monitor(place.place.client) as monitor:
            first = place.send("accept", EMPTY, _COUNTED_CALLS_SECONDS)["sent"]
            sent, within = monitor.counted()
        sending = {"commands.send": sent / first, "commands.send_all": (sent + within) / first}
        waiting = first + place.send("many", EMPTY, sizes.counted)["sent"]
        with Monitor(place.place.client) as monitor, place.working():
            place.wait(lambda: place.tally.count() >= _run_up(waiting), "the worker's start", _START_SECONDS)
            begun, before = place.tally.count(), monitor.counted()
            _finish(place, waiting)
            sent, within = (now - then for now, then in zip(monitor.counted(), before, strict=True))
    ran = waiting - begun
    return {**sending, "commands.run": sent / ran, "commands.run_all": (sent + within) / ran}


def _drain(contender: Contender, measure: str, task: str, count: int, *, results: bool = True) -> Figures:
    with stand(contender, contender.setting(measure), results=results) as place:
        client = place.place.client
        sent = int(place.send("many", task, count)["sent"])
        # Whatever the sending left to be written down is not the worker's to wait for.
        place.wait(place.recorded, "recording what was sent", _longest(count))
        companions = cpu_seconds(place.companions)
        with place.working():
            place.wait(lambda: place.tally.count() >= _run_up(sent), "the worker's start", _START_SECONDS)
            begun, cpu, server = place.tally.count(), cpu_seconds(place.workers), server_cpu(client)
            _finish(place, sent)
            end = time.monotonic()
            cpu, server = cpu_seconds(place.workers) - cpu, server_cpu(client) - server
            memory = Memory.of(place.workers)
            place.wait(place.recorded, "recording the work", _longest(count))
            lag = time.monotonic() - end
            if results:
                place.wait(lambda: place.stored() >= sent, "storing all results", _START_SECONDS)
        times, ran = sorted(place.tally.times()), place.tally.count()
        if ran != sent:
            raise BenchmarkError(f"{contender.label}: {sent} tasks were sent, but {ran} ran")
        first = _run_up(sent)
        counted = max(sent - begun, 1)  # of a hundred tasks all may be done before the first look
        figures = {
            "rate": (sent - first) / (times[-1] - times[first - 1]),
            "cpu": 1000 * cpu / counted,
            "server_cpu": 1000 * server / counted,
            "memory": memory.proportional,
            "resident": memory.resident,
        }
        if place.companions:
            figures["companion_cpu"] = 1000 * (cpu_seconds(place.companions) - companions) / counted
            figures["companion_memory"] = Memory.of(place.companions).proportional
            figures["record_lag"] = lag
    return {f"{measure}.{key}": value for key, value in figures.items()}


def _finish(place: Stand, sent: int) -> None:
    place.wait(lambda: place.tally.count() >= sent, "the work", _longest(sent))
    place.wait(place.settled, "acknowledging the work", _START_SECONDS)


def _longest(count: int) -> float:
    return _START_SECONDS + count / _SLOWEST_RATE


def _run_up(sent: int) -> int:
    return max(1, round(sent * RUN_UP))


def _round_trips(place: Stand, count: int, *, pauses: bool = False) -> list[float]:
    client, taken = place.place.client, []
    for _ in range(count):
        if pauses:
            time.sleep(pause())
        start = time.perf_counter()
        client.ping()
        taken.append(1000 * (time.perf_counter() - start))
    return taken


COURSE: Mapping[str, Callable[[Contender, Sizes], Figures]] = {
    DRAIN: drain,
    BARE: bare,
    DEFAULT: default,
    SLEEPERS: sleepers,
    ACCEPT: accept,
    MANY: many,
    PICKUP: pickup,
    COMMANDS: commands,
}


def run(contender: Contender, sizes: Sizes, measures: tuple[str, ...]) -> Figures:
    """Measure each of these once, each on a fresh server; those that the contender doesn't take part in are
    left out.

    Raises:
        BenchmarkError: a process failed, or tasks were lost or ran twice.
        NotThere: it cannot be measured here.
    """
    found: Figures = {}
    for measure, measured in COURSE.items():
        skipped = measure == DEFAULT and contender.default is None
        if measure in measures and measure in contender.measures and not skipped:
            found |= measured(contender, sizes)
    return found
