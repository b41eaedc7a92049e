"""Errands with its events left out, to tell what they cost. Nobody should run it so."""

from __future__ import annotations

from benchmarks.contender import DRAIN, SLEEPERS, Contender, Setting
from benchmarks.contenders._errands import PACKAGES, QUEUES, RESULTS, worker

CONTENDER = Contender(
    label="Errands, no events",
    order=102,
    program="errands",
    packages=PACKAGES,
    best=Setting(
        "unrecorded",
        "2 worker processes, asyncio pool, quiet; nothing written to the stream of events",
        [worker("--pool", "asyncio", "--processes", "2")],
    ),
    waiting=Setting(
        "unrecorded",
        "the same with 200 tasks at a time in each process",
        [worker("--pool", "asyncio", "--processes", "2", "--concurrency", "200")],
    ),
    queues=QUEUES,
    results=RESULTS,
    measures=(DRAIN, SLEEPERS),
)
