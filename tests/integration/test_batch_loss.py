"""Batches after the broker lost its data: nothing is told of them that is not known."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from errands import BatchStatus, Errands, Keyring, RunNotFound, Settings, State
from errands.beat.batches import BatchKeeper
from errands.beat.durable import DurableRuns
from errands.beat.lost_batches import LostBatches
from errands.beat.recorder import Recorder
from errands.broker.events import EventStream
from errands.broker.runs import Verdict
from errands.core import clock
from errands.core.events import Event, Kind
from errands.store import outbox, reads
from errands.store.engine import Database
from errands.store.rows import RunRow
from limits_desk import Desk, slots


class World:
    """An application, its beat's parts, and a clock that the test moves."""

    def __init__(self, url: str, prefix: str, database: Database, folder: Path) -> None:
        settings = Settings(
            home=folder, broker_url=url, key_prefix=prefix, secret_keys=Keyring.new_key()
        )  # fmt: skip
        self.app = Errands("lost-batches", settings=settings, set_as_current=False)
        self.app.__dict__["database"] = self.database = database

        @self.app.task(name="report", queue="reports")
        def report(n: int) -> None: ...

        @self.app.task(name="tidy", queue="after")
        def tidy(outcome: BatchStatus) -> None: ...

        @self.app.task(name="announce", queue="after")
        def announce(outcome: BatchStatus) -> None: ...

        self.seconds = 0.0
        self.durable = DurableRuns(self.app, database, after=0, batch=3, monotonic=lambda: self.seconds)
        self.lost = LostBatches(self.app, database, monotonic=lambda: self.seconds)
        self.recorder = Recorder(
            EventStream(self.app.valkey, self.app.keys.events), database, name=self.app.keys.events
        )

    @property
    def following(self) -> dict[str, Any]:
        return {"on_success": self.app.tasks["announce"].s(), "on_complete": self.app.tasks["tidy"].s()}

    def durable_batch(self, count: int, **options: Any) -> tuple[Any, list[str]]:
        report = self.app.tasks["report"]
        with self.app.database.session() as session:
            with self.app.batch_on_commit(session, "May", **self.following, **options) as batch:
                ids = [report.delay_on_commit(session, n) for n in range(count)]
        return batch, ids

    def tell(self, kind: Kind, run_id: str, **facts: Any) -> None:
        given: dict[str, Any] = {"at": clock.timestamp(), "task": "report", "attempt": 1, **facts}
        self.app.live.record(Event(kind=kind, run_id=run_id, **given), hop=0)

    def end(self, run_id: str, kind: Kind = Kind.SUCCEEDED) -> None:
        self.tell(Kind.STARTED, run_id)
        self.tell(kind, run_id)

    def record(self) -> None:
        while self.recorder.step():
            pass

    def flush(self) -> None:
        """All that the ledger has heard stays; all else is lost."""
        self.app.valkey.flushdb()

    def lose(self) -> None:
        self.record()
        self.flush()

    def recover(self) -> None:
        """What the beat does in some seconds."""
        for _ in range(3):
            self.record()
            while self.durable.step() == 0:
                pass
            self.lost.step()
            self.seconds += 7.0

    def look(self) -> None:
        self.record()
        self.seconds += 7.0
        self.lost.step()
        self.record()

    def followed(self) -> list[str]:
        rows: Any = self.app.valkey.xrange(self.app.keys.stream("after", "normal"))
        bodies = [fields[b"m"].decode() for _, fields in rows]
        return [name for body in bodies for name in ("announce", "tidy") if f'"task":"{name}"' in body]

    def row(self, run_id: str) -> RunRow:
        with self.database.reading() as connection:
            found = reads.run(connection, run_id)
        assert found is not None
        return found


@pytest.fixture
def world(valkey_url: str, key_prefix: str, database: Database, tmp_path: Path) -> Iterator[World]:
    made = World(valkey_url, key_prefix, database, tmp_path)
    yield made
    made.app.close()


