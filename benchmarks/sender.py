"""The sending side, in a process of its own in the contender's environment. Prints its figures as JSON.

`python -m benchmarks.sender <program> accept <task> <seconds>` sends one task after the other, as a web
application does; `… many <task> <count>` sends them together, as well as the system can;
`… probe <task> <count>` sends to an idle worker, and the next one when that one ran.

Nothing but the standard library here: see `program.py`.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from benchmarks.program import ABSENT, Absent, Blocking, Looping
from benchmarks.work import Tally

WARM_UP = 20
_PROBE_SECONDS = 30.0
_POLL_SECONDS = 0.0005


def accept(one: Callable[[], object], seconds: float) -> dict[str, object]:
    """Send one after the other for some seconds, after a warm-up, which makes connections.

    Returns:
        How many were sent in all, and of those after the warm-up: seconds and CPU seconds of all, seconds
        of each.
    """
    for _ in range(WARM_UP):
        one()
    calls: list[float] = []
    cpu, start = time.process_time(), time.perf_counter()
    last = start
    while last - start < seconds:
        one()
        now = time.perf_counter()
        calls.append(now - last)
        last = now
    return _accepted(calls, last - start, time.process_time() - cpu)


async def accept_on_loop(one: Callable[[], Awaitable[object]], seconds: float) -> dict[str, object]:
    """`accept`, each call awaited before the next."""
    for _ in range(WARM_UP):
        await one()
    calls: list[float] = []
    cpu, start = time.process_time(), time.perf_counter()
    last = start
    while last - start < seconds:
        await one()
        now = time.perf_counter()
        calls.append(now - last)
        last = now
    return _accepted(calls, last - start, time.process_time() - cpu)


def probe(one: Callable[[], object], tally: Tally, count: int) -> dict[str, object]:
    """Send `count` tasks to an idle worker, each when the one before is done.

    Returns:
        Seconds from just before each was sent until its body ran.
    """
    waits = []
    for turn in range(WARM_UP + count):
        time.sleep(pause())
        before, sent = tally.count(), time.monotonic()
        one()
        while tally.count() == before:
            _not_for_ever(sent)
            time.sleep(_POLL_SECONDS)
        if turn >= WARM_UP:
            waits.append(tally.times(before)[0] - sent)
    return {"sent": WARM_UP + count, "waits": waits}


async def probe_on_loop(one: Callable[[], Awaitable[object]], tally: Tally, count: int) -> dict[str, object]:
    """`probe`, the call awaited."""
    waits = []
    for turn in range(WARM_UP + count):
        await asyncio.sleep(pause())
        before, sent = tally.count(), time.monotonic()
        await one()
        while tally.count() == before:
            _not_for_ever(sent)
            await asyncio.sleep(_POLL_SECONDS)
        if turn >= WARM_UP:
            waits.append(tally.times(before)[0] - sent)
    return {"sent": WARM_UP + count, "waits": waits}


def run(sender: Blocking | Looping, what: str, task: str, amount: float) -> dict[str, object]:
    """Do one of the three things, on a loop where the system wants one."""
    if isinstance(sender, Looping):
        return asyncio.run(_run_on_loop(sender, what, task, amount))
    if what == "accept":
        return accept(lambda: sender.one(task), amount)
    if what == "probe":
        return probe(lambda: sender.one(task), _tally(), int(amount))
    sender.many(task, 1)
    cpu, start = time.process_time(), time.perf_counter()
    sender.many(task, int(amount))
    return _sent_together(int(amount), time.perf_counter() - start, time.process_time() - cpu)


async def _run_on_loop(sender: Looping, what: str, task: str, amount: float) -> dict[str, object]:
    async with sender.opened():
        if what == "accept":
            return await accept_on_loop(lambda: sender.one(task), amount)
        if what == "probe":
            return await probe_on_loop(lambda: sender.one(task), _tally(), int(amount))
        await sender.many(task, 1)
        cpu, start = time.process_time(), time.perf_counter()
        await sender.many(task, int(amount))
        return _sent_together(int(amount), time.perf_counter() - start, time.process_time() - cpu)


def _accepted(calls: list[float], seconds: float, cpu: float) -> dict[str, object]:
    return {"sent": WARM_UP + len(calls), "seconds": seconds, "cpu": cpu, "calls": calls}


def _sent_together(count: int, seconds: float, cpu: float) -> dict[str, object]:
    # The one before made the connections; it is work for the workers all the same.
    return {"sent": count + 1, "seconds": seconds, "cpu": cpu}


def pause() -> float:
    """Seconds between two tasks that are sent to an idle worker."""
    # What a worker does after a task must be over too; and no two probes should meet it in one phase.
    return random.uniform(0.01, 0.04)


def _not_for_ever(sent: float) -> None:
    if time.monotonic() - sent > _PROBE_SECONDS:
        raise TimeoutError(f"an idle worker took nothing for {_PROBE_SECONDS:g} s")


def _tally() -> Tally:
    return Tally(Path(os.environ["BENCHMARK_TALLY"]))


def main() -> None:
    """Do as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("program")
    parser.add_argument("what", choices=("accept", "many", "probe"))
    parser.add_argument("task")
    parser.add_argument("amount", type=float)
    options = parser.parse_args()
    module = importlib.import_module(f"benchmarks.programs.{options.program}")
    try:
        answer = run(module.SENDER, options.what, options.task, options.amount)
    except Absent as absent:
        print(absent, file=sys.stderr)
        sys.exit(ABSENT)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
