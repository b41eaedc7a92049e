"""Huey: small and fast. A message is gone from the broker when a worker takes it."""

from __future__ import annotations

from benchmarks.contender import Contender, Setting

_CONSUMER = ("huey_consumer", "benchmarks.programs.huey.huey", "--quiet")

CONTENDER = Contender(
    label="Huey",
    order=10,
    program="huey",
    environment="bench",
    packages=("huey", "redis", "hiredis"),
    best=Setting("tuned", "4 worker processes, quiet", [[*_CONSUMER, "-k", "process", "-w", "4"]]),
    waiting=Setting(
        "greenlets",
        "2 consumers with 100 greenlets each, quiet",
        [[*_CONSUMER, "-k", "greenlet", "-w", "100"]] * 2,
    ),
    default=Setting("default", "1 worker thread", [["huey_consumer", "benchmarks.programs.huey.huey"]]),
    queues=("huey.redis.benchmark", "huey.schedule.benchmark"),
    results="huey.results.benchmark",
    keeps=False,
)
