"""The sending side, in a process of its own so that no two systems share one. Prints its figures as JSON.

`python -m benchmarks.sender <contender> <workload> <count>` sends one task after the other, as a web
application does; `python -m benchmarks.sender <contender> --probe <count>` sends to an idle worker and waits
for each.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.contender import BenchmarkError, load
from benchmarks.work import EMPTY, WORKLOADS, Tally, Workload

WARM_UP = 20
_PROBE_SECONDS = 30.0


def send(deliver: Callable[..., object], work: Workload, count: int) -> dict[str, float]:
    """Send `count` tasks after a warm-up, which makes connections. Seconds and CPU seconds of the rest."""
    for _ in range(WARM_UP):
        deliver(*work.args)
    cpu, start = time.process_time(), time.perf_counter()
    for _ in range(count):
        deliver(*work.args)
    seconds = time.perf_counter() - start
    return {"sent": count + WARM_UP, "seconds": seconds, "cpu": time.process_time() - cpu}


def probe(deliver: Callable[..., object], tally: Tally, count: int) -> dict[str, list[float]]:
    """Send `count` tasks to an idle worker, each when the one before is done.

    Returns:
        Seconds from just before each was sent until its body ran.
    """
    waits = []
    for turn in range(WARM_UP + count):
        # What a worker does after a task must be over too; and no two probes should meet it in one phase.
        time.sleep(random.uniform(0.01, 0.04))
        before, sent = tally.count(), time.monotonic()
        deliver()
        while tally.count() == before:
            if time.monotonic() - sent > _PROBE_SECONDS:
                raise BenchmarkError(f"an idle worker took nothing for {_PROBE_SECONDS:g} s")
            time.sleep(0.001)
        if turn >= WARM_UP:
            waits.append(tally.times(before)[0] - sent)
    return {"waits": waits}


def main() -> None:
    """Do as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("contender")
    parser.add_argument("work", nargs="?", default=EMPTY.name)
    parser.add_argument("count", type=int)
    parser.add_argument("--probe", action="store_true")
    options = parser.parse_args()
    deliver = load(options.contender).sender(options.work)
    if options.probe:
        answer: object = probe(deliver, Tally(Path(os.environ["BENCHMARK_TALLY"])), options.count)
    else:
        answer = send(deliver, WORKLOADS[options.work], options.count)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
