"""Celery's configuration as Errands sets it, each line with its reason. `app.conf.update(…)` changes it."""

from __future__ import annotations

from typing import Any

from errands.broker.transport import celery_broker
from errands.settings import Settings


def celery_configuration(settings: Settings) -> dict[str, Any]:
    """The configuration that an `Errands` app starts with."""
    broker_url, broker_transport = celery_broker(settings.broker_url)
    return {
        "broker_url": broker_url,
        "broker_transport": broker_transport,
        "result_backend": _result_backend(settings.result_url),
        # JSON only: unpickling runs whatever code the sender wishes (CVE-2021-23727).
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "result_accept_content": ["json"],
        # One time zone inside, everybody's own outside.
        "enable_utc": True,
        "timezone": "UTC",
        # A message is acknowledged when its work is done; a dead worker's message goes to another.
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        # Whoever asks for a run without a result is told its live state; it need not be stored for them.
        "task_track_started": False,
        # Nothing runs for ever.
        "task_soft_time_limit": settings.soft_time_limit,
        "task_time_limit": settings.time_limit,
        # What leaks, leaks for a while only.
        "worker_max_tasks_per_child": settings.max_tasks_per_child,
        "worker_max_memory_per_child": settings.max_memory_per_child,
        "worker_prefetch_multiplier": settings.prefetch,
        # Celery would move what is not done yet to another process; ours must not be done twice.
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_soft_shutdown_timeout": settings.shutdown_timeout,
        "worker_enable_soft_shutdown_on_idle": False,
        # Results are for the code that waits for them; the ledger remembers.
        "result_expires": settings.result_expires,
        "broker_connection_retry_on_startup": True,
        # A caller learns within a quarter of a second that the broker is away.
        "task_publish_retry": True,
        "task_publish_retry_policy": {
            "max_retries": 1,
            "interval_start": 0.0,
            "interval_step": 0.05,
            "interval_max": 0.1,
        },
        "broker_transport_options": {
            "key_prefix": settings.key_prefix,
            # Stock Redis gives a message out again when it was not acknowledged for so long: longer than any
            # run may take, or it would be done twice.
            "visibility_timeout": max(3600, int(settings.time_limit) + 300),
            "socket_connect_timeout": 0.25,
            # RabbitMQ says of each message that it has it. Without, one that it refuses, or that was on its
            # way when its sender died, is lost without a word.
            "confirm_publish": True,
            # A connection whose other end is gone without a word is found out within 20 s: kombu looks so
            # often, and each time whether an answer is overdue by as much. Its own 25 s take 50.
            "health_check_interval": 8,
        },
        "result_backend_transport_options": {
            "socket_connect_timeout": 0.25,
            # Celery would hold the caller for twenty tries.
            "retry_policy": {"max_retries": 1, "interval_start": 0.0, "interval_max": 0.1, "timeout": 0.25},
        },
        # Three more messages for each run, for watchers that switch them on by themselves (Flower does).
        "task_send_sent_event": False,
        "worker_send_task_events": False,
        "worker_hijack_root_logger": False,
        "worker_consumer": "errands.worker.consumer:Consumer",
        "beat_scheduler": "errands.beat.scheduler:Scheduler",
        "task_always_eager": settings.inline,
        "task_store_eager_result": False,
    }


def _result_backend(url: str) -> str:
    """Our own backend where Valkey or Redis keeps the results; any other as it is."""
    if url.startswith(("redis://", "rediss://")):
        return f"errands.broker.results:Backend+{url}"
    return url


def route(
    name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any
) -> dict[str, Any] | None:
    """A router for Celery: the queue and the priority that the task itself declares."""
    rules = getattr(task, "rules", None)
    if rules is None:
        return None
    found = {"queue": rules.queue, "priority": rules.priority}
    return {key: value for key, value in found.items() if value is not None} or None
