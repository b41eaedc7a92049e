"""What the relay sends and the pruner deletes."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from errands.beat.pruner import Pruner
from errands.beat.relay import Relay
from errands.core import clock
from errands.core.clock import FakeClock
from errands.core.errors import BrokerUnavailable
from errands.core.events import Event, Kind
from errands.store import outbox, reads, writes
from errands.store.engine import Database
from errands.store.ledger_event import LedgerEvent
from errands.store.rows import OutboxRow
from errands.store.tables import attempts


class App:
    """Takes what is published, unless it is told not to."""

    def __init__(self) -> None:
        self.sent: list[OutboxRow] = []
        self.commits = 0
        self.fail: dict[str, Exception] = {}
        self.away: Exception | None = None

    def publish_outbox(self, rows: Sequence[OutboxRow]) -> dict[str, Exception]:
        if self.away is not None:
            raise self.away
        self.commits += 1
        self.sent += [row for row in rows if row.id not in self.fail]
        return {row.id: self.fail[row.id] for row in rows if row.id in self.fail}


def commit(database: Database, *run_ids: str) -> None:
    """Commit runs as a process does that dies before it sends them."""
    with database.session() as session:
        for run_id in run_ids:
            outbox.add(
                session, lambda _: None, run_id=run_id, task="t", args=[1], kwargs={"a": 1},
                options={"queue": "q"}, owner="7",
            )  # fmt: skip


def waiting(database: Database) -> dict[str, OutboxRow]:
    with database.reading() as connection:
        rows = [reads.outbox_run(connection, run_id) for run_id in ("a", "b", "c")]
    return {row.id: row for row in rows if row is not None and row.sent_at is None}


def test_it_sends_what_was_left_behind(database: Database) -> None:
    app = App()
    relay = Relay(app, database, after=5)
    with clock.use(FakeClock()) as now:
        assert isinstance(now, FakeClock)
        commit(database, "a", "b")
        assert relay.step() == 0  # their own process may still send them
        now.advance(5)
        assert relay.step() == 2
        assert relay.step() == 0
    assert [row.id for row in app.sent] == ["a", "b"]
    assert app.commits == 1
    assert (app.sent[0].args, app.sent[0].kwargs, app.sent[0].options) == ([1], {"a": 1}, {"queue": "q"})
    assert waiting(database) == {}


def test_a_row_that_cannot_be_sent_waits_and_holds_up_nobody(database: Database) -> None:
    app = App()
    app.fail["a"] = ValueError("bad options")
    relay = Relay(app, database, after=0)
    with clock.use(FakeClock()) as now:
        assert isinstance(now, FakeClock)
        commit(database, "a", "b")
        assert relay.step() == 1
        row = waiting(database)["a"]
        assert (row.tries, row.last_error) == (1, "ValueError: bad options")
        assert relay.step() == 0
        waits = []
        for _ in range(10):
            due = waiting(database)["a"].retry_at
            assert due is not None
            waits.append((due - clock.now()).total_seconds())
            now.advance(due - clock.now())
            relay.step()
        assert waits == [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]
        app.fail.clear()
        now.advance(300)
        assert relay.step() == 1
    assert waiting(database) == {}


def test_a_broker_that_is_away_ends_the_step(database: Database) -> None:
    app = App()
    app.away = BrokerUnavailable("no")
    for run_id in ("a", "b", "c"):
        commit(database, run_id)
    relay = Relay(app, database, after=0)
    with pytest.raises(BrokerUnavailable):
        relay.step()
    assert app.sent == []
    assert {run_id: row.tries for run_id, row in waiting(database).items()} == {"a": 1, "b": 0, "c": 0}
    app.away = None
    assert relay.step() == 2  # the first one waits a little
    assert [row.id for row in app.sent] == ["b", "c"]


def test_pruning_deletes_what_is_old_and_ended(database: Database) -> None:
    def life(run_id: str, at: float, *, ends: bool = True) -> list[Event]:
        kinds = [Kind.QUEUED, Kind.STARTED, *([Kind.SUCCEEDED] if ends else [])]
        return [Event(kind=kind, run_id=run_id, at=at, task="t", attempt=1, duration=1.0) for kind in kinds]

    with clock.use(FakeClock()):
        now = clock.timestamp()
        old = now - timedelta(days=31).total_seconds()
        events = [one for n in range(25) for one in life(f"old-{n}", old)]
        events += life("new", now) + life("old-and-open", old, ends=False)
        events += [
            Event(
                kind=Kind.DEAD_LETTER, run_id="d", at=now - timedelta(days=days).total_seconds(), note="why"
            )
            for days in (1, 89, 91)
        ]
        with database.writing() as connection:
            writes.apply_events(
                connection, [(f"{n}-0", LedgerEvent.of(one)) for n, one in enumerate(events, 1)]
            )
            writes.add_audit(
                connection, audit_id="1", actor="ann", action="retry", target="new", reason="asked"
            )
        pruner = Pruner(database, run_days=30, dead_letter_days=90, chunk=10)
        assert pruner.step() == 26
        assert pruner.step() == 0
        with database.reading() as connection:
            assert {run.id for run in reads.runs(connection)} == {"new", "old-and-open"}
            assert connection.scalar(select(func.count()).select_from(attempts)) == 2
            assert len(reads.dead_letters(connection)) == 2
            assert [row.reason for row in reads.audit(connection, target="new")] == ["asked"]
            assert reads.counters(connection).runs["t", "succeeded"] == 26


def test_pruning_ends_between_chunks_when_asked(sqlite_database: Database) -> None:
    events = [Event(kind=Kind.REVOKED, run_id=f"r{n}", at=1.0) for n in range(30)]
    with sqlite_database.writing() as connection:
        writes.apply_events(connection, [(f"{n}-0", LedgerEvent.of(one)) for n, one in enumerate(events, 1)])
    asked: list[int] = []

    def stopped() -> bool:
        asked.append(1)
        return len(asked) > 2  # of recipients there are none; then between two chunks of runs

    assert Pruner(sqlite_database, chunk=10, stopped=stopped).step() == 10
