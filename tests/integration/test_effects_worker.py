"""Effects under crashes: real processes, killed between an effect and its record."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from errands import Database, EffectUnknown, Run, State
from errands.core.effects import Standing
from errands.core.errors import EffectBusy
from errands.ops.access import ADMIN, Person
from errands.ops.actions import Actions
from errands.ops.effects import EffectOps
from errands.ops.views import Ops
from errands.store.effects import SqlEffects
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
