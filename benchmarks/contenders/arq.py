"""arq: asyncio, polling a sorted set; a task is kept until it is done."""

from __future__ import annotations

from benchmarks.contender import Contender, Setting

_WORKER = ("arq", "benchmarks.programs.arq.WorkerSettings")

CONTENDER = Contender(
    label="arq",
    order=50,
    program="arq",
    environment="bench-redis5",
    packages=("arq", "redis", "hiredis"),
    best=Setting("tuned", "2 workers with 50 tasks at a time, polling every 10 ms", [_WORKER] * 2),
    waiting=Setting("waiting", "2 workers with 100 tasks at a time, polling every 10 ms", [_WORKER] * 2),
    default=Setting("default", "1 worker, 10 tasks at a time, polling every 0.5 s", [_WORKER]),
    queues=("arq:queue",),
    results="arq:result:*",
    share=0.25,
)
