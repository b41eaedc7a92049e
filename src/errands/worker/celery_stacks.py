"""Lets `self.request` and `current_task` be right in code that runs for a task on another thread, or beside
other tasks on one event loop.

Celery keeps the present task and its request in stacks keyed by thread (or greenlet). This is the one place
that relies on how it does so: `LocalStack` asks its `__ident_func__` for the key.
`tests/unit/test_celery_internals.py` tells us when Celery changes it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import Context, ContextVar
from typing import Any

from celery import _state
from celery.utils.threads import get_ident

_carried: ContextVar[Any] = ContextVar("errands_stack_key", default=None)


def _key() -> Any:
    return _carried.get() or get_ident()


def share_stack(stack: Any) -> None:
    """Key `stack` by the task that the context belongs to, not by the thread alone."""
    stack.__ident_func__ = _key


@contextmanager
def carry_stacks() -> Iterator[None]:
    """What starts inside the block, on whatever thread, sees the stacks of this thread."""
    token = _carried.set(_key())
    try:
        yield
    finally:
        _carried.reset(token)


def give_stacks(context: Context, key: object) -> None:
    """What runs in `context`, and whatever starts from it, has stacks of its own under `key`."""
    context.run(_carried.set, key)


share_stack(_state._task_stack)