def test_members_that_had_ended_before_the_loss_are_counted(world: World) -> None:
    batch, ids = world.durable_batch(10)
    for run_id in ids[:4]:
        world.end(run_id)
    world.lose()
    world.recover()
    status = batch.status()
    assert (status.state, status.total, status.succeeded) == (State.RUNNING, 10, 4)
    for run_id in ids[4:]:
        assert world.followed() == []
        world.end(run_id)
        world.look()
    status = batch.status()
    assert (status.state, status.total, status.succeeded) == (State.SUCCEEDED, 10, 10)
    assert status.fault == ""
    for _ in range(2):
        world.look()
    assert world.followed() == ["announce", "tidy"]
    assert world.row(batch.id).state is State.SUCCEEDED
    assert world.app.batches.rebuilt() == []


def test_a_member_at_work_during_the_loss_is_counted_when_its_worker_tells_its_end(world: World) -> None:
    batch, ids = world.durable_batch(2)
    for run_id in ids:
        world.tell(Kind.STARTED, run_id)
    world.lose()
    for run_id in ids:  # the server knows nothing of it, and hears of its end
        world.tell(Kind.FAILED if run_id == ids[0] else Kind.SUCCEEDED, run_id)
    world.recover()
    world.look()
    status = batch.status()
    assert (status.state, status.total, status.done) == (State.FAILED, 2, 2)
    assert status.failed_ids == (ids[0],)
    assert world.followed() == ["tidy"]


def test_an_end_that_the_ledger_had_not_read_is_done_again_before_the_batch_ends(world: World) -> None:
    batch, ids = world.durable_batch(3)
    world.end(ids[0])
    world.record()
    world.end(ids[1])
    world.flush()
    world.recover()
    assert (batch.status().total, batch.status().done) == (3, 1)
    for run_id in ids[1:]:
        world.end(run_id)
    world.look()
    assert batch.status().state is State.SUCCEEDED
    assert world.followed() == ["announce", "tidy"]


def test_a_member_that_is_not_durable_is_missed(world: World) -> None:
    batch, ids = world.durable_batch(2)
    world.tell(Kind.STARTED, ids[0])
    with world.app.get_batch(batch.id):
        world.app.tasks["report"].delay(7)
    world.end(ids[1])
    world.tell(Kind.SUCCEEDED, ids[0])
    world.lose()
    world.recover()
    world.look()
    status = batch.status()
    assert (status.state, status.total, status.succeeded, status.pending) == (State.FAILED, 3, 2, 1)
    assert "the broker lost its data: 1 runs" in status.fault
    assert world.followed() == ["tidy"]
    assert world.row(batch.id).state is State.FAILED


def test_a_run_below_a_member_that_may_have_been_one_is_missed(world: World) -> None:
    """The next link of a chain is a member, and has the link before it as its parent."""
    batch, ids = world.durable_batch(2)
    world.app.tasks["report"].apply_async((1,), task_id="link", parent_id=ids[0], root_id=batch.id)
    world.end(ids[0])
    world.lose()
    world.recover()
    world.end(ids[1])
    world.look()
    assert batch.status().state is State.FAILED
    assert "the broker lost its data" in batch.status().fault


def test_members_that_are_sent_after_the_loss_are_waited_for(world: World) -> None:
    batch, ids = world.durable_batch(1)
    world.lose()
    world.recover()
    world.tell(Kind.STARTED, ids[0])
    with world.app.get_batch(batch.id):
        more = world.app.tasks["report"].delay(7).id
    world.tell(Kind.SUCCEEDED, ids[0])
    world.look()
    assert (batch.status().state, batch.status().total) == (State.RUNNING, 2)
    world.end(more)
    world.look()
    assert (batch.status().state, batch.status().succeeded) == (State.SUCCEEDED, 2)
    assert world.followed() == ["announce", "tidy"]


def test_members_are_lost_before_the_batch_begins(world: World) -> None:
    """The process dies between two of its chunks, and the broker loses the first one."""
    with world.app.database.session() as session:
        with world.app.batch_on_commit(session, "May", **world.following) as batch:
            ids = [world.app.tasks["report"].delay_on_commit(session, n) for n in range(4)]
        session.info["errands_outbox"].clear()
    rows = outbox.rows(world.database, ids[:2])
    assert world.app.publish_outbox(rows) == {}
    outbox.mark_sent(world.database, ids[:2])
    world.flush()
    with clock.use(clock.FakeClock(clock.now() + timedelta(minutes=1))):
        assert world.app.publish_outbox(outbox.rows(world.database, [*ids[2:], batch.id])) == {}
        outbox.mark_sent(world.database, [*ids[2:], batch.id])
    world.recover()
    for run_id in ids[2:]:
        world.end(run_id)
    world.look()
    assert (batch.status().state, batch.status().total, batch.status().done) == (State.RUNNING, 4, 2)
    for run_id in ids[:2]:
        world.end(run_id)
    world.look()
    assert (batch.status().state, batch.status().done) == (State.SUCCEEDED, 4)


