"""Deletes what is older than it has to be kept."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import structlog
from sqlalchemy import Connection

from errands.store import deliveries, retention
from errands.store.effects import prune_effects
from errands.store.engine import Database

_log = structlog.get_logger(__name__)


class Pruner:
    """Deletes in chunks, a transaction each, so that nobody else waits long for the database.

    Args:
        database: where the ledger is.
        run_days: days to keep a run and its attempts after it ended; a run that has not ended stays.
        dead_letter_days: days to keep dead letters and the audit trail.
        chunk: rows a transaction.
        stopped: asked between chunks; true ends the step.
    """

    def __init__(
        self,
        database: Database,
        *,
        run_days: float = 30,
        dead_letter_days: float = 90,
        chunk: int = 1000,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self._database = database
        self._run_days = timedelta(days=run_days)
        self._dead_letter_days = timedelta(days=dead_letter_days)
        self._chunk = chunk
        self._stopped = stopped

    def step(self) -> int:
        """Delete all that is old. Returns how many runs, dead letters and audit rows."""
        kinds: dict[str, Callable[[Connection], int]] = {
            "recipients": partial(deliveries.prune, older_than=self._run_days, limit=self._chunk),
            "runs": partial(retention.prune_runs, older_than=self._run_days, limit=self._chunk),
            "effects": partial(prune_effects, older_than=self._run_days, limit=self._chunk),
            "dead letters": partial(
                retention.prune_dead_letters, older_than=self._dead_letter_days, limit=self._chunk
            ),
            "audit rows": partial(
                retention.prune_audit, older_than=self._dead_letter_days, limit=self._chunk
            ),
        }
        total = 0
        for kind, prune in kinds.items():
            deleted = self._all(prune)
            if deleted:
                _log.info(f"deleted old {kind}", count=deleted)
            total += deleted
        return total

    def _all(self, prune: Callable[[Connection], int]) -> int:
        total = 0
        while not self._stopped():
            with self._database.writing() as connection:
                deleted = prune(connection)
            total += deleted
            if deleted < self._chunk:
                break
        return total
