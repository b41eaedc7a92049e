"""One run per due time: two beats, a restart, an absence, a killed process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import celery.beat
import pytest
from celery.schedules import crontab

from errands import Errands, Settings
from errands.beat import service as service_module
from errands.beat.leader import Leader
from errands.beat.scheduler import Scheduler
from errands.beat.service import BeatFailed, BeatService
from errands.core import clock
from errands.core.clock import FakeClock
from errands.store import outbox, reads
from errands.store.engine import Database

START = datetime(2026, 3, 1, 12, 0, 30, tzinfo=UTC)


def wait_until(what: Callable[[], bool], seconds: float = 60.0) -> None:
    """Wait for what other threads and processes do."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.02)


@pytest.fixture
def make_app(
    valkey_url: str, key_prefix: str, sqlite_database: Database, tmp_path: Path
) -> Iterator[Callable[[], Errands]]:
    made: list[Errands] = []

    def make() -> Errands:
        app = Errands(
            "school",
            settings=Settings(
                home=tmp_path, broker_url=valkey_url, key_prefix=key_prefix, outbox_after=0,
                database_url=sqlite_database.url.render_as_string(hide_password=False),
            ),
            set_as_current=False,
        )  # fmt: skip

        @app.task(name="tidy", queue="tidying")
        def tidy(days: int = 1) -> None: ...

        app.conf.beat_schedule = {"minutely": {"task": "tidy", "schedule": crontab()}}
        made.append(app)
        return app

    yield make
    for app in made:
        app.close()
        app.database.dispose()


class ByHand(Scheduler):
    """Sends what is due when the test says so."""

    def setup_schedule(self) -> None:
        celery.beat.Scheduler.setup_schedule(self)
        self.service = BeatService(self.app)
        self.service.start()


@pytest.fixture
def beats() -> Iterator[Callable[[Errands], ByHand]]:
    made: list[ByHand] = []

    def make(app: Errands) -> Scheduler:
        made.append(ByHand(app, now=clock.now))
        return made[-1]

    yield make
    for scheduler in made:
        scheduler.close()


@pytest.fixture
def now() -> Iterator[FakeClock]:
    with clock.use(FakeClock(START)) as fake:
        assert isinstance(fake, FakeClock)
        yield fake


def service(scheduler: Scheduler) -> BeatService:
    assert scheduler.service is not None
    return scheduler.service


def leads(scheduler: Scheduler) -> bool:
    return service(scheduler).leader.leading


def sent(app: Errands) -> list[str]:
    """The ids of the messages in the queue, the first one first."""
    rows: Any = app.valkey.xrange(app.keys.stream("tidying", "normal"))
    return [json.loads(fields[b"m"])["headers"]["id"] for _, fields in rows]


def test_two_beats_make_one_run_per_due_time(
    make_app: Callable[[], Errands], beats: Callable[[Errands], ByHand], now: FakeClock
) -> None:
    app = make_app()
    both = [beats(app), beats(make_app())]
    wait_until(lambda: any(leads(beat) for beat in both))
    for beat in both:
        beat.send_due()
    assert sent(app) == []  # new: first due after the moment at which it was first seen
    for minute in range(6):
        if minute == 3:
            leader, follower = sorted(both, key=leads, reverse=True)
            leader.close()
            both.remove(leader)
            wait_until(partial(leads, follower))
            follower.send_due()
        now.advance(60)
        for beat in both:
            beat.send_due()
            beat.send_due()
    assert len(sent(app)) == len(set(sent(app))) == 6


def test_a_beat_that_died_before_it_noted_what_it_sent(
    make_app: Callable[[], Errands], beats: Callable[[Errands], ByHand], now: FakeClock
) -> None:
    """The next one sends the same due time again, under the same id: that is one run."""
    app = make_app()
    first = beats(app)
    wait_until(lambda: leads(first))
    first.send_due()
    before: Any = app.valkey.hgetall(app.keys.schedule_state)
    now.advance(60)
    first.send_due()
    assert len(sent(app)) == 1
    app.valkey.hset(app.keys.schedule_state, mapping=before)
    second = beats(make_app())
    service(second).leader = Leader(app.valkey, "another lease", "second")  # it too believes that it leads
    service(second).leader.step()
    second.send_due()
    assert len(sent(app)) == 1
    now.advance(60)
    second.send_due()
    first.send_due()
    assert len(sent(app)) == 2


def test_an_absence_is_caught_up_with_once(
    make_app: Callable[[], Errands], beats: Callable[[Errands], ByHand], now: FakeClock
) -> None:
    app = make_app()
    first = beats(app)
    wait_until(lambda: leads(first))
    first.send_due()
    first.close()
    now.advance(timedelta(hours=3))
    second = beats(app)
    wait_until(lambda: leads(second))
    assert 0 < second.send_due() <= 5
    assert len(sent(app)) == 1
    second.send_due()
    assert len(sent(app)) == 1


