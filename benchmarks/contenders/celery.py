"""Stock Celery on its Redis transport, set up for speed, and as it comes."""

from __future__ import annotations

from benchmarks.contender import Contender, Setting

_WORKER = ("celery", "--app", "benchmarks.programs.celery:app", "worker")
_QUIET = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "WARNING")

CONTENDER = Contender(
    label="Celery",
    order=0,
    program="celery",
    packages=("celery", "kombu", "redis", "hiredis"),
    best=Setting(
        "tuned",
        "2 workers with 1 process each (a worker's main process is what limits it), prefetch 128, no gossip, "
        "no mingle, no heartbeats, quiet",
        [
            [*_WORKER, *_QUIET, "--concurrency", "1", "--hostname", f"{name}@benchmark"]
            for name in ("first", "second")
        ],
    ),
    waiting=Setting(
        "tuned-waiting",
        "2 workers with 50 threads each, otherwise the same",
        [
            [*_WORKER, *_QUIET, "--pool", "threads", "--concurrency", "50", "--hostname", f"{name}@benchmark"]
            for name in ("first", "second")
        ],
    ),
    default=Setting(
        "default",
        "1 worker with 2 processes, log level INFO",
        [[*_WORKER, "--concurrency", "2", "--loglevel", "INFO"]],
    ),
    queues=("celery", "unacked"),
    results="celery-task-meta-*",
    keeps=False,
    share=0.25,
)
