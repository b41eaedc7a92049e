"""The run that a task is working on, as the task sees it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from errands.core import clock
from errands.core.events import Event, Kind

if TYPE_CHECKING:
    from errands.worker.host import RunLog

_current: ContextVar[Run | None] = ContextVar("errands_run", default=None)


class Run:
    """One attempt at a run. Ask for it by type: `def report(student_id: int, *, run: Run)`.

    Attributes:
        id: the run's id, the same over all attempts; Celery's task id.
        task: the task's name.
        attempt: 1 for the first attempt. A snooze does not count.
        owner: who started the run, or None.
    """

    def __init__(
        self, id: str, task: str, *, attempt: int = 1, owner: str | None = None, hop: int = 0,
        log: RunLog | None = None, interval: float = 0.25,
    ) -> None:  # fmt: skip
        self.id = id
        self.task = task
        self.attempt = attempt
        self.owner = owner
        self.hop = hop
        self._log = log
        self._interval = interval
        self._told_at = float("-inf")
        self._last: dict[str, Any] | None = None

    def progress(self, current: int, total: int | None = None, note: str = "") -> None:
        """Tell how far the work is; who watches sees it within moments.

        May be called as often as one likes: calls that follow each other too fast are not sent, except the
        last one (`current == total`), and the newest is always part of the run's end.

        Args:
            current: what is done so far, 0 or more.
            total: what there is to do in all; None when nobody knows.
            note: a few words for people.

        Raises:
            ValueError: a negative number.
        """
        if current < 0 or (total is not None and total < 0):
            raise ValueError(f"progress({current}, {total}): the numbers must not be negative")
        percentage = None if total is None else (100 if total == 0 else min(100, int(100 * current / total)))
        self._last = {"current": current, "total": total, "percentage": percentage, "note": note}
        now = clock.timestamp()
        if current != total and now - self._told_at < self._interval:
            return
        self._told_at = now
        self._tell(Event(kind=Kind.PROGRESS, run_id=self.id, at=now, progress=self._last))

    def log(self, text: str) -> None:
        """A line for those who watch this run live; it is no part of the record."""
        self._tell(Event(kind=Kind.LOG, run_id=self.id, at=clock.timestamp(), note=text[:2000]))

    @property
    def last_progress(self) -> dict[str, Any] | None:
        """What `progress` was told last, sent or not."""
        return self._last

    def child_id(self, key: str) -> str:
        """An id for a follow-up, the same each time this run asks with the same `key`.

        Sent with it (`task.apply_async(…, task_id=run.child_id("mail"))`), a follow-up that a second
        delivery or a retry sends again is the same run, and is not done twice.
        """
        return str(uuid.uuid5(_as_uuid(self.id), key))

    @contextmanager
    def current(self) -> Iterator[Run]:
        """Make this the current run of the context inside the block."""
        token = _current.set(self)
        try:
            yield self
        finally:
            _current.reset(token)

    def _tell(self, event: Event) -> None:
        if self._log is not None:
            self._log.record(event, hop=self.hop)


def current_run() -> Run | None:
    """The run that this code is part of; None outside of one."""
    return _current.get()


def _as_uuid(text: str) -> uuid.UUID:
    try:
        return uuid.UUID(text)
    except ValueError:  # an id that a plain Celery producer chose itself
        return uuid.uuid5(uuid.NAMESPACE_OID, text)