def test_a_changed_schedule_starts_anew(
    make_app: Callable[[], Errands], beats: Callable[[Errands], ByHand], now: FakeClock
) -> None:
    app = make_app()
    first = beats(app)
    wait_until(lambda: leads(first))
    first.send_due()
    first.close()
    now.advance(timedelta(hours=3))
    changed = make_app()
    changed.conf.beat_schedule = {"minutely": {"task": "tidy", "schedule": crontab(minute="*/2")}}
    second = beats(changed)
    wait_until(lambda: leads(second))
    second.send_due()
    assert sent(app) == []


def test_what_cannot_be_sent_is_tried_again_and_holds_up_nobody(
    make_app: Callable[[], Errands], beats: Callable[[Errands], ByHand], now: FakeClock
) -> None:
    app = make_app()
    app.conf.beat_schedule = {
        "bad": {"task": "tidy", "schedule": crontab(), "args": ["many"]},
        "good": {"task": "tidy", "schedule": crontab(), "args": [2]},
    }
    beat = beats(app)
    wait_until(lambda: leads(beat))
    beat.send_due()
    now.advance(60)
    beat.send_due()
    assert len(sent(app)) == 1
    now.advance(60)
    beat.send_due()
    assert len(sent(app)) == 2


def test_a_lazy_scheduler_starts_nothing(make_app: Callable[[], Errands]) -> None:
    scheduler = Scheduler(make_app(), lazy=True)
    assert scheduler.service is None
    scheduler.close()


# -- the service


def test_it_keeps_the_ledger_and_empties_the_outbox(
    make_app: Callable[[], Errands], beats: Callable[[Errands], ByHand]
) -> None:
    app = make_app()
    with app.database.session() as session:
        outbox.add(session, lambda _: None, run_id="left", task="tidy", args=[], kwargs={"days": 2},
                   options={}, owner="7")  # fmt: skip
    beat = beats(app)
    wait_until(lambda: sent(app) == ["left"])

    def recorded() -> bool:
        with app.database.reading() as connection:
            run = reads.run(connection, "left")
            return run is not None and run.owner == "7" and reads.outbox_length(connection) == 0

    wait_until(recorded)
    assert app.valkey.zscore(app.keys.beats, service(beat).name)


def test_a_thread_that_cannot_go_on_ends_the_beat(
    make_app: Callable[[], Errands],
    beats: Callable[[Errands], ByHand],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(service_module, "_LONGEST_WAIT", 0.0)
    monkeypatch.setattr(service_module.Pruner, "step", lambda _: 1 // 0)
    beat = beats(make_app())

    def failed() -> bool:
        try:
            beat.tick()
        except BeatFailed as exc:
            return "pruner" in str(exc)
        return False

    wait_until(failed)


APP = """
from errands import Errands, Settings

app = Errands("school")

@app.task(name="tidy", queue="tidying")
def tidy(days: int = 1) -> None: ...

app.conf.beat_schedule = {"often": {"task": "tidy", "schedule": 0.25}}
"""


def test_a_killed_beat_is_followed_by_another(
    valkey_url: str,
    key_prefix: str,
    sqlite_database: Database,
    tmp_path: Path,
    make_app: Callable[[], Errands],
) -> None:
    app = make_app()
    (tmp_path / "beatapp.py").write_text(APP)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "ERRANDS_HOME": str(tmp_path),
        "ERRANDS_BROKER_URL": valkey_url,
        "ERRANDS_KEY_PREFIX": key_prefix,
        "ERRANDS_DATABASE_URL": sqlite_database.url.render_as_string(hide_password=False),
    }

    def start() -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "celery", "-A", "beatapp", "beat", "--pidfile", ""]
        with (tmp_path / "beat.log").open("ab") as log:
            return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)

    def recorded() -> int:
        with sqlite_database.reading() as connection:
            return reads.counters(connection).runs.get(("tidy", "queued"), 0)

    first = start()
    second = None
    try:
        wait_until(lambda: recorded() >= 2)
        second = start()
        first.kill()
        first.wait()
        at_death = len(sent(app))
        wait_until(lambda: len(sent(app)) >= at_death + 3)
        second.send_signal(signal.SIGTERM)
        assert second.wait(30) == 0
    finally:
        for process in (first, second):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
    last = BeatService(app)
    last.start()
    # The kill may have come between a message and the record of it; the worker's record makes up for that.
    ids = set(sent(app))
    wait_until(lambda: len(ids) - recorded() <= 1)
    last.stop()
    assert recorded() <= len(ids)
