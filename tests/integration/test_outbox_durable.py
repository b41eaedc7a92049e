"""Which durable runs are sent again, and when: on a real server, with the clock passed in."""

from __future__ import annotations

import signal
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from errands import Errands, Retry, Settings
from errands.beat.durable import DurableRuns
from errands.beat.recorder import Recorder
from errands.beat.relay import Relay
from errands.broker import workers
from errands.broker.events import EventStream
from errands.core import clock
from errands.core.events import Event, Kind
from errands.core.states import State
from errands.doors.local.valkey import EmbeddedValkey
from errands.store import outbox, reads, tables
from errands.store.engine import Database
from errands.store.rows import RunRow

_PAST = 6.0  # seconds after which what is missing is sent again


class World:
    """An application, its beat's parts, and a clock that the test moves."""

    def __init__(self, url: str, prefix: str, database: Database, folder: Path) -> None:
        settings = Settings(home=folder, broker_url=url, key_prefix=prefix)
        self.app = Errands("durable", settings=settings, queues=["celery"], set_as_current=False)
        self.app.__dict__["database"] = self.database = database

        @self.app.task(name="greet", retry=Retry(5), time_limit=600, soft_time_limit=500)
        def greet(name: str) -> None: ...

        self.seconds = 0.0
        self.durable = DurableRuns(self.app, database, after=0, batch=3, monotonic=lambda: self.seconds)
        self.recorder = Recorder(EventStream(self.app.valkey, self.app.keys.events), database,
                                 name=self.app.keys.events)  # fmt: skip

    def send(self, **options: Any) -> str:
        with self.app.database.session() as session:
            return str(self.app.tasks["greet"].apply_on_commit(session, ("Ann",), **options))

    def tell(self, kind: Kind, run_id: str, **facts: Any) -> None:
        event = Event(kind=kind, run_id=run_id, at=clock.timestamp(), task="greet", **facts)
        self.app.live.record(event, hop=facts.get("attempt", 1) - 1)

    def record(self) -> None:
        while self.recorder.step():
            pass

    def look(self) -> None:
        """Until the end of the outbox."""
        while self.durable.step() == 0:
            pass

    def lose(self) -> None:
        self.record()
        self.app.valkey.flushdb()

    def waiting(self) -> list[str]:
        entries: Any = self.app.valkey.xrange(f"{self.app.settings.key_prefix}q:celery:normal")
        return [msgspec.json.decode(fields[b"m"])["headers"]["id"] for _, fields in entries]

    def headers(self) -> dict[str, Any]:
        entries: Any = self.app.valkey.xrange(f"{self.app.settings.key_prefix}q:celery:normal")
        return dict(msgspec.json.decode(entries[-1][1][b"m"])["headers"])

    def rows(self) -> int:
        with self.database.reading() as connection:
            return connection.scalar(select(func.count()).select_from(tables.outbox)) or 0

    def row(self, run_id: str) -> RunRow:
        with self.database.reading() as connection:
            found = reads.run(connection, run_id)
        assert found is not None
        return found


@pytest.fixture
def world(valkey_url: str, key_prefix: str, database: Database, tmp_path: Path) -> World:
    return World(valkey_url, key_prefix, database, tmp_path)


def test_what_the_server_knows_is_left_alone_however_often_it_is_looked_at(world: World) -> None:
    ids = [world.send() for _ in range(7)]
    for _ in range(3):
        world.look()
        world.seconds += _PAST
    assert (world.waiting(), world.rows()) == (ids, 7)


def test_what_the_server_has_lost_is_sent_again_once(world: World) -> None:
    ids = [world.send() for _ in range(7)]
    world.lose()
    world.look()
    assert world.waiting() == []  # it may be about to be told otherwise
    world.seconds += _PAST
    world.record()
    for _ in range(3):
        world.look()
        world.seconds += _PAST
    assert sorted(world.waiting()) == sorted(ids)
    assert world.rows() == 7


def test_a_run_that_only_the_outbox_knows_is_sent_again(world: World) -> None:
    """The event stream died with the broker before the ledger had read it."""
    run_id = world.send()
    world.app.valkey.flushdb()
    world.look()
    world.seconds += _PAST
    world.look()
    assert world.waiting() == [run_id]


