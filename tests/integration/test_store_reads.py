"""Lists, filters and totals."""

from __future__ import annotations

from datetime import timedelta

import pytest

from errands.core import clock
from errands.core.clock import FakeClock
from errands.core.events import Event, Kind
from errands.core.states import State
from errands.store import reads, writes
from errands.store.engine import Database
from errands.store.ledger_event import LedgerEvent
from errands.store.rows import RunFilter


@pytest.fixture
def ledger(database: Database) -> Database:
    """Ten runs, a minute apart; even ones are Ann's and have succeeded; r0 has two children."""
    with clock.use(FakeClock()):
        start = clock.timestamp()
    events = []
    for number in range(10):
        at, owner = start + 60 * number, "ann" if number % 2 == 0 else "bob"
        parent = "r0" if number in (3, 4) else None
        events.append(
            Event(kind=Kind.QUEUED, run_id=f"r{number}", at=at, task=f"t{number % 3}", queue="q", owner=owner,
                  parent_id=parent, root_id="r0" if parent else None)
        )  # fmt: skip
        if owner == "ann":
            events.append(Event(kind=Kind.SUCCEEDED, run_id=f"r{number}", at=at + 1, attempt=1))
    with database.writing() as connection:
        writes.apply_events(
            connection, [(f"{n}-0", LedgerEvent.of(event)) for n, event in enumerate(events, 1)]
        )
    return database


def listed(database: Database, filters: RunFilter | None = None, **options: object) -> list[str]:
    with database.reading() as connection:
        return [run.id for run in reads.runs(connection, filters, **options)]  # type: ignore[arg-type]


def test_the_newest_come_first_and_pages_join(ledger: Database) -> None:
    seen: list[str] = []
    before = None
    with ledger.reading() as connection:
        while page := reads.runs(connection, limit=3, before=before):
            seen += [run.id for run in page]
            before = page[-1].cursor
    assert seen == [f"r{number}" for number in reversed(range(10))]
    with pytest.raises(ValueError, match="isoformat"):
        listed(ledger, before="no cursor")


def test_filters(ledger: Database) -> None:
    start = FakeClock().timestamp()
    with clock.use(FakeClock()) as now:
        at = clock.now() + timedelta(minutes=7)
        assert now.timestamp() == start
    assert listed(ledger, RunFilter(owner="bob")) == ["r9", "r7", "r5", "r3", "r1"]
    assert listed(ledger, RunFilter(owner="ann", task="t0")) == ["r6", "r0"]
    assert listed(ledger, RunFilter(states=[State.QUEUED], since=at)) == ["r9", "r7"]
    assert listed(ledger, RunFilter(until=at, root_id="r0")) == ["r4", "r3"]
    assert listed(ledger, RunFilter(ids_like="r8")) == ["r8"]
    assert listed(ledger, RunFilter(ids_like="t1")) == ["r7", "r4", "r1"]
    assert listed(ledger, RunFilter(ids_like="%")) == []
    with ledger.reading() as connection:
        assert [run.id for run in reads.children(connection, "r0")] == ["r3", "r4"]


def test_totals(ledger: Database) -> None:
    with clock.use(FakeClock()):
        since = clock.now() + timedelta(minutes=5)
    with ledger.reading() as connection:
        everything = reads.stats(connection)
        assert (everything[State.QUEUED], everything[State.SUCCEEDED], everything[State.FAILED]) == (5, 5, 0)
        assert sum(reads.stats(connection, since).values()) == 5
        assert reads.counters(connection).runs["t0", "queued"] == 4


def test_an_unknown_run(ledger: Database) -> None:
    with ledger.reading() as connection:
        assert reads.run(connection, "nobody") is None
        assert reads.attempts(connection, "nobody") == []
        assert reads.outbox_run(connection, "nobody") is None
        assert reads.dead_letter(connection, "nobody") is None