def test_a_second_loss(world: World) -> None:
    batch, ids = world.durable_batch(4)
    for number in (0, 1):
        world.end(ids[number])
        world.lose()
        world.recover()
        assert (batch.status().total, batch.status().done) == (4, number + 1)
    for run_id in ids[2:]:
        world.end(run_id)
    world.look()
    assert (batch.status().state, batch.status().done) == (State.SUCCEEDED, 4)
    assert world.followed() == ["announce", "tidy"]


def test_a_rebuilt_batch_that_falls_silent_is_given_up(world: World) -> None:
    batch, ids = world.durable_batch(2, expires=60)
    world.end(ids[0])
    world.lose()
    world.recover()
    world.app.valkey.zadd(world.app.keys.batches, {batch.id: 1})  # its time is over
    BatchKeeper(world.app).step()
    world.look()
    status = batch.status()
    assert (status.state, status.total, status.done) == (State.FAILED, 2, 1)
    assert "1 of 2 runs have not ended" in status.fault
    assert world.followed() == ["tidy"]
    world.end(ids[1])
    world.look()
    assert world.followed() == ["tidy"]


def test_a_rebuilt_batch_is_revoked(world: World) -> None:
    batch, ids = world.durable_batch(2)
    world.lose()
    world.recover()
    batch.revoke("not needed")
    for run_id in ids:
        world.tell(Kind.STARTED, run_id)
    world.look()
    assert (batch.status().state, batch.status().failed) == (State.REVOKED, 2)
    assert world.followed() == ["tidy"]


def test_a_batch_that_is_not_durable_fails_in_the_ledger(world: World) -> None:
    now = clock.now()
    with world.app.batch("June", **world.following) as batch:
        ids = world.app.tasks["report"].delay_many([(n,) for n in range(3)])
    with world.app.batch("July") as other:
        world.app.tasks["report"].delay(1)
    world.end(ids[0])
    world.lose()
    with pytest.raises(RunNotFound):
        batch.status()
    with clock.use(clock.FakeClock(now + timedelta(minutes=1))):
        world.lost.step()
        assert world.row(batch.id).state is State.RUNNING  # a server may be about to come back
        world.look()
    for made, total, done in ((batch, 3, 1), (other, 1, 0)):
        row = world.row(made.id)
        assert row.state is State.FAILED
        assert f"{done} of {total} runs are known to have ended" in (row.error_message or "")
        assert row.result == {"total": total, "succeeded": done, "failed": 0}


def test_members_of_a_revoked_batch_that_wait_for_a_limit_go_without_a_pause(
    valkey_url: str, key_prefix: str
) -> None:
    """The place of one that will not start is given to the next one by the call that finds it out."""
    desk = Desk(valkey_url, key_prefix)
    ids = [f"run-{n}" for n in range(5)]
    desk.queued(*ids)
    for run_id in ids:
        desk.server.hset(f"{desk.keys.prefix}run:{run_id}", "batch", "letters")
    desk.start("x", slots())
    for since, run_id in enumerate(ids):
        desk.wait(run_id, slots(), since=since)
    desk.server.hset(f"{desk.keys.prefix}batch:letters", mapping={"state": "revoked", "total": 5})
    desk.end("x")
    for run_id in ids:
        assert desk.sent()[-1:] == [run_id]
        assert desk.start(run_id, slots()).verdict is Verdict.REFUSED
    assert desk.left() == []


def test_a_batch_that_the_server_knows_is_left_alone(world: World) -> None:
    now = clock.now()
    with world.app.batch("June") as batch:
        world.app.tasks["report"].delay(1)
    world.record()
    with clock.use(clock.FakeClock(now + timedelta(minutes=1))):
        for _ in range(3):
            world.look()
    assert (world.row(batch.id).state, batch.status().state) == (State.RUNNING, State.RUNNING)
