"""streaQ: asyncio on Redis streams; acknowledges."""

from __future__ import annotations

from benchmarks.contender import Contender, Setting

_WORKER = ("streaq", "run", "benchmarks.programs.streaq:worker")

CONTENDER = Contender(
    label="streaQ",
    order=40,
    program="streaq",
    environment="bench",
    packages=("streaq", "coredis", "uvloop"),
    best=Setting("tuned", "2 workers with 16 tasks at a time, uvloop", [[*_WORKER, "--workers", "2"]]),
    waiting=Setting("waiting", "2 workers with 64 tasks at a time, uvloop", [[*_WORKER, "--workers", "2"]]),
    default=Setting("default", "1 worker, 16 tasks at a time", [_WORKER]),
    queues=("streaq:default:queues:normal", "streaq:default:queues:delayed:normal"),
    results="streaq:default:task:results:*",
    share=0.25,
)
