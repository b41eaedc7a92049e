"""Publishes what was committed to the outbox and not sent: its process died, or the broker was away."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

import redis
import structlog
from kombu.exceptions import OperationalError as BrokerError

from errands.core import clock
from errands.core.errors import BrokerUnavailable
from errands.store import outbox, reads, writes
from errands.store.engine import Database
from errands.store.rows import OutboxRow

_log = structlog.get_logger(__name__)

# These tell of the broker and not of the row: the rows behind it would fail the same way.
_AWAY = (BrokerUnavailable, BrokerError, redis.RedisError)
_LONGEST_WAIT = 300.0  # seconds


class Publisher(Protocol):
    """What the relay needs of the app."""

    def publish_outbox(self, rows: Sequence[OutboxRow]) -> dict[str, Exception]: ...


class Relay:
    """Sends the outbox's rows that were not sent, oldest first, and marks them.

    A row that was sent, and whose mark a crash prevented, is sent again: the second sending of a run's
    id is dropped by the broker's side. A row that cannot be sent stays, with its error, and is tried again
    after 2, 4, 8… seconds, every 300 at last; it never goes by itself.

    Args:
        app: publishes.
        database: where the outbox is.
        after: seconds that the committing process has to send a row itself.
        batch: the most rows of one step, which are sent together.
    """

    def __init__(self, app: Publisher, database: Database, *, after: float = 5.0, batch: int = 500) -> None:
        self._app = app
        self._database = database
        self._after = timedelta(seconds=after)
        self._batch = batch

    def step(self) -> int:
        """Send one batch. Returns how many were sent.

        Raises:
            BrokerUnavailable, kombu.exceptions.OperationalError, redis.RedisError: the broker is away; the
                rows stay.
        """
        with self._database.reading() as connection:
            rows = reads.outbox_due(connection, self._after, self._batch)
        if not rows:
            return 0
        try:
            refused = self._app.publish_outbox(rows)
        except _AWAY as exc:
            self._note(rows[0], exc)
            raise
        for row in rows:
            if (error := refused.get(row.id)) is not None:
                self._note(row, error)
                _log.error(
                    "a run in the outbox cannot be sent",
                    run_id=row.id, task=row.task, tries=row.tries + 1, exc_info=error,
                )  # fmt: skip
        sent = [row.id for row in rows if row.id not in refused]
        if sent:
            outbox.mark_sent(self._database, sent)
            _log.info("sent runs that their processes had left in the outbox", count=len(sent))
        return len(sent)

    def _note(self, row: OutboxRow, exc: Exception) -> None:
        wait = min(_LONGEST_WAIT, 2.0 ** min(row.tries + 1, 16))
        with self._database.writing() as connection:
            retry_at = clock.now() + timedelta(seconds=wait)
            writes.outbox_failed(connection, row.id, f"{type(exc).__name__}: {exc}", retry_at)
