# mypy: disable-error-code="import-not-found, untyped-decorator"
"""Dramatiq with Redis: https://dramatiq.io, "User guide" and "Best practices"."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks import work
from benchmarks.program import RESULTS, URL, Blocking

broker = RedisBroker(url=URL)
if RESULTS:
    broker.add_middleware(Results(backend=RedisBackend(url=URL, use_namespace_prefix_keys=True)))
dramatiq.set_broker(broker)
_OPTIONS = {"store_results": True} if RESULTS else {}
TASKS = {
    work.EMPTY: dramatiq.actor(work.empty, actor_name=work.EMPTY, **_OPTIONS),
    work.SLEEPER: dramatiq.actor(work.sleeper, actor_name=work.SLEEPER, **_OPTIONS),
}


def _many(task: str, count: int) -> None:
    # A group sends its messages one by one, and so does this.
    for _ in range(count):
        TASKS[task].send()


SENDER = Blocking(one=lambda task: TASKS[task].send(), many=_many)
