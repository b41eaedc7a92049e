"""The scheduler that `celery -A app beat` runs: one run per due time, however many beats there are."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

import structlog
from celery import beat

from errands.beat.book import Book
from errands.beat.line import BrokerLine, LiveLoad
from errands.beat.sender import Fenced, Sender
from errands.beat.service import BeatService

_log = structlog.get_logger(__name__)

_LONGEST_SLEEP = 1.0  # a row that somebody changed, and a clock that was set, are noticed within this
_LOOK_SECONDS = 1.0
_FOLLOW_SECONDS = 0.5


class Scheduler(beat.Scheduler):
    """Sends what the app's schedules say is due, while its beat leads.

    - Each due time has a run id of its own, made of the schedule's name and the time: twice sent is one run.
    - A run is sent in one step with the note that its time was dealt with, and only while the lease is ours:
      a beat that stood still and wakes up late sends nothing.
    - When each schedule was last due is kept in Valkey, beside the queues: what a crash takes from the one it
      takes from the other, and what was lost is sent again, under the same id. The database has a copy.
    - Things are due by Valkey's clock, which all beats share.

    It works in threads of the beat's service, which it starts: a signal that ends the process is raised in
    the main thread, and would cut a sending off in the middle.
    """

    def __init__(
        self, app: Any, *args: Any, now: Callable[[], datetime] | None = None, **kwargs: Any
    ) -> None:
        self.service: BeatService | None = None
        self.book = Book(app)
        self._sender = Sender(
            app.main or "", BrokerLine(app, self.book, self._lead, now=now), LiveLoad(app),
            most=app.settings.schedule_catch_up_max,
        )  # fmt: skip
        self._token = 0
        super().__init__(app, *args, **kwargs)

    def setup_schedule(self) -> None:
        """Read the schedules and start the service. Not called for a lazy scheduler."""
        super().setup_schedule()
        self.service = BeatService(
            self.app, schedules={"scheduler": self.send_due, "schedules": self._keep_book}
        )
        self.service.start()

    def close(self) -> None:
        """Stop everything."""
        if self.service is not None:
            self.service.stop()
        super().close()

    def tick(self, *_: Any, **__: Any) -> float:
        """Look after the threads. Returns seconds until the next look.

        Raises:
            BeatFailed: one of them has given up; the process ends.
        """
        if self.service is not None:
            self.service.check()
        return _LOOK_SECONDS

    def send_due(self) -> float:
        """Send what is due, if this beat leads. Returns seconds until the next time."""
        token = self.service.leader.token if self.service is not None else 0
        if token == 0:
            self._token = 0
            return _FOLLOW_SECONDS
        try:
            if token != self._token:
                self.book.look()
                self._sender.begin()
                self._token = token
            look_at = self._sender.step(self.book.schedules())
        except Fenced:
            _log.warning("another beat leads; nothing was sent")
            self._token = 0
            return _FOLLOW_SECONDS
        return min(max((look_at - self._sender.line.now()).total_seconds(), 0.01), _LONGEST_SLEEP)

    def _lead(self) -> str:
        leader = self.service.leader if self.service is not None else None
        return f"{self._token}:{leader.name}" if leader is not None and leader.token == self._token else ""

    def _keep_book(self) -> float:
        return self.book.step(self.service is not None and self.service.leader.leading)

    @property
    def info(self) -> str:
        """One line for the banner of `celery beat`."""
        return "    . state -> Valkey, one leader"
