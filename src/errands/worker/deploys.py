"""A task that this worker does not know may be one that the next deploy brings: its message is put off.

Old and new workers run side by side for a while. A message of a new task that meets an old worker waits a
little, and more the older it is; another worker may take it then. Past `Settings.unknown_task_patience` it is
a dead letter.
"""

from __future__ import annotations

import base64
import logging
from typing import Any

import msgspec
import redis

from errands.broker.runs import LiveRuns
from errands.core import clock
from errands.core.fairness import tenant_of
from errands.core.signing import SIGNATURE
from errands.worker.trust import bytes_of, time_of

logger = logging.getLogger("errands.consumer")

_FIRST_WAIT, _LONGEST_WAIT = 2.0, 60.0  # seconds


def put_off(app: Any, message: Any) -> bool:
    """Put the message of an unknown task off, and acknowledge it.

    Returns:
        False when it has waited long enough, or when its broker cannot do that (a queue that is not ours).
    """
    live, headers = app.live, message.headers
    queue = (message.delivery_info or {}).get("routing_key")
    # With another broker, or events on another server, Celery's ways alone would be left.
    able = isinstance(live, LiveRuns) and app.plan.direct
    if not able or not queue or not isinstance(headers.get("id"), str):
        return False
    now = clock.timestamp()
    marks = headers.get("errands")
    marks = dict(marks) if isinstance(marks, dict) else {}
    # A retry waits for its time first, and a deploy may come after that.
    age = now - max(float(marks.setdefault("queued_at", round(now, 3))), time_of(headers.get("eta")))
    if age >= app.settings.unknown_task_patience:
        return False
    wait = min(max(_FIRST_WAIT, age), _LONGEST_WAIT)
    headers = {**headers, "errands": marks}
    if app.signer is not None and SIGNATURE in marks:
        # What the transport has changed in it is no more what was signed; the worker has verified it.
        marks = app.signer.marks(headers, bytes_of(message), message.content_type, message.content_encoding)
        headers = {**headers, "errands": marks}
    envelope = _envelope(message, headers)
    priority = message.properties.get("priority")
    operation = live.putting(
        None, run_id=headers["id"], queue=queue, priority=priority, message=envelope, wait=wait,
        tenant=tenant_of(marks.get("fair")),
    )  # fmt: skip
    try:
        live.commit([operation])
    except redis.RedisError:
        message.requeue()
    else:
        # A crash in between leaves two messages of one run, of which one starts.
        message.ack()
    logger.warning(
        "no task is registered under the name %r; its message waits %.0f s for a worker that knows it",
        headers.get("task"), wait,
    )  # fmt: skip
    return True


def _envelope(message: Any, headers: dict[str, Any]) -> bytes:
    """The message as kombu's virtual transports carry it."""
    properties = {name: value for name, value in message.properties.items() if name != "body_encoding"}
    properties["delivery_info"] = {"exchange": "", "routing_key": message.delivery_info["routing_key"]}
    body = message.body
    if isinstance(body, bytes):
        try:
            body = body.decode()
        except UnicodeDecodeError:
            body, properties["body_encoding"] = base64.b64encode(body).decode(), "base64"
    return msgspec.json.encode(
        {
            "body": body,
            "content-encoding": message.content_encoding,
            "content-type": message.content_type,
            "headers": headers,
            "properties": properties,
        }
    )
