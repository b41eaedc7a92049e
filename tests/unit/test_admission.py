"""A run that has to wait for a limit passes Celery's tracer, and leaves nothing behind there."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from celery import _state
from celery.app.trace import build_tracer
from celery.exceptions import Ignore
from celery.signals import task_postrun

from errands import Concurrency, Errands
from errands.worker import execution
from errands.worker.admission import Waits


@pytest.fixture
def task() -> Any:
    app = Errands("waits")

    @app.task(name="limited", at_most=Concurrency(1))
    def limited() -> int:
        return 1

    return app.tasks["limited"]


def _traced(task: Any) -> Any:
    task.__trace__ = build_tracer(task.name, task, app=task.app)
    return task.__trace__("r", (), {}, {"id": "r", "is_eager": False})


def test_a_run_that_waits_is_ignored_by_celery(task: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def waits(*_: Any) -> Any:
        raise Waits

    monkeypatch.setattr(execution, "attempt", waits)
    ended: list[Any] = []

    def note(task_id: str, **_: Any) -> None:
        ended.append(task_id)

    task_postrun.connect(note)
    try:
        result, info, *_ = _traced(task)
    finally:
        task_postrun.disconnect(note)
    assert info  # Celery takes it for a failure, and looks which
    assert isinstance(result.exception, Ignore)
    assert ended == ["r"]
    assert task.request_stack.top is None
    assert _state.get_current_task() is None


def test_what_celery_is_told_comes_out_of_a_child_of_prefork(
    task: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def waits(*_: Any) -> Any:
        raise Waits

    monkeypatch.setattr(execution, "attempt", waits)
    result, *_ = _traced(task)
    came_out = pickle.loads(pickle.dumps(result))
    assert isinstance(came_out.exception, Ignore)
    assert came_out.traceback == ""


def test_a_task_without_limits_has_celerys_own_tracer() -> None:
    app = Errands("plain")

    @app.task(name="plain")
    def plain() -> int:
        return 1

    task: Any = app.tasks["plain"]
    assert task.__trace__ is None
    tracer = build_tracer(task.name, task, app=app)
    task.__trace__ = tracer
    assert task.__trace__ is tracer
