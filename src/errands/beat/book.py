"""Which schedules there are just now, and the record of what became of their due times."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Protocol

import structlog
from sqlalchemy.exc import SQLAlchemyError

from errands.core import clock
from errands.core.schedule import DueTime, Schedule, check_names
from errands.store import schedules as store
from errands.store.engine import Database

_log = structlog.get_logger(__name__)

_READ_SECONDS = 2.0
_WRITE_SECONDS = 0.25
_PRUNE_SECONDS = 3600.0
_MOST_UNWRITTEN = 10_000


class App(Protocol):
    """What is needed of an `Errands` app."""

    @property
    def database(self) -> Database: ...

    @property
    def settings(self) -> Any: ...

    @property
    def tasks(self) -> Any: ...

    @property
    def queue_names(self) -> list[str]: ...

    @property
    def declared_schedules(self) -> Mapping[str, Schedule]: ...


class Book:
    """Reads the rows that people change, and writes what the sender tells, in a thread of its own.

    The database may be away for a while: what was read last holds, and what is to be written waits.
    """

    def __init__(self, app: App) -> None:
        self._app = app
        self._found: store.Found | None = None
        self._rows: list[Any] = []
        self._read_at = self._pruned_at = float("-inf")
        self._unwritten: deque[DueTime] = deque(maxlen=_MOST_UNWRITTEN)
        self._lock = threading.Lock()

    def schedules(self) -> dict[str, Schedule]:
        """All schedules that hold, by name: the same objects until one of them changes.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: the database does not answer, and nothing was read yet.
        """
        found = self._found
        return (found if found is not None else self.read()).schedules

    def read(self) -> store.Found:
        """Look at the rows now. Raises as `schedules` does."""
        with self._app.database.reading() as connection:
            rows: list[Any] = list(map(tuple, found_rows := store.rows(connection)))
        with self._lock:
            before = self._found
            if before is not None and rows == self._rows:
                return before
            found = store.merged(self._app.declared_schedules, found_rows, self._check)
            for name, problem in found.problems.items():
                if before is None or before.problems.get(name) != problem:
                    _log.error("a schedule makes no sense and sends nothing", schedule=name, why=problem)
            if before is not None:  # what did not change goes on as it is
                for name, schedule in before.schedules.items():
                    if found.schedules.get(name) == schedule:
                        found.schedules[name] = schedule
            self._rows, self._found = rows, found
        return found

    def _check(self, schedule: Schedule) -> None:
        check_names(schedule, self._app.tasks, self._app.queue_names)

    def newest(self) -> dict[str, DueTime]:
        """Of each schedule the newest due time that was written down."""
        with self._app.database.reading() as connection:
            return store.newest_times(connection)

    def tell(self, time: DueTime) -> None:
        """Let a due time be written down soon."""
        self._unwritten.append(time)

    def look(self) -> None:
        """Read the rows now, if the database answers; else what was read last holds.

        Raises:
            sqlalchemy.exc.SQLAlchemyError: it does not answer, and nothing was read yet.
        """
        try:
            self.read()
        except SQLAlchemyError as exc:
            if self._found is None:
                raise
            _log.warning("the rows of schedules cannot be read; they hold as they were", reason=str(exc))

    def step(self, leading: bool = True) -> float:
        """Read what people changed; while leading, write what was told. Returns seconds until the next call.

        A beat that does not lead reads as well: it may come to lead while the database is away.
        """
        self.write()
        now = clock.timestamp()
        if not 0 <= now - self._read_at < _READ_SECONDS:
            self.read()
            self._read_at = now
        if not leading:
            return _READ_SECONDS
        if not 0 <= now - self._pruned_at < _PRUNE_SECONDS:
            with self._app.database.writing() as connection:
                store.prune_times(connection, timedelta(days=self._app.settings.retention_days))
            self._pruned_at = now
        return _WRITE_SECONDS

    def write(self) -> None:
        """Write down what was told."""
        times = [self._unwritten.popleft() for _ in range(len(self._unwritten))]
        if not times:
            return
        try:
            with self._app.database.writing() as connection:
                store.add_times(connection, times)
        except BaseException:
            self._unwritten.extendleft(reversed(times))
            raise
