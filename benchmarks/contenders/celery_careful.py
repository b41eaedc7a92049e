"""Stock Celery with the settings that Errands makes, as far as Celery has them: it loses as little."""

from __future__ import annotations

from benchmarks.contender import BARE, COMMANDS, DRAIN, PICKUP, Contender, Setting

_WORKER = ("celery", "--app", "benchmarks.programs.celery:app", "worker")

CONTENDER = Contender(
    label="Celery, careful",
    order=1,
    program="celery",
    packages=("celery", "kombu", "redis", "hiredis"),
    best=Setting(
        "careful",
        "1 worker with 2 processes; acknowledged late, given back when a worker is lost, started tracked, "
        "time limits, children recycled after 1,000 tasks, prefetch 4, events for Flower",
        [[*_WORKER, "--concurrency", "2", "--loglevel", "INFO"]],
    ),
    queues=("celery", "unacked"),
    results="celery-task-meta-*",
    share=0.25,
    measures=(DRAIN, BARE, PICKUP, COMMANDS),
)
