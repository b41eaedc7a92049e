"""Errands with its events left out, to tell what they cost. Nobody should run it so."""

from __future__ import annotations

from benchmarks.contender import DRAIN, SLEEPERS, Contender, Setting
from benchmarks.contenders._errands import BEST, PACKAGES, QUEUES, RESULTS, worker

CONTENDER = Contender(
    label="Errands, no events",
    order=102,
    program="errands",
    packages=PACKAGES,
    best=Setting(
        "unrecorded",
        "2 worker processes with 200 tasks at a time, asyncio pool, quiet; no event is written",
        [worker(*BEST)],
    ),
    queues=QUEUES,
    results=RESULTS,
    measures=(DRAIN, SLEEPERS),
)
