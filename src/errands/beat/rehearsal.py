"""Schedules without a beat, for tests: the same decisions, in this process, as fast as the clock is moved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from errands.beat.line import with_marks
from errands.beat.sender import Answer, Sender
from errands.broker.operations import Verdict
from errands.core import clock
from errands.core.schedule import DueTime, Schedule


class App(Protocol):
    """What is needed of an `Errands` app."""

    main: Any
    settings: Any

    @property
    def live(self) -> Any: ...

    @property
    def tasks(self) -> Any: ...

    @property
    def declared_schedules(self) -> Mapping[str, Schedule]: ...


@dataclass
class FakeLoad:
    """How busy a test says that the system is.

    Args:
        queues: messages that wait, by queue.
        percent: of the processors' time.
    """

    queues: dict[str, int] = field(default_factory=dict)
    percent: float = 0.0

    def waiting(self, queue: str) -> int:
        """As `Load.waiting`."""
        return self.queues.get(queue, 0)

    def cpu(self) -> float:
        """As `Load.cpu`."""
        return self.percent


class MemoryLine:
    """Sends as the app sends just now: inline, captured, or for real."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._newest: dict[str, DueTime] = {}
        self.told: list[DueTime] = []

    def now(self) -> datetime:
        """As `Line.now`: the clock of this process."""
        return clock.now()

    def newest(self) -> dict[str, DueTime]:
        """As `Line.newest`."""
        return dict(self._newest)

    def send(self, schedule: Schedule, time: DueTime) -> Answer:
        """As `Line.send`."""
        known = self._newest.get(schedule.name)
        if known is not None and known.due >= time.due:
            return Verdict.KNOWN, known.run_id or ""
        if schedule.overlap == "skip" and known is not None and known.run_id and self._is_open(known.run_id):
            return Verdict.OVERLAP, known.run_id
        self._newest[schedule.name] = time
        task = self._app.tasks[schedule.task]
        task.apply_async(schedule.args, schedule.kwargs, task_id=time.run_id, **with_marks(schedule, time))
        return Verdict.OK, ""

    def note(self, time: DueTime) -> Verdict:
        """As `Line.note`."""
        self._newest[time.schedule] = time
        return Verdict.OK

    def tell(self, time: DueTime) -> None:
        """As `Line.tell`."""
        self.told.append(time)

    def _is_open(self, run_id: str) -> bool:
        run = self._app.live.get(run_id) if self._app.settings.inline else None
        return run is not None and not run.final


def rehearse(app: App, until: datetime, load: FakeLoad | None = None) -> list[DueTime]:
    """Let the time pass up to `until`, and do what is due on the way.

    Raises:
        RuntimeError: the clock is the real one, which nobody can move.
    """
    line = MemoryLine(app)
    sender = Sender(app.main or "", line, load or FakeLoad(), most=app.settings.schedule_catch_up_max)
    schedules = {name: replace(each, since=None) for name, each in app.declared_schedules.items()}
    while True:
        look_at = min(sender.step(schedules), until)
        wait = (look_at - clock.now()).total_seconds()
        if wait > 0:
            clock.pass_time(wait)
            if clock.now() < look_at:
                raise RuntimeError(
                    "the clock does not move: use the fixture errands_clock, or clock.use(FakeClock())"
                )
        elif look_at >= until:
            return [time for time in line.told if time.outcome != "ended"]
