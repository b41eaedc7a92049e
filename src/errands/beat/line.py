"""How a beat's sender reaches the broker, as long as the beat leads."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

import psutil
import structlog
from sqlalchemy.exc import SQLAlchemyError

from errands.beat.book import Book
from errands.beat.sender import Answer
from errands.broker.client import Client
from errands.broker.keys import Keys
from errands.broker.operations import Verdict
from errands.broker.schedules import Asked, DueTimes, ask_for
from errands.core.schedule import DueTime, Schedule

_log = structlog.get_logger(__name__)


class App(Protocol):
    """What is needed of an `Errands` app."""

    @property
    def valkey(self) -> Client: ...

    @property
    def keys(self) -> Keys: ...

    @property
    def tasks(self) -> Any: ...

    def send_due(
        self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any], run_id: str, options: dict[str, Any],
        asked: Asked,
    ) -> tuple[Verdict, str] | None: ...  # fmt: skip

    def queue_depth(self, name: str) -> int: ...


class BrokerLine:
    """Sends runs of due times, each if this beat leads and the time was not dealt with before.

    Args:
        app: an `Errands` app.
        book: where people read what became of due times, and where it is looked for when Valkey has lost it.
        lead: the lease of this beat as it is written in Valkey; "" where it does not lead.
        now: the time; by default the server's, so that all beats have the same.
    """

    def __init__(
        self, app: App, book: Book, lead: Callable[[], str], *, now: Callable[[], datetime] | None = None
    ) -> None:
        self._app = app
        self._book = book
        self._lead = lead
        self._times = DueTimes(app.valkey, app.keys)
        self.now = now or self._times.now

    def newest(self) -> dict[str, DueTime]:
        """As `Line.newest`. What Valkey does not know is looked for in the database."""
        found = self._times.newest()
        if self._book.schedules().keys() <= found.keys():
            return found
        try:
            return {**self._book.newest(), **found}
        except SQLAlchemyError as exc:
            if not found:
                raise
            _log.warning("the record of due times cannot be read; what is new begins now", reason=str(exc))
            return found

    def send(self, schedule: Schedule, time: DueTime) -> Answer:
        """As `Line.send`."""
        task = self._app.tasks[schedule.task]
        asked = ask_for(self._lead(), time, skip=schedule.overlap == "skip")
        options = with_marks(schedule, time)
        said = self._app.send_due(
            task, schedule.args, schedule.kwargs, str(time.run_id), dict(options), asked
        )
        if said is not None:
            return said
        # Celery sends it: three steps, of which a crash may leave the last one out. The id makes up for it.
        verdict, about = self._times.ask(asked)
        if verdict is Verdict.OK:
            task.apply_async(schedule.args, schedule.kwargs, task_id=time.run_id, **options)
            verdict = self._times.note(asked)
        return verdict, about

    def note(self, time: DueTime) -> Verdict:
        """As `Line.note`."""
        return self._times.note(ask_for(self._lead(), time))

    def tell(self, time: DueTime) -> None:
        """As `Line.tell`."""
        self._book.tell(time)


class LiveLoad:
    """How busy the system is: the app's queues, and the processors of this machine."""

    def __init__(self, app: App) -> None:
        self._app = app
        psutil.cpu_percent()  # the first call has nothing to compare with

    def waiting(self, queue: str) -> int:
        """As `Load.waiting`."""
        return self._app.queue_depth(queue)

    def cpu(self) -> float:
        """As `Load.cpu`: since the last call, but for at least a tenth of a second."""
        busy = psutil.cpu_percent()
        return busy if busy else psutil.cpu_percent(interval=0.1)


def with_marks(schedule: Schedule, time: DueTime) -> dict[str, Any]:
    """The options of `apply_async`, with what tells the run which due time it is for."""
    headers = dict(schedule.options.get("headers") or {})
    marks = {**(headers.get("errands") or {}), "schedule": schedule.name, "due": time.due.timestamp()}
    options = {key: value for key, value in schedule.options.items() if key != "task_id"}
    return {**options, "headers": {**headers, "errands": marks}}
