"""An app with schedules, and a beat that works when a test says so."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import celery.beat

from errands import Errands, Retry, Run, Secret, Settings
from errands.beat.scheduler import Scheduler
from errands.beat.service import BeatService

START = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)


class ByHand(Scheduler):
    """Leads at once, and does what is due and what is to be written when the test says so."""

    def setup_schedule(self) -> None:
        celery.beat.Scheduler.setup_schedule(self)
        self.service = BeatService(self.app)
        self.service.leader.step()

    def turn(self) -> float:
        """What its threads do within seconds."""
        assert self.service is not None
        self.service.leader.step()
        self.book.step()
        wait = self.send_due()
        self.book.write()
        return wait

    def close(self) -> None:
        assert self.service is not None
        self.service.leader.release()


def make_school(settings: Settings) -> Errands:
    """Tasks that tell what they were sent for, and one schedule."""
    made = Errands(
        "school", settings=settings,
        set_as_current=False,
    )  # fmt: skip

    @made.task(name="tidy", queue="tidying")
    def tidy(days: int = 1) -> int:
        return days

    @made.task(name="tell", queue="tidying")
    def tell(*, run: Run) -> list[str]:
        return [str(run.schedule), run.scheduled_for.isoformat() if run.scheduled_for else "now"]

    @made.task(name="flaky", queue="tidying", retry=Retry(1, first=0.1, jitter=0))
    def flaky(*, run: Run) -> list[str]:
        if run.attempt != 2:
            raise ConnectionError("once more")
        return [str(run.schedule), str(run.scheduled_for)]

    @made.task(name="sign", queue="tidying")
    def sign(token: Secret[str]) -> int:
        return len(token)

    made.schedule("hourly", tidy.s(days=7), cron="0 * * * *", tz="Europe/Berlin")
    return made


def messages(app: Errands, queue: str = "tidying") -> list[dict[str, Any]]:
    rows: Any = app.valkey.xrange(app.keys.stream(queue, "normal"))
    return [json.loads(fields[b"m"]) for _, fields in rows]


def sent(app: Errands) -> list[str]:
    return [message["headers"]["id"] for message in messages(app)]