def test_the_ledger_catches_up_before_anything_is_sent_again(world: World) -> None:
    """A run that has ended, and whose live state is forgotten, may not be in the ledger yet."""
    ended, lost = world.send(), world.send()
    world.tell(Kind.STARTED, ended, attempt=1)
    world.tell(Kind.SUCCEEDED, ended, attempt=1)
    world.app.valkey.delete(world.app.keys.run(ended), world.app.keys.run(lost))
    world.look()
    world.seconds += 100 * _PAST
    world.look()
    before = world.waiting()
    world.record()
    world.look()
    assert world.waiting()[len(before) :] == [lost]
    assert world.row(ended).state is State.SUCCEEDED


def test_the_row_goes_with_the_end_in_the_ledger(world: World) -> None:
    first, second = world.send(), world.send()
    for run_id in (first, second):
        world.tell(Kind.STARTED, run_id, attempt=1)
    world.record()
    assert world.rows() == 2
    world.tell(Kind.FAILED, first, attempt=1)
    world.tell(Kind.RETRYING, second, attempt=1, eta=clock.timestamp() + 60)
    world.record()
    with world.database.reading() as connection:
        assert reads.outbox_run(connection, first) is None
        assert reads.outbox_run(connection, second) is not None


def test_a_row_whose_run_has_ended_long_ago_is_taken_out_and_not_sent(world: World) -> None:
    """A follow-up with an id of its own was asked for once more."""
    run_id = world.send(task_id="mine")
    world.tell(Kind.STARTED, run_id, attempt=1)
    world.tell(Kind.SUCCEEDED, run_id, attempt=1)
    world.record()
    assert world.rows() == 0
    world.send(task_id="mine")
    assert world.rows() == 1
    world.look()
    assert (world.rows(), len(world.waiting())) == (0, 1)


def test_attempts_and_tries_go_on_counting(world: World) -> None:
    run_id = world.send()
    for number in (1, 2):
        world.tell(Kind.STARTED, run_id, attempt=number)
        world.tell(Kind.RETRYING, run_id, attempt=number, eta=clock.timestamp() - 1)
    world.tell(Kind.STARTED, run_id, attempt=3)
    world.lose()
    world.look()
    world.seconds += _PAST
    world.look()
    assert world.headers()["retries"] == 2
    live = world.app.live.get(run_id)
    assert live is not None
    assert (live.attempt, live.state) == (3, State.QUEUED)
    world.record()
    assert (world.row(run_id).state, world.row(run_id).attempt) == (State.QUEUED, 3)
    reply = world.app.live.record(
        Event(kind=Kind.STARTED, run_id=run_id, at=clock.timestamp(), task="greet", worker="w"), hop=0
    )
    assert reply.attempt == 4
    world.record()
    with world.database.reading() as connection:
        found = [(row.number, row.outcome) for row in reads.attempts(connection, run_id)]
        assert found == [(1, "retrying"), (2, "retrying"), (3, "lost"), (4, None)]
        assert "the broker had lost it" in (reads.attempts(connection, run_id)[2].error_message or "")


def test_a_run_that_is_due_later_is_due_at_the_same_time(world: World) -> None:
    run_id = world.send(countdown=3600)
    due = world.app.valkey.zrange(f"{world.app.settings.key_prefix}q:celery:delayed", 0, -1, withscores=True)
    world.lose()
    world.look()
    world.seconds += _PAST
    world.look()
    again = world.app.valkey.zrange(
        f"{world.app.settings.key_prefix}q:celery:delayed", 0, -1, withscores=True
    )
    assert again == due
    assert again[0][0].decode() == run_id


def test_a_run_that_a_live_worker_may_be_at_is_left_to_it_until_its_time_is_up(world: World) -> None:
    run_id = world.send()
    began = clock.timestamp()
    world.tell(Kind.STARTED, run_id, attempt=1, worker="w@here")
    world.lose()
    started_before = {"started_at": began - 60}
    workers.report(world.app.valkey, world.app.keys, "w@here", started_before)
    for _ in range(2):
        world.look()
        world.seconds += _PAST
    assert world.waiting() == []
    with clock.use(clock.FakeClock(clock.now() + timedelta(seconds=601))):
        for _ in range(2):
            workers.report(world.app.valkey, world.app.keys, "w@here", started_before)
            world.look()
            world.seconds += _PAST
    assert world.waiting() == [run_id]


