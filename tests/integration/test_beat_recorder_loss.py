"""What the event stream dropped before the ledger had it: noticed, counted, told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from errands import Errands
from errands.beat import loss
from errands.beat.recorder import Recorder
from errands.broker.client import Clients
from errands.broker.events import EventStream, Extent
from errands.core import clock
from errands.core.events import Event, Kind
from errands.ops import health, metrics, probes
from errands.ops.doctor import Level, doctor
from errands.store import reads, writes
from errands.store.engine import Database
from errands.store.writes import Position
from ops_app import make_app, settings


class Stream(EventStream):
    """A stream that is written to without the script, and trimmed as a full one would be."""

    def __init__(self, url: str, key: str) -> None:
        self.client = Clients(url).sync
        self.key = key
        self.written = 0
        super().__init__(self.client, key)

    def write(self, count: int) -> None:
        pipe = self.client.pipeline(transaction=False)
        for _ in range(count):
            self.written += 1
            event = Event(
                kind=Kind.QUEUED, run_id=f"r{self.written}", at=clock.timestamp(), task="t", args=[]
            )
            pipe.xadd(self.key, {"e": event.to_json(), "n": 0})
        pipe.execute()

    def cut(self, left: int) -> int:
        return int(self.client.xtrim(self.key, maxlen=left, approximate=False))


@pytest.fixture(params=["valkey_url", "redis_url"])
def stream(request: pytest.FixtureRequest, key_prefix: str) -> Iterator[Stream]:
    made = Stream(request.getfixturevalue(request.param), f"{key_prefix}events")
    yield made
    made.client.close()


def position(database: Database) -> Position:
    with database.reading() as connection:
        return writes.read_position(connection, "events")


def drain(recorder: Recorder) -> int:
    total = 0
    while moved := recorder.step():
        total += moved
    return total


def test_what_was_dropped_is_counted(stream: Stream, sqlite_database: Database) -> None:
    recorder = Recorder(stream, sqlite_database, batch=10)
    stream.write(100)
    assert drain(recorder) == 100
    stream.write(500)
    stream.cut(left=200)
    assert drain(recorder) == 200
    seen = position(sqlite_database)
    assert (seen.entries, seen.missing) == (600, 300)
    assert seen.missing_at is not None
    with sqlite_database.reading() as connection:
        assert reads.counters(connection).runs == {("t", "queued"): 300}
    assert drain(recorder) == 0
    assert position(sqlite_database) == seen  # told once


def test_what_was_dropped_under_way_is_counted_at_the_end(stream: Stream, sqlite_database: Database) -> None:
    """The hole passes by between two looks; the count at the end of the stream tells."""
    recorder = Recorder(stream, sqlite_database, batch=10, monotonic=lambda: 0.0)
    stream.write(10)
    recorder.step()
    stream.write(90)
    stream.cut(left=50)
    assert drain(recorder) == 50
    assert position(sqlite_database).missing == 40


def test_the_recorders_own_trimming_is_no_loss(stream: Stream, sqlite_database: Database) -> None:
    recorder = Recorder(stream, sqlite_database, keep_seconds=-3600)
    stream.write(1000)
    drain(recorder)
    stream.write(300)
    again = Recorder(stream, sqlite_database, keep_seconds=-3600)
    assert drain(again) == 300
    assert stream.length() < 1300
    assert (position(sqlite_database).entries, position(sqlite_database).missing) == (1300, 0)


def test_a_ledger_that_begins_late_misses_nothing(stream: Stream, sqlite_database: Database) -> None:
    stream.write(100)
    stream.cut(left=20)
    assert drain(Recorder(stream, sqlite_database)) == 20
    assert (position(sqlite_database).entries, position(sqlite_database).missing) == (100, 0)


def test_a_server_without_its_data_is_no_loss_of_ours(stream: Stream, sqlite_database: Database) -> None:
    recorder = Recorder(stream, sqlite_database)
    stream.write(100)
    drain(recorder)
    stream.client.delete(stream.key)
    assert recorder.step() == 0
    stream.write(5)
    assert drain(recorder) == 5
    assert position(sqlite_database).missing == 0


def test_a_server_that_does_not_count() -> None:
    """Redis before 7: that something is gone is seen, how much is not."""
    read = Position("5-3")
    whole = Extent(length=9, first_id="5-3", last_id="8-0", added=None)
    assert loss.compare(read, whole) == loss.Finding(read)
    cut = Extent(length=4, first_id="7-0", last_id="8-0", added=None)
    found = loss.compare(read, cut)
    assert found.dropped
    assert not found.exact
    assert writes.entry_order(read.entry_id) < writes.entry_order(found.position.entry_id) < (7, 0)
    assert not loss.compare(found.position, Extent(4, "6-18446744073709551615", "8-0", None)).dropped
    assert not loss.compare(Position(), cut).dropped


# -- told


@pytest.fixture
def app(valkey_url: str, key_prefix: str, sqlite_database: Database, tmp_path: Path) -> Errands:
    return make_app(settings(valkey_url, sqlite_database, key_prefix=key_prefix, home=tmp_path))


def test_health_doctor_and_metrics_tell_of_it(app: Errands) -> None:
    stream = Stream(app.settings.valkey_url, app.keys.events)
    recorder = Recorder(stream, app.database, name=app.keys.events)
    stream.write(10)
    drain(recorder)
    assert not any("dropped" in why for why in health.check(app).why)
    stream.write(30)
    stream.cut(left=5)
    drain(recorder)
    assert any("dropped 25 events" in why for why in health.check(app).why)
    (found,) = [finding for finding in doctor(app) if "dropped 25 events" in finding.what]
    assert found.level is Level.PROBLEM
    assert b"errands_events_missing_total 25.0" in metrics.render(app)[0]


def test_health_and_doctor_tell_how_far_the_ledger_is_behind(app: Errands) -> None:
    stream = Stream(app.settings.valkey_url, app.keys.events)
    stream.write(3)
    drain(Recorder(stream, app.database, name=app.keys.events))
    assert not probes.ledger_lag(app).too_far
    seconds, _ = stream.client.time()
    client = stream.client
    client.delete(stream.key)
    client.xadd(stream.key, {"e": "{}"}, id=f"{int(seconds) - 600}000-0")
    client.xadd(stream.key, {"e": "{}"})
    with app.database.writing() as connection:
        expected = writes.read_position(connection, app.keys.events)
        writes.save_position(connection, app.keys.events, expected, Position(entries=0))
    assert probes.ledger_lag(app).events == 2
    assert probes.ledger_lag(app).seconds > 590
    assert any("(2 events) behind" in why for why in health.check(app).why)
    assert any(f.level is Level.WARNING and "(2 events) behind" in f.what for f in doctor(app))


def test_many_events_are_too_many_however_fresh() -> None:
    assert probes.Lag(100_001, 1.0).too_far
    assert not probes.Lag(100_000, 1.0).too_far
    assert probes.Lag(1, 30.5).too_far
