"""Celery's Redis result backend, without the work it does for results that nobody waits for."""

from __future__ import annotations

from typing import Any

from celery.backends.redis import RedisBackend


class Backend(RedisBackend):
    """Nothing happens when a run is sent: `AsyncResult.get` subscribes before it looks for the result.

    Stock Celery subscribes at every send, which costs a round trip and a connection that dies with the
    server: after its retries are used up, no run can be sent any more (`E_RETRY_LIMIT_EXCEEDED`).
    """

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """Called by Celery for each run that is sent."""
