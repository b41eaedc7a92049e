"""SAQ: asyncio on Redis lists; a task is kept until it is done."""

from __future__ import annotations

from benchmarks.contender import Contender, Setting

_WORKER = ("saq", "benchmarks.programs.saq.settings", "--quiet")

CONTENDER = Contender(
    label="SAQ",
    order=60,
    program="saq",
    environment="bench-redis5",
    packages=("saq", "redis", "hiredis"),
    best=Setting("tuned", "2 workers with 20 tasks at a time, quiet", [[*_WORKER, "--workers", "2"]]),
    waiting=Setting("waiting", "2 workers with 100 tasks at a time, quiet", [[*_WORKER, "--workers", "2"]]),
    default=Setting("default", "1 worker, 10 tasks at a time", [["saq", "benchmarks.programs.saq.settings"]]),
    queues=("saq:default:queued", "saq:default:active", "saq:default:incomplete"),
    results="saq:job:default:*",
    share=0.25,
)
