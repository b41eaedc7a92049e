"""Celery's consumer, which keeps what it cannot run instead of logging it and throwing it away."""

from __future__ import annotations

import base64
import json
import logging
from typing import Any

import uuid_utils
from celery.worker.consumer import Consumer as CeleryConsumer

from errands.core import clock
from errands.core.events import Event, Kind
from errands.worker import remote  # noqa: F401 — importing it teaches the worker its command

logger = logging.getLogger("errands.consumer")

# What reading a message of the wrong shape raises, such as one without an id.
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError)
_BODY_MAX = 256 * 1024


class Consumer(CeleryConsumer):
    """Set as `worker_consumer`. Each message that no task can take becomes a dead letter, with the reason."""

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        handle = super().create_task_handler(*args, **kwargs)

        def on_task_received(message: Any) -> Any:
            try:
                return handle(message)
            except _MALFORMED as exc:
                # Celery lets these end the worker, and the broker gives the message to the next one.
                self._keep(message, f"the message is malformed: {exc!r}", failed=True)
                message.reject_log_error(logger, self.connection_errors)

        return on_task_received

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        name = (message.headers or {}).get("task")
        self._keep(message, f"no task is registered under the name {name!r}", failed=True)
        super().on_unknown_task(body, message, exc)

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self._keep(message, "the message is not one of Celery's: it names no task")
        super().on_unknown_message(body, message)

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._keep(message, f"the message is malformed: {exc}", failed=True)
        super().on_invalid_task(body, message, exc)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        self._keep(message, f"the message cannot be decoded: {exc}", failed=True)
        super().on_decode_error(message, exc)

    def _keep(self, message: Any, reason: str, *, failed: bool = False) -> None:
        """Write the dead letter before the message is acknowledged: a crash in between repeats it."""
        headers = message.headers if isinstance(message.headers, dict) else {}
        given = headers.get("id") or message.properties.get("correlation_id")
        run_id = str(given)[:255] if given else str(uuid_utils.uuid7())
        facts: dict[str, Any] = {
            "run_id": run_id,
            "at": clock.timestamp(),
            "task": headers.get("task") if isinstance(headers.get("task"), str) else None,
            "queue": (message.delivery_info or {}).get("routing_key"),
        }
        self.app.live.record(Event(kind=Kind.DEAD_LETTER, note=reason, message=raw(message), **facts))
        if failed and given:
            error = {"type": "DeadLetter", "message": reason}
            self.app.live.record(Event(kind=Kind.FAILED, error=error, **facts))
        logger.error("dead letter: %s", reason)


def raw(message: Any) -> dict[str, Any]:
    """A message as JSON, whole enough to be looked at and sent again."""
    body = message.body
    data = body.encode() if isinstance(body, str) else bytes(body or b"")
    return {
        "body": base64.b64encode(data[:_BODY_MAX]).decode(),
        "truncated": len(data) > _BODY_MAX,
        "content_type": message.content_type,
        "content_encoding": message.content_encoding,
        "headers": json.loads(json.dumps(message.headers, default=str)),
        "properties": json.loads(json.dumps(message.properties, default=str)),
    }