@pytest.mark.parametrize("at_it", [True, False])
def test_a_live_worker_says_what_it_is_at(world: World, at_it: bool) -> None:
    """It had told the end, and the broker lost that before the ledger read it."""
    run_id = world.send()
    began = clock.timestamp()
    world.tell(Kind.STARTED, run_id, attempt=1, worker="w@here")
    world.lose()
    facts = {"started_at": began - 60, "at": began + 5, "runs": [run_id] if at_it else []}
    workers.report(world.app.valkey, world.app.keys, "w@here", facts)
    for _ in range(2):
        world.look()
        world.seconds += _PAST
    assert world.waiting() == ([] if at_it else [run_id])


def test_a_worker_that_was_started_since_is_not_at_it(world: World) -> None:
    run_id = world.send()
    world.tell(Kind.STARTED, run_id, attempt=1, worker="w@here")
    world.lose()
    workers.report(world.app.valkey, world.app.keys, "w@here", {"started_at": clock.timestamp() + 1})
    world.look()
    world.seconds += _PAST
    world.look()
    assert world.waiting() == [run_id]


def test_live_states_of_runs_that_wait_for_long_are_kept(world: World) -> None:
    run_id = world.send()
    key = world.app.keys.run(run_id)
    world.app.valkey.expire(key, 60)
    world.look()
    assert world.app.valkey.ttl(key) <= 60
    with clock.use(clock.FakeClock(clock.now() + timedelta(days=6))):
        world.look()
    assert world.app.valkey.ttl(key) > 6 * 24 * 3600


def test_a_revoked_run_is_not_sent_again(world: World) -> None:
    run_id = world.send()
    world.tell(Kind.REVOKED, run_id)
    outbox.remove(world.database, [run_id])  # as the action does
    world.lose()
    for _ in range(2):
        world.look()
        world.seconds += _PAST
    assert world.waiting() == []


def test_a_restart_is_looked_into_at_once(sqlite_database: Database, key_prefix: str, tmp_path: Path) -> None:
    """All of the outbox, one batch after the other, and not one in two seconds."""
    with EmbeddedValkey(tmp_path / "valkey") as server:
        world = World(server.url, key_prefix, sqlite_database, tmp_path)
        for _ in range(10):
            world.send()
        world.look()
        assert world.durable.step() > 0  # in its own time
        server.restart()
        assert [world.durable.step() > 0 for _ in range(4)] == [False, False, False, True]


@pytest.mark.parametrize("loop", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL])
async def test_a_broker_that_is_down_does_not_keep_the_request(
    how: signal.Signals, loop: bool, sqlite_database: Database, key_prefix: str, tmp_path: Path
) -> None:
    """It returns though nobody answers; what nobody heard of, or may have heard of, is one run in the end."""
    with EmbeddedValkey(tmp_path / "valkey") as server:
        world = World(server.url, key_prefix, sqlite_database, tmp_path)
        task = world.app.tasks["greet"]
        world.send()
        assert server.process is not None
        server.process.send_signal(how)
        try:
            if loop:
                async with world.app.database.async_session() as session:
                    run_id = task.delay_on_commit(session, "Ann")
            else:
                with world.app.database.session() as session:
                    run_id = task.delay_on_commit(session, "Ann")
            assert [row.id for row in outbox.rows(sqlite_database, [run_id])] == [run_id]
        finally:
            if how is signal.SIGSTOP:
                server.process.send_signal(signal.SIGCONT)
        if how is signal.SIGKILL:
            server.process.wait()
            server.start()
        assert Relay(world.app, sqlite_database, after=0).step() == 1
        assert world.waiting().count(run_id) == 1
        await world.app.database.adispose()


def test_a_database_that_is_away_after_the_commit_is_not_the_requests_trouble(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from sqlalchemy.exc import OperationalError

    def away(*_: Any) -> None:
        raise OperationalError("UPDATE", {}, Exception("the server has gone away"))

    monkeypatch.setattr(outbox, "mark_sent", away)
    run_id = world.send()
    assert "the relay will send them" in caplog.text
    monkeypatch.undo()
    assert Relay(world.app, world.database, after=0).step() == 1
    assert world.waiting() == [run_id]  # it was sent, and is known
