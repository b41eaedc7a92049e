# mypy: disable-error-code="import-not-found, import-untyped, untyped-decorator, no-untyped-call"
"""Huey: https://huey.readthedocs.io, "Getting started" and "Consuming tasks"."""

from __future__ import annotations

from benchmarks.program import RESULTS, SETTING, URL, Blocking

if SETTING == "greenlets":
    from gevent import monkey

    monkey.patch_all()

from huey import RedisHuey

from benchmarks import work

huey = RedisHuey("benchmark", url=URL, results=RESULTS)
TASKS = {
    work.EMPTY: huey.task(name=work.EMPTY)(work.empty),
    work.SLEEPER: huey.task(name=work.SLEEPER)(work.sleeper),
}


def _many(task: str, count: int) -> None:
    TASKS[task].map([()] * count)


SENDER = Blocking(one=lambda task: TASKS[task](), many=_many)
