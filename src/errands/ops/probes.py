"""The single looks that health, statistics, metrics and doctor are put together from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import redis
from kombu.exceptions import OperationalError
from sqlalchemy.exc import SQLAlchemyError

from errands.broker import workers
from errands.broker.checks import check_eviction
from errands.broker.events import EventStream
from errands.broker.queues import QueueDepth
from errands.core.errors import BrokerUnavailable, ConfigurationError
from errands.ops.errors import RecordUnavailable
from errands.ops.host import App
from errands.store import writes

CONNECT_SECONDS = 2
# Past this the ledger is not just a moment behind.
_BEHIND_SECONDS = 30.0
_BEHIND_EVENTS = 100_000

Workers = dict[str, dict[str, Any]]


@contextmanager
def broker_errors() -> Iterator[None]:
    """Tell whatever Valkey, kombu and sockets raise as one error.

    Raises:
        BrokerUnavailable: in place of all of them.
    """
    try:
        yield
    except (redis.RedisError, OperationalError, OSError) as exc:
        raise BrokerUnavailable(f"the broker does not answer: {exc}") from exc


@contextmanager
def record_errors() -> Iterator[None]:
    """Tell whatever SQLAlchemy raises as RecordUnavailable."""
    try:
        yield
    except SQLAlchemyError as exc:
        raise RecordUnavailable("the database does not answer, or has no tables yet") from exc


def broker_answers(app: App) -> bool:
    """Whether messages can be sent: Valkey answers, and the broker, where that is another server."""
    try:
        with broker_errors():
            app.valkey.ping()
            if app.settings.broker_url != app.settings.valkey_url:
                with app.connection_for_read() as connection:
                    connection.ensure_connection(max_retries=1, timeout=CONNECT_SECONDS)
    except BrokerUnavailable:
        return False
    return True


def database_answers(app: App) -> bool:
    """Whether the ledger can be read."""
    try:
        with app.database.reading() as connection:
            writes.read_position(connection, app.keys.events)
    except SQLAlchemyError:
        return False
    return True


def eviction_problem(app: App) -> str | None:
    """What is wrong with the server's eviction policy; None when it throws nothing away.

    Raises:
        BrokerUnavailable: it does not answer.
    """
    with broker_errors():
        try:
            check_eviction(app.valkey, app.settings.valkey_url)
        except ConfigurationError as exc:
            return str(exc)
    return None


def live_workers(app: App) -> Workers:
    """What each live worker last said of itself, by name. In inline mode there are none.

    Raises:
        BrokerUnavailable: Valkey does not answer.
    """
    if app.settings.inline:
        return {}
    with broker_errors():
        return workers.alive(app.valkey, app.keys)


def readers(live: Workers) -> dict[str, list[str]]:
    """The names of the workers that read each queue."""
    found: dict[str, list[str]] = {}
    for name, facts in sorted(live.items()):
        for queue in facts.get("queues", ()):
            found.setdefault(queue, []).append(name)
    return found


def needed_queues(app: App) -> set[str]:
    """The queues that must have a reader: those declared, and those that a task is sent to. The default queue
    exists always, and counts only where some task has no other."""
    names = {queue.name for queue in app.declared_queues}
    for name, task in app.tasks.items():
        if not name.startswith("celery."):
            rules = getattr(task, "rules", None)
            names.add((rules and rules.queue) or getattr(task, "queue", None) or app.conf.task_default_queue)
    return names


def unread_queues(app: App, live: Workers, depths: dict[str, QueueDepth]) -> list[str]:
    """Queues whose messages nobody takes: no live worker reads them."""
    wanted = needed_queues(app) | {name for name, found in depths.items() if found.depth}
    return sorted(wanted - readers(live).keys())


def beat_leads(app: App) -> bool:
    """Whether some beat holds the lead, and so writes the ledger and sends what is due.

    Raises:
        BrokerUnavailable: Valkey does not answer.
    """
    with broker_errors():
        return bool(app.valkey.exists(app.keys.leader))


@dataclass(frozen=True, slots=True)
class Lag:
    """How far the ledger is behind the event stream.

    Args:
        events: how many it does not have yet (on Redis before 7 counted up to 10,000).
        seconds: since the first of them was written.
        missing: how many the stream dropped, ever, before the ledger had them.
        missing_at: when that was last noticed.
    """

    events: int
    seconds: float
    missing: int = 0
    missing_at: datetime | None = None

    @property
    def too_far(self) -> bool:
        """Whether people should know."""
        return self.seconds > _BEHIND_SECONDS or self.events > _BEHIND_EVENTS

    def __str__(self) -> str:
        return f"{self.seconds:.0f} s ({self.events} events)"


def ledger_lag(app: App) -> Lag:
    """How far the ledger is behind, and what it will never have.

    Raises:
        BrokerUnavailable, RecordUnavailable: a server does not answer.
    """
    with record_errors(), app.database.reading() as connection:
        position = writes.read_position(connection, app.keys.events)
    with broker_errors():
        events, seconds = EventStream(app.valkey, app.keys.events).behind(position.entry_id, position.entries)
    return Lag(events, seconds, position.missing, position.missing_at)
