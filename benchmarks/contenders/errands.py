"""Errands with two worker processes of coroutines: the row that is compared with peers."""

from __future__ import annotations

from benchmarks.contender import Contender, Setting
from benchmarks.contenders._errands import BEST, PACKAGES, QUEUES, RESULTS, worker

CONTENDER = Contender(
    label="Errands",
    order=100,
    program="errands",
    packages=PACKAGES,
    best=Setting(
        "tuned",
        "2 worker processes with 200 tasks at a time, asyncio pool, quiet; no beat beside",
        [worker(*BEST)],
    ),
    default=Setting(
        "default",
        "1 worker process, log level INFO",
        [("python", "-m", "errands", "worker", "--app", "benchmarks.programs.errands:app")],
    ),
    queues=QUEUES,
    results=RESULTS,
    ours=True,
)
