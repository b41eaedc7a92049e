"""Errands as in production: a beat moves every event into the ledger while the worker works."""

from __future__ import annotations

from benchmarks.contender import BARE, DRAIN, PICKUP, SLEEPERS, Contender, Setting
from benchmarks.contenders._errands import PACKAGES, QUEUES, RESULTS, recorded, worker

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
        "2 worker processes, asyncio pool, quiet; a beat beside records every event (SQLite)",
        [worker("--pool", "asyncio", "--processes", "2")],
        _BEAT,
    ),
    waiting=Setting(
        "ledger-waiting",
        "the same with 200 tasks at a time in each process",
        [worker("--pool", "asyncio", "--processes", "2", "--concurrency", "200")],
        _BEAT,
    ),
    queues=QUEUES,
    results=RESULTS,
    measures=(DRAIN, BARE, SLEEPERS, PICKUP),
    recorded=recorded,
)
