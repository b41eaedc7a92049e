"""Errands as in production: a beat moves every event into the ledger while the worker works."""

from __future__ import annotations

from benchmarks.contender import BARE, DRAIN, PICKUP, SLEEPERS, Contender, Setting
from benchmarks.contenders._errands import BEST, PACKAGES, QUEUES, RESULTS, recorded, worker

_BEAT = {
    "beat": (
        "python",
        "-m",
        "errands",
        "beat",
        "--app",
        "benchmarks.programs.errands:app",
        "--loglevel",
        "WARNING",
    )
}

CONTENDER = Contender(
    label="Errands and its ledger",
    order=101,
    program="errands",
    packages=(*PACKAGES, "sqlalchemy"),
    best=Setting(
        "ledger",
        "2 worker processes with 200 tasks at a time, asyncio pool, quiet; a beat beside, SQLite",
        [worker(*BEST)],
        _BEAT,
    ),
    queues=QUEUES,
    results=RESULTS,
    measures=(DRAIN, BARE, SLEEPERS, PICKUP),
    recorded=recorded,
)
