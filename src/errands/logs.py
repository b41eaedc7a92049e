"""Logs: one line an event, with time, level, process, task name and task id, as text or as JSON."""

from __future__ import annotations

import logging
import os
import sys
from datetime import UTC, datetime
from typing import Any

import structlog
from structlog.typing import EventDict, Processor

from errands.core.secrets import mask
from errands.settings import Settings
from errands.worker.run import current_run


def configure(settings: Settings) -> None:
    """Send all logging of this process to standard error, in our form. May be called again."""
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.ExtraAdder(allow=()),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _add_run,
        _hide_secrets,
    ]
    renderer: Processor = structlog.processors.JSONRenderer() if settings.log_json else _render_line
    formatter = _Formatter(
        short=not settings.log_json,
        foreign_pre_chain=shared,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,
            renderer,
        ],
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.log_level)
    # These repeat what our own lines say, or chatter.
    for noisy in ("httpx", "httpcore", "aiosmtplib", "asyncio", "mail.log", "alembic"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, root.level))
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """Renders a line of the standard library's loggers by itself: structlog's way costs five times as much,
    and a worker writes such a line for each run. What it writes is the same.

    Args:
        short: text is wanted, not JSON.
    """

    def __init__(self, *args: Any, short: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._short = short

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        if not self._short or record.exc_info or record.stack_info or hasattr(record, "_from_structlog"):
            return super().format(record)
        when = (
            datetime.fromtimestamp(record.created, UTC)
            .replace(tzinfo=None)
            .isoformat(timespec="microseconds")
        )
        run, data = current_run(), getattr(record, "data", None)
        if run is not None:
            about = f"{run.task}[{run.id}]"
        elif isinstance(data, dict) and data.get("name") and "id" in data:
            about = f"{data['name']}[{data['id']}]"
        else:
            about = "-"
        text = mask(record.getMessage())
        return f"{when}Z {record.levelname.lower():<8} {os.getpid()} {mask(about)} {text}".rstrip()


def _add_run(_logger: Any, _method: str, event: EventDict) -> EventDict:
    event["process"] = os.getpid()
    run = current_run()
    if run is not None:
        event["task"], event["task_id"] = run.task, run.id
        return event
    record = event.get("_record")
    data = getattr(record, "data", None)  # Celery's own lines about a task carry its name and id here
    if isinstance(data, dict) and "id" in data:
        event["task"], event["task_id"] = data.get("name"), data["id"]
    return event


def _hide_secrets(_logger: Any, _method: str, event: EventDict) -> EventDict:
    return {key: mask(value) if isinstance(value, str) else value for key, value in event.items()}


def _render_line(_logger: Any, _method: str, event: EventDict) -> str:
    event = dict(event)
    parts = [event.pop("timestamp", ""), f"{event.pop('level', ''):<8}", str(event.pop("process", ""))]
    task, task_id = event.pop("task", None), event.pop("task_id", None)
    parts.append(f"{task}[{task_id}]" if task else "-")
    event.pop("logger", None)
    text, trace = event.pop("event", ""), event.pop("exception", None)
    facts = " ".join(f"{key}={value!r}" for key, value in event.items())
    line = " ".join(part for part in (*parts, str(text), facts) if part)
    return f"{line}\n{trace}" if trace else line
