"""From the event stream into the ledger: nothing lost, nothing doubled, whatever is killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import redis
from sqlalchemy import event as sql_event

from errands.beat.recorder import Recorder
from errands.broker.client import Clients
from errands.broker.events import EventStream
from errands.broker.keys import Keys
from errands.broker.runs import LiveRuns
from errands.core import clock
from errands.core.events import Event, Kind
from errands.core.states import State
from errands.store import reads, writes
from errands.store.engine import Database
from errands.store.writes import Fenced, Position


class Producer:
    """Writes the events of runs as the app and its workers do."""

    def __init__(self, url: str, prefix: str) -> None:
        self.keys = Keys(prefix)
        self.clients = Clients(url)
        self.live = LiveRuns(self.clients, self.keys)
        self.stream = EventStream(self.clients.sync, self.keys.events)

    def record(self, kind: Kind, run_id: str, **facts: Any) -> None:
        self.live.record(Event(kind=kind, run_id=run_id, at=clock.timestamp(), task="t", **facts))

    def run(self, run_id: str) -> None:
        self.record(Kind.QUEUED, run_id, args=[run_id], kwargs={}, queue="q", owner="7")
        self.record(Kind.STARTED, run_id, worker="w")
        self.record(Kind.SUCCEEDED, run_id, result={"id": run_id}, duration=0.02)


@pytest.fixture
def producer(valkey_url: str, key_prefix: str) -> Iterator[Producer]:
    made = Producer(valkey_url, key_prefix)
    yield made
    made.clients.sync.close()


def recorder(producer: Producer, database: Database, **options: Any) -> Recorder:
    return Recorder(producer.stream, database, **options)


def drain(one: Recorder) -> int:
    total = 0
    while moved := one.step():
        total += moved
    return total


def check_exact(database: Database, count: int) -> None:
    with database.reading() as connection:
        assert reads.stats(connection)[State.SUCCEEDED] == count
        totals = reads.counters(connection)
        assert totals.runs == {("t", state): count for state in ("queued", "running", "succeeded")}
        assert [histogram.count for histogram in totals.durations] == [count]
        assert dict(totals.durations[0].buckets)[0.025] == count
        listed = reads.runs(connection, limit=count + 1)
        assert len(listed) == count
        assert len(reads.attempts(connection, listed[0].id)) == 1


def test_a_run_and_its_attempts_are_in_the_ledger(producer: Producer, database: Database) -> None:
    producer.record(
        Kind.QUEUED, "a", args=[1], kwargs={"x": "\0\ud800"}, queue="q", owner="7", max_attempts=4
    )
    producer.record(Kind.STARTED, "a", worker="w1")
    error = {"type": "OSError", "message": "no\0", "traceback": "Traceback \ud83d"}
    producer.record(Kind.RETRYING, "a", error=error, eta=clock.timestamp() + 60, duration=0.5)
    producer.record(Kind.STARTED, "a", worker="w2")
    producer.record(Kind.PROGRESS, "a", progress={"current": 1, "total": 2, "percentage": 50.0, "note": ""})
    producer.record(Kind.SUCCEEDED, "a", result={"rate": float("nan")}, duration=0.25)
    assert drain(recorder(producer, database)) == 6
    with database.reading() as connection:
        run = reads.run(connection, "a")
        assert run is not None
        assert (run.state, run.attempt, run.owner, run.max_attempts) == (State.SUCCEEDED, 2, "7", 4)
        assert run.kwargs == {"x": "\0\ud800"}
        assert run.result == {"rate": None}
        assert run.error_message is None
        first, second = reads.attempts(connection, "a")
        assert (first.outcome, first.worker, first.error_message) == ("retrying", "w1", "no\ufffd")
        assert first.retry_at is not None
        assert first.retry_at.tzinfo is not None
        assert (second.outcome, second.duration) == ("succeeded", 0.25)


async def test_the_same_reads_serve_asyncio(producer: Producer, database: Database) -> None:
    producer.run("a")
    drain(recorder(producer, database))
    async with database.async_reading() as connection:
        run = await connection.run_sync(reads.run, "a")
        assert run is not None
        assert run.state is State.SUCCEEDED
    await database.adispose()


def test_batches_of_any_size_give_the_same(producer: Producer, database: Database) -> None:
    for number in range(20):
        producer.run(f"r{number}")
    assert drain(recorder(producer, database, batch=7)) == 60
    check_exact(database, 20)


def test_it_knows_how_far_it_is_behind(producer: Producer, database: Database) -> None:
    one = recorder(producer, database, batch=2)
    assert one.lag == 0
    seconds, micros = producer.clients.sync.time()
    ago = int(1000 * (seconds + micros / 1e6 - 5))
    told = '{"kind":"queued","run_id":"a","at":1}'
    producer.clients.sync.xadd(producer.keys.events, {"e": told}, id=f"{ago}-0")
    assert one.step() == 1
    assert 5 <= one.lag < 60
    producer.run("b")
    drain(one)
    assert one.step() == 0
    assert one.lag == 0


def test_entries_that_are_no_events_become_dead_letters(producer: Producer, database: Database) -> None:
    producer.run("a")
    client = producer.clients.sync
    client.xadd(producer.keys.events, {"e": b"\xff not json"})
    client.xadd(producer.keys.events, {"e": '{"kind":"started","run_id":"x","at":1e300}'})
    client.xadd(producer.keys.events, {"e": '{"kind":"started","run_id":"x","at":1,"worker":{"no":"name"}}'})
    client.xadd(
        producer.keys.events, {"e": '{"kind":"succeeded","run_id":"x","at":1,"attempt":99999999999999999999}'}
    )
    producer.run("b")
    assert drain(recorder(producer, database)) == 10
    with database.reading() as connection:
        letters = reads.dead_letters(connection)
        assert len(letters) == 4
        assert any("not json" in str(letter.message) for letter in letters)
        assert all(letter.reason for letter in letters)
        assert reads.counters(connection).runs["unknown", "dead_letter"] == 4
        assert reads.stats(connection)[State.SUCCEEDED] == 2


def test_a_dead_letter_keeps_its_message(producer: Producer, database: Database) -> None:
    producer.record(Kind.DEAD_LETTER, "a", note="no such task", message={"body": [1], "nan": float("inf")})
    drain(recorder(producer, database))
    with database.writing() as connection:
        (letter,) = reads.dead_letters(connection, replayed=False)
        assert (letter.run_id, letter.reason, letter.message) == (
            "a",
            "no such task",
            {"body": [1], "nan": None},
        )
        assert writes.mark_replayed(connection, letter.id)
        assert not writes.mark_replayed(connection, letter.id)
        assert reads.dead_letters(connection, replayed=False) == []


def test_what_was_recorded_is_trimmed_after_a_while(producer: Producer, sqlite_database: Database) -> None:
    for number in range(200):
        producer.record(Kind.QUEUED, f"r{number}", args=[], kwargs={})
    drain(recorder(producer, sqlite_database, keep_seconds=3600))
    assert producer.stream.length() == 200
    producer.record(Kind.QUEUED, "last", args=[], kwargs={})
    drain(recorder(producer, sqlite_database, keep_seconds=-3600))
    assert producer.stream.length() < 110  # whole blocks only go, and the newest entry never does
    one = recorder(producer, sqlite_database)
    assert one.step() == 0
    with sqlite_database.reading() as connection:
        assert writes.read_position(connection, "events").doubtful_until == "0-0"


# -- killed, twice, and over a broken server


def _step_and_die(url: str, prefix: str, database_url: str, commits: int) -> None:
    """Record, and be killed at the given commit, before it is done."""
    producer, database = Producer(url, prefix), Database(database_url)
    left = [commits]

    def committing(_: object) -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sql_event.listen(database.engine, "commit", committing)
    drain(recorder(producer, database, batch=25))


def _url(database: Database) -> str:
    return database.url.render_as_string(hide_password=False)


@pytest.mark.parametrize("commits", [1, 3])
def test_killed_between_writing_and_commit(
    producer: Producer, database: Database, valkey_url: str, key_prefix: str, commits: int
) -> None:
    for number in range(40):
        producer.run(f"r{number}")
    database.dispose()
    arguments = (valkey_url, key_prefix, _url(database), commits)
    child = multiprocessing.get_context("fork").Process(target=_step_and_die, args=arguments)
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    with database.reading() as connection:
        seen = len(reads.runs(connection, limit=100))
    assert seen < 40
    assert drain(recorder(producer, database)) == 120 - 25 * (commits - 1)
    check_exact(database, 40)


def test_two_recorders_at_once(producer: Producer, database: Database) -> None:
    writing = threading.Event()

    def produce() -> None:
        for number in range(150):
            producer.run(f"r{number}")
        writing.set()

    def record() -> None:
        one = recorder(producer, database, batch=20, block_ms=20)
        while one.step() or not writing.is_set():
            pass

    threads = [threading.Thread(target=target) for target in (produce, record, record, record)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    drain(recorder(producer, database))
    check_exact(database, 150)


def test_a_fenced_position_is_refused(database: Database) -> None:
    with database.writing() as connection:
        writes.save_position(connection, "s", Position(), Position("5-0"))
    for expected in (Position(), Position("4-0")):
        with pytest.raises(Fenced), database.writing() as connection:
            writes.save_position(connection, "s", expected, Position("9-0"))
    with database.reading() as connection:
        assert writes.read_position(connection, "s") == Position("5-0")


def test_a_server_without_its_data(producer: Producer, database: Database) -> None:
    """What is new is recorded though its ids may lie before the position; the counters stay right."""
    one = recorder(producer, database)
    for number in range(10):
        producer.run(f"r{number}")
    client = producer.clients.sync
    client.xadd(producer.keys.events, {"e": "{}"}, id="9999999999999-0")  # a clock that was ahead
    assert drain(one) == 31
    client.flushall()
    assert one.step() == 0
    for number in range(10, 15):
        producer.run(f"r{number}")
    assert drain(one) == 15
    check_with_letter(database, 15)


def test_a_server_that_lost_the_end(producer: Producer, database: Database) -> None:
    """Entries that were recorded are in the stream again, as after a restart from an older file."""
    client = producer.clients.sync
    for number in range(10):
        producer.run(f"r{number}")
    before = client.dump(producer.keys.events)
    producer.run("tail")
    producer.record(Kind.QUEUED, "twice", args=[], kwargs={})
    one = recorder(producer, database)
    assert drain(one) == 34
    client.delete(producer.keys.events, producer.keys.run("twice"))
    client.restore(producer.keys.events, 0, before)
    assert one.step() == 0
    assert one.step() == 30
    producer.record(Kind.QUEUED, "twice", args=[], kwargs={})
    producer.record(Kind.STARTED, "twice", worker="w")
    producer.record(Kind.SUCCEEDED, "twice", duration=0.02)
    assert drain(one) == 3
    check_exact(database, 12)


def check_with_letter(database: Database, count: int) -> None:
    with database.reading() as connection:
        assert reads.stats(connection)[State.SUCCEEDED] == count
        totals = dict(reads.counters(connection).runs)
        assert totals.pop(("unknown", "dead_letter")) == 1
        assert totals == {("t", state): count for state in ("queued", "running", "succeeded")}


@contextmanager
def broken(database: Database) -> Iterator[None]:
    def refuse(*_: object) -> None:
        raise redis.ConnectionError("gone")

    sql_event.listen(database.engine, "commit", refuse)
    yield
    sql_event.remove(database.engine, "commit", refuse)


def test_a_commit_that_fails_moves_nothing(producer: Producer, database: Database) -> None:
    producer.run("a")
    one = recorder(producer, database)
    with broken(database), pytest.raises(redis.ConnectionError):
        one.step()
    with database.reading() as connection:
        assert reads.run(connection, "a") is None
    assert drain(one) == 3
    check_exact(database, 1)
