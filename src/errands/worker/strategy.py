"""What a worker does with each message: Celery's strategy, short for the ordinary ones.

An ordinary message is one of protocol 2 without ETA and expiry, for a task without a rate limit. Everything
else goes Celery's way (a delay waits in the broker with our transport, and in the worker's memory with
others).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from celery import signals
from celery.utils.imports import symbol_by_name
from celery.worker import state
from celery.worker.request import Request as CeleryRequest
from celery.worker.state import task_reserved
from celery.worker.strategy import default as celerys

from errands.worker.request import Request

logger = logging.getLogger("errands.worker")


def default(task: Any, app: Any, consumer: Any, **options: Any) -> Callable[..., Any]:
    """Celery calls this once for each task; what it returns is called with each of the task's messages."""
    stock: Callable[..., Any] = celerys(task, app, consumer, **options)
    made_by = symbol_by_name(task.Request)
    if not (isinstance(made_by, type) and issubclass(made_by, Request)) or _changed(made_by):
        return stock
    lean, hostname, errors = made_by.lean, consumer.hostname, consumer.connection_errors
    eventer = consumer.event_dispatcher
    handle, buckets, revoked = consumer.on_task_request, consumer.task_buckets, state.revoked
    received = signals.task_received
    talkative = logger.isEnabledFor(logging.DEBUG)

    def on_message(message: Any, body: Any, ack: Any, reject: Any, callbacks: Any) -> Any:
        headers = message.headers
        if (
            body is not None
            or headers.get("eta") is not None
            or headers.get("expires") is not None
            or buckets[task.name] is not None
            or type(payload := message.payload) not in (list, tuple)
        ):
            return stock(message, body, ack, reject, callbacks)
        request = lean(
            message, headers, payload, task=task, hostname=hostname, eventer=eventer,
            connection_errors=errors, on_ack=ack, on_reject=reject,
        )  # fmt: skip
        if talkative:
            logger.debug("Task %s[%s] received", request.name, request.id, extra={"data": _known(request)})
        if (request.id in revoked or headers.get("stamped_headers")) and request.revoked():
            return None
        if received.receivers:
            received.send(sender=consumer, request=request)
        if eventer and eventer.enabled:
            request.send_event(
                "task-received", name=request.name, args=request.argsrepr, kwargs=request.kwargsrepr,
                root_id=request.root_id, parent_id=request.parent_id,
                retries=request.request_dict.get("retries", 0), eta=None, expires=None,
            )  # fmt: skip
        task_reserved(request)
        for callback in callbacks:
            callback(request)
        return handle(request)

    return on_message


def _changed(made_by: type) -> bool:
    """Whether an application's own kind of request wants to be made by `__init__`."""
    return any("__init__" in vars(each) for each in made_by.__mro__[: made_by.__mro__.index(CeleryRequest)])


def _known(request: Any) -> dict[str, Any]:
    return {"id": request.id, "name": request.name}
