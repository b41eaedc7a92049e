"""Deletes payloads whose run is gone: pruned, never sent, or rolled back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Protocol

import structlog

from errands.broker import epoch
from errands.broker.client import Client
from errands.broker.keys import Keys
from errands.core import clock
from errands.store import payloads
from errands.store.engine import Database

_log = structlog.get_logger(__name__)


class App(Protocol):
    """What it needs of the app."""

    @property
    def valkey(self) -> Client: ...

    @property
    def keys(self) -> Keys: ...

    def discard_payloads(self, keys: Iterable[str]) -> None: ...


class PayloadPruner:
    """Deletes payloads that no run can ask for any more.

    A payload lives as long as anybody may send its run again: the ledger has the run, it is in the outbox,
    its dead letter was not replayed, or Valkey knows it. A day goes by first, since a run that was just sent
    is not in the ledger yet.

    Args:
        app: knows the servers, and its own store of payloads.
        database: where the ledger is.
        older_than: how old a payload is before it is looked at.
        batch: payloads of one look.
        stopped: asked between two looks; true ends the step.
    """

    def __init__(
        self, app: App, database: Database, *, older_than: timedelta = timedelta(days=1), batch: int = 200,
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:  # fmt: skip
        self._app = app
        self._database = database
        self._older_than = older_than
        self._batch = batch
        self._stopped = stopped

    def step(self) -> int:
        """Delete all that nobody can ask for. Returns how many.

        Raises:
            redis.RedisError: Valkey is away; what it may know stays.
        """
        deleted, passed = 0, ""
        while not self._stopped():
            with self._database.reading() as connection:
                found = payloads.without_run(connection, clock.now() - self._older_than, passed, self._batch)
            if not found:
                break
            passed = found[-1].key
            run_ids = list({payload.run_id for payload in found})
            gone = set(epoch.unknown(self._app.valkey, self._app.keys, run_ids))
            deleted += self._delete([payload for payload in found if payload.run_id in gone])
        if deleted:
            _log.info("deleted payloads whose runs are gone", count=deleted)
        return deleted

    def _delete(self, found: list[payloads.Kept]) -> int:
        # The rows last: what could not be deleted is found again.
        self._app.discard_payloads([payload.key for payload in found if payload.elsewhere])
        with self._database.writing() as connection:
            payloads.remove(connection, [payload.key for payload in found])
        return len(found)
