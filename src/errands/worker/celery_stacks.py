"""Lets `self.request` and `current_task` be right in code that runs for a task on another thread, or beside
other tasks on one event loop.

Celery keeps the present task and its request in stacks keyed by thread (or greenlet). Here they are kept in
context variables, which whatever a task starts inherits: coroutines beside it, and threads that carry its
context. This is the one place that relies on where `LocalStack` keeps what it holds: in `_local`, as the
attribute `stack`. `tests/unit/test_celery_internals.py` tells us when Celery changes it.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from celery import _state
from celery.utils.threads import get_ident


class _ContextLocal:
    """In place of `celery.utils.threads.Local`: an attribute `stack` for each context."""

    __slots__ = ("__ident_func__", "_stack")

    def __init__(self) -> None:
        self._stack: ContextVar[list[Any] | None] = ContextVar("errands_stack", default=None)
        self.__ident_func__ = get_ident  # nothing asks for it but who looks how a stack is keyed

    @property
    def stack(self) -> list[Any]:
        found = self._stack.get()
        if found is None:
            raise AttributeError("stack")
        return found

    @stack.setter
    def stack(self, value: list[Any]) -> None:
        self._stack.set(value)

    def __release_local__(self) -> None:
        self._stack.set(None)


def share_stack(stack: Any) -> None:
    """Keep what `stack` holds with the context that it was put there in."""
    if not isinstance(stack._local, _ContextLocal):
        stack._local = _ContextLocal()


def present_task() -> Any:
    """`celery._state.get_current_worker_task`, sooner where no task is at work, as in a web application."""
    return _state.get_current_worker_task() if _state._task_stack._local._stack.get() else None


share_stack(_state._task_stack)
