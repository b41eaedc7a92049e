"""Effects under crashes: real processes, killed between an effect and its record."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from errands import Database, EffectUnknown, Event, Kind, Run, State
from errands.beat.pruner import Pruner
from errands.core import clock
from errands.core.clock import FakeClock
from errands.core.effects import Standing
from errands.core.errors import EffectBusy
from errands.ops.access import ADMIN, Person
from errands.ops.actions import Actions
from errands.ops.effects import EffectOps
from errands.ops.views import Ops
from errands.store.effects import SqlEffects, read_checkpoint
from errands.store.ledger_event import LedgerEvent
from errands.store.writes import apply_events
from work_rig import POOLS, Work, working

ROOT = Person("root", frozenset({ADMIN}))


@pytest.fixture(params=POOLS)
def work(request: pytest.FixtureRequest, valkey_url: str, tmp_path: Path) -> Iterator[Work]:
    with working(request.param, valkey_url, tmp_path) as found:
        yield found


def test_a_kill_between_a_charge_and_its_record_charges_once(work: Work) -> None:
    """Nobody can know, so nobody does it again; a person looks, settles it and retries the run."""
    worker = work.start()
    run_id = work.send("pay", str(work.go))
    work.wait_for("charged")
    worker.kill()
    work.go.touch()
    work.start()
    run = work.ended(run_id, seconds=90)
    assert (run.state, run.facts["error"]["type"]) == (State.DISCARDED, "EffectUnknown")
    assert "'charge' was begun at" in run.facts["error"]["message"]
    assert len(work.words("charged")) == 1
    assert work.words("paid") == []

    told = Ops(work.app).run(ROOT, run_id)["effects"]
    assert [(effect["name"], effect["state"], effect["attempt"]) for effect in told] == [
        ("charge", "unknown", 1)
    ]
    effects = EffectOps(work.app)
    assert [effect["task_id"] for effect in effects.unknown(ROOT)] == [run_id]
    effects.settle(ROOT, run_id, "charge", done=True, result={"receipt": "r-1"}, reason="seen there")
    Actions(work.app).retry(ROOT, run_id)
    assert work.ended(run_id).facts["result"] == {"receipt": "r-1"}
    assert len(work.words("charged")) == 1


def test_with_a_gateway_that_knows_the_key_it_is_simply_done_again(work: Work) -> None:
    worker = work.start()
    run_id = work.send("pay", str(work.go), kwargs={"safe": True})
    work.wait_for("charged")
    worker.kill()
    work.go.touch()
    work.start()
    assert work.ended(run_id).state is State.SUCCEEDED
    keys = work.words("charged")
    assert len(keys) == 2
    assert len(set(keys)) == 1


def test_a_kill_after_the_record_charges_once(work: Work) -> None:
    worker = work.start()
    run_id = work.send("pay_and_wait", str(work.go))
    work.wait_for("waits")
    worker.kill()
    work.go.touch()
    work.start()
    run = work.ended(run_id)
    assert (run.state, run.attempt, run.facts["result"]) == (State.SUCCEEDED, 2, "receipt")
    assert len([line for line in work.effects.read_text().splitlines() if line.startswith("charged")]) == 1


# -- on each kind of database


def test_of_many_copies_at_once_one_does_it(database: Database) -> None:
    store = SqlEffects(lambda: database)
    done: list[int] = []
    told: list[Any] = []
    barrier = threading.Barrier(8)

    def copy(number: int) -> None:
        barrier.wait()
        try:
            told.append(
                Run("r", "pay", attempt=number, effects=lambda: store).once(
                    "charge", lambda: done.append(number)
                )
            )
        except EffectBusy:
            told.append("busy")

    threads = [threading.Thread(target=copy, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 1
    assert len(told) == 8


async def test_kept_released_and_unknown(database: Database) -> None:
    store = SqlEffects(lambda: database)
    run = Run("r", "pay", effects=lambda: store)

    async def fails(error: Exception) -> None:
        raise error

    with pytest.raises(ValueError, match="no"):
        await run.once("a", fails, ValueError("no"))
    assert store.get("r", "a") is None
    assert await run.effect("a", safe_to_repeat=True).once(_receipt) == {"number": 1}
    assert await run.once("a", _receipt) == {"number": 1}
    with pytest.raises(EffectUnknown, match="TimeoutError: no answer"):
        await run.once("b", fails, TimeoutError("no answer"))
    row = store.get("r", "b")
    assert row is not None
    assert row.state is Standing.UNKNOWN


async def _receipt() -> dict[str, int]:
    return {"number": 1}


def test_effects_are_kept_as_long_as_their_runs(database: Database) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with clock.use(FakeClock(start)) as now:
        assert isinstance(now, FakeClock)
        store = SqlEffects(lambda: database)
        for run_id in ("ended", "at-work", "forgotten"):
            Run(run_id, "pay", effects=lambda: store).once("charge", lambda: 1)
        told = [
            (run_id, kind)
            for run_id in ("ended", "at-work")
            for kind in (Kind.STARTED, Kind.CHECKPOINT, Kind.SUCCEEDED)
            if run_id == "ended" or kind is not Kind.SUCCEEDED
        ]
        entries = [
            (
                f"{number}-1",
                LedgerEvent.of(
                    Event(kind=kind, run_id=run_id, at=now.timestamp(), checkpoint={"": {"key": 1}})
                ),
            )
            for number, (run_id, kind) in enumerate(told, start=1)
        ]
        with database.writing() as connection:
            apply_events(connection, entries)
        Pruner(database).step()
        assert all(store.get(run_id, "charge") for run_id in ("ended", "at-work", "forgotten"))
        now.advance(timedelta(days=31))
        Pruner(database).step()
    kept = [store.get(run_id, "charge") is not None for run_id in ("ended", "at-work", "forgotten")]
    assert kept == [False, True, False]
    with database.reading() as connection:
        assert read_checkpoint(connection, "ended") is None
        assert read_checkpoint(connection, "at-work") == {"": {"key": 1}}
