"""Errands on Celery's own prefork pool, for work that keeps a processor busy."""

from __future__ import annotations

from benchmarks.contender import BARE, COMMANDS, DRAIN, PICKUP, Contender, Setting
from benchmarks.contenders._errands import PACKAGES, QUEUES, RESULTS, worker

CONTENDER = Contender(
    label="Errands, prefork",
    order=103,
    program="errands",
    packages=PACKAGES,
    best=Setting(
        "prefork",
        "prefork with 2 processes, quiet; events written, no beat beside",
        [worker("--pool", "prefork", "--concurrency", "2")],
    ),
    queues=QUEUES,
    results=RESULTS,
    share=0.5,
    measures=(DRAIN, BARE, PICKUP, COMMANDS),
)
