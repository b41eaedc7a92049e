"""Celery's consumer, which keeps what it cannot run instead of logging it and throwing it away, and which
comes back quickly after its broker.
"""

from __future__ import annotations

import base64
import json
import logging
import warnings
from functools import partial
from typing import Any

import redis
import uuid_utils
from celery.exceptions import CPendingDeprecationWarning, InvalidTaskError
from celery.worker import loops
from celery.worker.consumer import Consumer as CeleryConsumer
from celery.worker.state import maybe_shutdown
from kombu.exceptions import ContentDisallowed, DecodeError

from errands.broker.streams.qos import make_room
from errands.broker.transport import Transport
from errands.core import clock
from errands.core.errors import UntrustedMessage
from errands.core.events import Event, Kind
from errands.worker import deploys, remote  # noqa: F401 — importing it teaches the worker its command
from errands.worker.pool.hub import descriptor
from errands.worker.standstill import turns_of
from errands.worker.trust import trust_of

logger = logging.getLogger("errands.consumer")

# What reading a message of the wrong shape raises, such as one without an id.
_MALFORMED = (KeyError, TypeError, ValueError, AttributeError, RecursionError)
_BODY_MAX = 256 * 1024
_FIRST_WAIT, _LONGEST_WAIT = 0.2, 1.0  # seconds between two tries to connect


class Settle:
    """Acknowledges or rejects a message at once, in the hub's thread; Celery puts it off to the next turn.

    A channel that was closed meanwhile raises an AttributeError in kombu 5.7 (it has no connection any more,
    and looks for its host's name there). The message is the next connection's then, or another worker's.
    """

    __slots__ = ("_settle",)

    def __init__(self, settle: Any) -> None:
        self._settle = settle

    def __call__(self, *args: Any) -> None:
        try:
            self._settle(*args)
        except AttributeError:
            if not getattr(self._settle.__self__.channel, "closed", False):
                raise
            logger.info(
                "a message cannot be settled: its connection is gone, and the broker gives it out again"
            )


class Consumer(CeleryConsumer):
    """Set as `worker_consumer`. Each message that no task can take becomes a dead letter, with the reason."""

    def loop(self, consumer: Any, connection: Any, *args: Any) -> Any:
        """Celery's consumer loop; with our transport, on the event loop of a pool that has one."""
        run_hub, hub = getattr(self.pool, "run_hub", None), self.hub
        loop = partial(loops.synloop if hub is None else loops.asynloop, consumer, connection, *args)
        standstill = getattr(self.controller, "standstill", None)
        # A connection of another kind would hold up the event loop while it waits.
        ours = isinstance(connection.transport, Transport)
        if run_hub is None or hub is None or standstill is None or not ours or descriptor(hub.poller) is None:
            return loop()
        return run_hub(hub, loop, standstill.turn)

    def create_task_handler(self, *args: Any, **kwargs: Any) -> Any:
        """What is called with each message."""
        unusual = super().create_task_handler(*args, **kwargs)
        make_room(self.pool.num_processes if self.pool is not None else 0)
        standstill = getattr(self.controller, "standstill", None)
        if self.hub is not None and standstill is not None:
            turns_of(self.hub, standstill)
        strategies, callbacks = self.strategies, self.on_task_message
        check = trust_of(self.app)
        let_begin = getattr(self.pool, "let_begin", _nothing)

        def on_task_received(message: Any) -> Any:
            try:
                if check is not None:
                    check(message)
                headers = message.headers
                # Without a hub, or while Celery counts up to its full prefetch again, it goes Celery's way.
                strategy = strategies.get(headers["task"]) if headers and "task" in headers else None
                if strategy is None or self.hub is None or not self._maximum_prefetch_restored:
                    return unusual(message)
                ack, reject = Settle(message.ack_log_error), Settle(message.reject_log_error)
                strategy(message, None, ack, reject, callbacks)
                let_begin()
                return None
            except UntrustedMessage as exc:
                # What it says of a run is not believed either: that one stays as it is.
                self._keep(message, f"the message is not trusted: {exc}")
                message.reject_log_error(logger, self.connection_errors)
            except redis.RedisError:
                logger.warning("a message goes back: Valkey is away, and cannot tell whether it is old")
                message.requeue()
            except (InvalidTaskError, ContentDisallowed) as exc:
                return self.on_invalid_task(None, message, exc)
            except DecodeError as exc:
                return self.on_decode_error(message, exc)
            except _MALFORMED as exc:
                # Celery lets these end the worker, and the broker gives the message to the next one.
                self._keep(message, f"the message is malformed: {exc!r}", failed=True)
                message.reject_log_error(logger, self.connection_errors)

        return on_task_received

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, trying for as long as it takes, about once a second.

        Celery waits up to half a minute between two tries, and gives up after a hundred.
        """
        told = False

        def on_error(exc: Exception, interval: float) -> None:
            nonlocal told
            if not told:  # once, not every second
                logger.error(
                    "the broker at %s does not answer (%s); trying again until it does", conn.as_uri(), exc
                )
            told = True

        first: bool = vars(self).get("first_connection_attempt", True)
        if first and not self.app.conf.broker_connection_retry_on_startup:
            conn.connect()
        else:
            conn.ensure_connection(
                on_error, None, callback=maybe_shutdown,
                interval_start=_FIRST_WAIT, interval_step=_FIRST_WAIT, interval_max=_LONGEST_WAIT,
            )  # fmt: skip
        if told:
            logger.warning("the broker at %s answers again", conn.as_uri())
        self.first_connection_attempt = False
        self.broker_connection_retry_attempt = 0
        return conn

    def on_connection_error_after_connected(self, exc: Exception) -> None:
        """Celery lets go of the lost connection; its advice on a setting that is set is left out."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CPendingDeprecationWarning)
            super().on_connection_error_after_connected(exc)

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        if deploys.put_off(self.app, message):
            return
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


def _nothing() -> None:
    """What other pools have to let begin."""


def raw(message: Any) -> dict[str, Any]:
    """A message as JSON, whole enough to be looked at and sent again."""
    body, headers = message.body, message.headers
    sent_for = (message.delivery_info or {}).get("eta")
    if sent_for is not None:  # as it was signed
        headers = {**headers, "eta": sent_for}
    data = body.encode() if isinstance(body, str) else bytes(body or b"")
    return {
        "body": base64.b64encode(data[:_BODY_MAX]).decode(),
        "truncated": len(data) > _BODY_MAX,
        "content_type": message.content_type,
        "content_encoding": message.content_encoding,
        "headers": json.loads(json.dumps(headers, default=str)),
        "properties": json.loads(json.dumps(message.properties, default=str)),
    }
