"""What sending returns: Celery's `AsyncResult`, which costs something only when somebody asks it."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from celery.result import AsyncResult
from vine import promise


class SentResult(AsyncResult):
    """An `AsyncResult` that looks for its backend, and tells it farewell, only if it was ever asked.

    `duplicate` tells that another request was first, whose run this is: see `docs/unique.md`.

    Most results are thrown away unasked. Celery's own makes a promise for each, and unsubscribes from the
    server when it is collected.
    """

    _cache = None
    _ignored = False
    duplicate = False
    on_ready: Any

    def __init__(
        self, id: str, backend: Any = None, task_name: str | None = None, app: Any = None, parent: Any = None
    ) -> None:
        if id is None:
            raise ValueError("AsyncResult requires a valid id, not None")
        self.id = id
        if app is not None:
            self.app = app
        if backend is not None:
            self.backend = backend
        if parent is not None:
            self.parent = parent

    @cached_property
    def backend(self) -> Any:
        """Where the result will be kept."""
        return self.app.backend

    @cached_property  # type: ignore[no-redef]
    def on_ready(self) -> Any:
        """The promise that is kept when the result is there."""
        return promise(self._on_fulfilled, weak=True)

    def __del__(self) -> None:
        if "backend" in self.__dict__:
            super().__del__()
