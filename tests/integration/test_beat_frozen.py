"""A broker that stands still, or dies and comes back: one leader at most, and the beat goes on by itself."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from errands import Errands
from errands.beat.leader import Leader
from errands.beat.pace import GATHER_SECONDS, Pace
from errands.beat.service import BeatService
from errands.core import clock
from errands.core.events import Event, Kind
from errands.doors.local.valkey import EmbeddedValkey
from errands.store import reads
from errands.store.engine import Database
from ops_app import make_app, settings, until

LEASE = 1.0


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A server of the test's own, to be stopped and killed."""
    with EmbeddedValkey(tmp_path / "valkey") as made:
        yield made


class Campaign:
    """A beat's leader thread, without the beat."""

    def __init__(self, url: str, name: str) -> None:
        self.client = redis.Redis.from_url(url, socket_timeout=LEASE / 2, socket_connect_timeout=LEASE / 2)
        self.leader = Leader(self.client, "lead", name, LEASE)
        self.tokens: list[int] = []
        self.failures = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(LEASE / 10):
            try:
                self.leader.step()
            except redis.RedisError:
                self.failures += 1
            token = self.leader.token
            if token and token not in self.tokens:
                self.tokens.append(token)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(30)
        self.client.close()


def both_lead(first: Leader, second: Leader) -> bool:
    """Looked at three times: the first must not have stopped before the second began."""
    return first.leading and second.leading and first.leading


def test_a_frozen_server_makes_no_second_leader(server: EmbeddedValkey) -> None:
    campaigns = [Campaign(server.url, name) for name in ("a", "b")]
    first, second = (campaign.leader for campaign in campaigns)
    overlaps: list[float] = []
    watching = threading.Event()

    def watch() -> None:
        while not watching.is_set():
            if both_lead(first, second) or both_lead(second, first):
                overlaps.append(time.monotonic())

    watcher = threading.Thread(target=watch)
    watcher.start()
    process = server.process
    assert process is not None
    try:
        for _ in range(3):
            until(lambda: first.leading or second.leading)
            failures = [campaign.failures for campaign in campaigns]
            process.send_signal(signal.SIGSTOP)
            until(lambda: not (first.leading or second.leading))  # the leader stopped by itself
            until(lambda seen=failures: all(c.failures > n for c, n in zip(campaigns, seen, strict=True)))
            process.send_signal(signal.SIGCONT)
        until(lambda: first.leading or second.leading)
    finally:
        process.send_signal(signal.SIGCONT)
        watching.set()
        watcher.join(30)
        for campaign in campaigns:
            campaign.stop()
    assert overlaps == []
    tokens = sorted(token for campaign in campaigns for token in campaign.tokens)
    assert len(tokens) == len(set(tokens))


@pytest.fixture
def app(server: EmbeddedValkey, database: Database, key_prefix: str, tmp_path: Path) -> Errands:
    return make_app(settings(server.url, database, key_prefix=key_prefix, home=tmp_path, outbox_after=0))


def queued(app: Errands, run_id: str) -> None:
    app.live.record(
        Event(kind=Kind.QUEUED, run_id=run_id, at=clock.timestamp(), task="add", args=[], kwargs={})
    )


def in_ledger(app: Errands, run_id: str) -> bool:
    with app.database.reading() as connection:
        return reads.run(connection, run_id) is not None


def test_the_beat_goes_on_when_the_server_is_back(app: Errands, server: EmbeddedValkey) -> None:
    beat = BeatService(app, lease_seconds=LEASE)
    beat.start()
    try:
        queued(app, "before")
        until(lambda: in_ledger(app, "before"))
        process = server.process
        assert process is not None

        process.send_signal(signal.SIGSTOP)
        until(lambda: not beat.leader.leading)
        process.send_signal(signal.SIGCONT)
        queued(app, "after-the-thaw")
        until(lambda: in_ledger(app, "after-the-thaw"))

        server.kill()
        until(lambda: not beat.leader.leading)
        with app.database.session() as session:
            waiting = app.tasks["add"].delay_on_commit(session, 1, 2)
        server.start()
        queued(app, "after-the-kill")
        until(lambda: in_ledger(app, "after-the-kill"))
        until(lambda: in_ledger(app, waiting))
        beat.check()
    finally:
        beat.stop()


def test_to_wait_for_events_is_not_to_work(app: Errands, database: Database) -> None:
    """A recorder that found nothing rests no longer for having waited, however busy the machine is."""
    beat = BeatService(app)
    beat._pace = Pace(1_000_000, use=lambda: 100.0, processors=2)
    begun = time.monotonic()
    assert beat._record() == GATHER_SECONDS
    assert time.monotonic() - begun > GATHER_SECONDS  # it has waited
