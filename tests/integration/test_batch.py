"""Batches as the server counts them, without workers: what members say of themselves is recorded here."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import chain, group

from errands import (
    ActionRefused,
    BatchStatus,
    Errands,
    Event,
    Keyring,
    Kind,
    Settings,
    State,
)
from errands.beat.batches import BatchKeeper
from errands.broker.events import EventStream
from errands.broker.operations import said_again
from errands.core.errors import BrokerUnavailable


@pytest.fixture(params=["valkey_url", "redis_url"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(request.param))


@pytest.fixture
def app(url: str, key_prefix: str, tmp_path: Path) -> Iterator[Errands]:
    settings = Settings(home=tmp_path, broker_url=url, key_prefix=key_prefix, secret_keys=Keyring.new_key())
    made = Errands("batches", settings=settings, set_as_current=False)

    @made.task(name="report", queue="reports")
    def report(n: int) -> int:
        return n

    @made.task(name="announce", queue="after")
    def announce(term: int, outcome: BatchStatus) -> None: ...

    @made.task(name="tidy", queue="after")
    def tidy(outcome: BatchStatus) -> None: ...

    yield made
    made.close()


@pytest.fixture
def server(url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(url) as client:
        yield client


class Bench:
    """An app whose runs are moved by hand."""

    def __init__(self, app: Errands, server: redis.Redis) -> None:
        self.app, self.server = app, server
        self.report = app.tasks["report"]

    def batch(self, **options: Any) -> Any:
        follows = {
            "on_success": self.app.tasks["announce"].s(term=5),
            "on_complete": self.app.tasks["tidy"].s(),
        }
        return self.app.batch("May", **{**follows, **options})

    def say(self, kind: Kind, run_id: str, **facts: Any) -> Any:
        return self.app.live.record(Event(kind=kind, run_id=run_id, at=time.time(), **facts), hop=0)

    def end(self, run_id: str, kind: Kind = Kind.SUCCEEDED) -> None:
        self.say(Kind.STARTED, run_id)
        self.say(kind, run_id)

    def followed(self) -> list[str]:
        rows: Any = self.server.xrange(self.app.keys.stream("after", "normal"))
        bodies = [fields[b"m"].decode() for _, fields in rows]
        return [name for body in bodies for name in ("announce", "tidy") if f'"task":"{name}"' in body]

    def told(self, run_id: str, kind: Kind) -> list[Event]:
        entries = EventStream(self.server, self.app.keys.events).read(count=100_000)
        return [event for _, event, _ in entries if event and (event.run_id, event.kind) == (run_id, kind)]


@pytest.fixture
def bench(app: Errands, server: redis.Redis) -> Bench:
    return Bench(app, server)


ENDS = [Kind.FAILED, Kind.DISCARDED, Kind.REVOKED, Kind.EXPIRED]


# -- counting


def test_the_last_end_brings_the_follow_ups(bench: Bench) -> None:
    with bench.batch() as batch:
        ids = bench.report.delay_many([(1,), (2,), (3,)])
    for run_id in ids[:-1]:
        bench.end(run_id)
    assert (bench.followed(), batch.status().state) == ([], State.RUNNING)
    bench.end(ids[-1])
    assert bench.followed() == ["announce", "tidy"]
    status = batch.status()
    assert (status.state, status.total, status.done, status.percentage) == (State.SUCCEEDED, 3, 3, 100)


@pytest.mark.parametrize("kind", ENDS)
def test_however_a_member_ends_it_has_ended(bench: Bench, kind: Kind) -> None:
    with bench.batch() as batch:
        good, bad = bench.report.delay_many([(1,), (2,)])
    bench.say(kind, bad)  # nobody ran it
    bench.end(good)
    status = batch.status()
    assert (status.state, status.succeeded, status.failed) == (State.FAILED, 1, 1)
    assert status.failed_ids == (bad,)
    assert bench.followed() == ["tidy"]


def test_members_that_end_before_the_block_does(bench: Bench) -> None:
    with bench.batch() as batch:
        bench.end(bench.report.delay(1).id)
        assert (batch.status().pending, bench.followed()) == (0, [])
        bench.end(bench.report.delay(2).id)
    assert (batch.status().state, bench.followed()) == (State.SUCCEEDED, ["announce", "tidy"])


def test_an_end_that_is_said_twice_counts_once(bench: Bench) -> None:
    with bench.batch() as batch:
        one, two = bench.report.delay_many([(1,), (2,)])
    bench.end(one)
    bench.end(one)
    bench.say(Kind.FAILED, one)
    assert (batch.status().done, batch.status().failed) == (1, 0)
    bench.end(two)
    assert bench.followed() == ["announce", "tidy"]


def test_a_sending_that_is_said_twice_joins_once(bench: Bench, app: Errands) -> None:
    """As when the answer to the first was lost with its connection."""
    commit, said = app._live_runs.commit, []

    def twice(operations: Any, **options: Any) -> Any:
        said.append(len(operations))
        replies = commit(operations, **options)
        commit([said_again(each) for each in operations], **options)
        return replies

    app._live_runs.commit = twice  # type: ignore[method-assign]
    with bench.batch() as batch:
        ids = bench.report.delay_many([(n,) for n in range(5)])
        bench.report.apply_async((1,), task_id=ids[0])  # known
    assert said
    assert batch.status().total == 5
    for run_id in ids:
        bench.end(run_id)
    assert bench.followed() == ["announce", "tidy"]


def test_a_late_owner_does_not_count(bench: Bench) -> None:
    with bench.batch() as batch:
        run_id = bench.report.delay(1).id
    bench.say(Kind.STARTED, run_id)
    bench.app.live.record(Event(kind=Kind.STARTED, run_id=run_id, at=1.0), hop=0, redelivered=True)
    late = Event(kind=Kind.FAILED, run_id=run_id, at=1.0)
    assert bench.app.live.record(late, hop=0, attempt=1).verdict == "stale"
    assert batch.status().done == 0
    bench.app.live.record(Event(kind=Kind.SUCCEEDED, run_id=run_id, at=1.0), hop=0, attempt=2)
    assert batch.status().state is State.SUCCEEDED


def test_a_member_that_a_person_retries_is_pending_again(bench: Bench) -> None:
    with bench.batch() as batch:
        one, two = bench.report.delay_many([(1,), (2,)])
    bench.end(one, Kind.FAILED)
    bench.say(Kind.REOPENED, one)
    assert (batch.status().pending, batch.status().failed_ids) == (2, ())
    bench.end(two)
    assert bench.followed() == []
    bench.app.live.record(Event(kind=Kind.STARTED, run_id=one, at=1.0), hop=1)
    bench.app.live.record(Event(kind=Kind.SUCCEEDED, run_id=one, at=1.0), hop=1)
    assert (batch.status().state, bench.followed()) == (State.SUCCEEDED, ["announce", "tidy"])


def test_a_member_retried_after_the_end_corrects_the_counts_and_nothing_comes_again(bench: Bench) -> None:
    with bench.batch() as batch:
        one = bench.report.delay(1).id
    bench.end(one, Kind.FAILED)
    assert bench.followed() == ["tidy"]
    bench.say(Kind.REOPENED, one)
    bench.app.live.record(Event(kind=Kind.STARTED, run_id=one, at=1.0), hop=1)
    bench.app.live.record(Event(kind=Kind.SUCCEEDED, run_id=one, at=1.0), hop=1)
    status = batch.status()
    assert (status.state, status.succeeded, status.failed) == (State.FAILED, 1, 0)
    assert bench.followed() == ["tidy"]


# -- opening and closing


def test_a_batch_without_members_ends_with_its_block(bench: Bench) -> None:
    with bench.batch() as batch:
        assert batch.status().open
    assert (batch.status().state, bench.followed()) == (State.SUCCEEDED, ["announce", "tidy"])


def test_a_block_that_raises_fails_its_batch(bench: Bench) -> None:
    with pytest.raises(ZeroDivisionError), bench.batch() as batch:
        run_id = bench.report.delay(1).id
        raise ZeroDivisionError
    assert batch.status().state is State.RUNNING
    bench.end(run_id)
    status = batch.status()
    assert status.state is State.FAILED
    assert status.fault == "its block raised ZeroDivisionError: not all of it was sent"
    assert bench.followed() == ["tidy"]


async def test_the_same_with_asyncio(bench: Bench) -> None:
    async with bench.batch() as batch:
        one = (await bench.report.adelay(1)).id
        (two,) = await bench.report.adelay_many([(2,)])
    assert (await batch.astatus()).total == 2
    for run_id in (one, two):
        bench.end(run_id)
    assert bench.followed() == ["announce", "tidy"]


def test_what_is_sent_outside_of_the_block_is_no_member(bench: Bench) -> None:
    with bench.batch() as batch:
        bench.report.delay(1)
    bench.report.delay(2)
    assert batch.status().total == 1


def test_an_ended_batch_takes_no_more_members(bench: Bench) -> None:
    with bench.batch() as batch:
        pass
    with pytest.raises(ActionRefused, match="its batch has ended"), bench.app.get_batch(batch.id):
        bench.report.delay(1)
    assert bench.server.xlen(bench.app.keys.stream("reports", "normal")) == 0
    with pytest.raises(ActionRefused, match="has ended"), bench.batch(id=batch.id):
        pass


def test_a_batch_with_a_stable_id_goes_on_where_its_maker_died(bench: Bench) -> None:
    first = bench.batch(id="b")
    first.__enter__()
    bench.end(bench.report.apply_async((1,), task_id="b-1").id)
    first._leave()  # its process is gone
    with bench.batch(id="b") as batch:
        bench.report.apply_async((1,), task_id="b-1")
        bench.report.apply_async((2,), task_id="b-2")
    bench.end("b-2")
    assert (batch.status().total, batch.status().state) == (2, State.SUCCEEDED)
    assert bench.followed() == ["announce", "tidy"]


def test_a_batch_in_a_batch_is_a_member(bench: Bench) -> None:
    with bench.batch(on_success=None) as outer, bench.batch(on_success=None) as inner:
        run_id = bench.report.delay(1).id
    assert (outer.status().total, inner.status().total) == (1, 1)
    bench.end(run_id)
    assert (inner.status().state, outer.status().state) == (State.SUCCEEDED, State.SUCCEEDED)
    assert bench.followed() == ["tidy", "tidy"]


def test_groups_and_chains_may_follow(bench: Bench) -> None:
    tidy = bench.app.tasks["tidy"]
    with bench.batch(on_success=None, on_complete=[group(tidy.s(), tidy.s()), chain(tidy.s(), tidy.si())]):
        pass
    assert bench.followed() == ["tidy", "tidy", "tidy"]


@pytest.mark.parametrize("option", ["countdown", "expires", "deadline"])
def test_times_of_what_follows_count_from_the_end(bench: Bench, option: str) -> None:
    """The beat sends it, once: its message could not be made ready before."""
    tidy = bench.app.tasks["tidy"]
    with bench.batch(on_success=None, on_complete=tidy.s().set(**{option: 0.5})) as batch:
        pass
    assert (batch.status().state, bench.followed()) == (State.SUCCEEDED, [])
    following = bench.app.batches.signatures(batch.id)
    BatchKeeper(bench.app).step()
    bench.app.send_follow_ups(batch.id, following)  # as after a crash in between
    BatchKeeper(bench.app).step()
    delayed: Any = bench.server.zcard(bench.app.keys.delayed("after"))
    assert len(bench.followed()) + delayed == 1


def test_a_broker_that_is_away_is_told(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, broker_url="redis://127.0.0.1:1/0", secret_keys=Keyring.new_key())
    app = Errands("away", settings=settings, set_as_current=False)
    with pytest.raises(BrokerUnavailable, match="does not answer"), app.batch("May"):
        pass
    app.close()


# -- nobody is heard any more


def forget(bench: Bench, batch: Any) -> None:
    """The time after which it is given up has come."""
    bench.server.zadd(bench.app.keys.batches, {batch.id: time.time() - 1})
    BatchKeeper(bench.app).step()


def test_a_silent_sender_closes_its_batch(bench: Bench) -> None:
    batch = bench.batch()
    batch.__enter__()
    run_id = bench.report.delay(1).id
    batch._leave()
    BatchKeeper(bench.app).step()
    assert batch.status().open, "it is not time yet"
    forget(bench, batch)
    assert (batch.status().open, batch.status().state) == (False, State.RUNNING)
    bench.end(run_id)
    assert "its sender was not heard of" in batch.status().fault
    assert (batch.status().state, bench.followed()) == (State.FAILED, ["tidy"])


def test_members_that_never_end_do_not_hold_a_batch_for_ever(bench: Bench) -> None:
    with bench.batch() as batch:
        one, _ = bench.report.delay_many([(1,), (2,)])
    bench.end(one)
    forget(bench, batch)
    status = batch.status()
    assert (status.state, status.pending) == (State.FAILED, 1)
    assert status.fault == "nothing was heard of it for too long: 1 of 2 runs have not ended"
    assert bench.followed() == ["tidy"]


def test_a_member_that_is_due_late_is_waited_for(bench: Bench) -> None:
    month = 30 * 24 * 3600
    with bench.batch() as batch:
        bench.report.apply_async((1,), countdown=month)
    deadline: Any = bench.server.zscore(bench.app.keys.batches, batch.id)
    assert deadline > time.time() + month + 6 * 24 * 3600


def test_a_batch_that_has_ended_leaves_nothing_that_stays_for_ever(bench: Bench) -> None:
    with bench.batch() as batch:
        ids = bench.report.delay_many([(1,), (2,)])
    for run_id in ids:
        bench.end(run_id, Kind.FAILED)
    keys: Any = bench.server.keys(f"{bench.app.keys.prefix}batch*")
    assert len(keys) == 2
    assert all(0 < bench.server.ttl(key) <= 7 * 24 * 3600 for key in keys)  # type: ignore[operator]
    assert batch.status().failed == 2


# -- revoking


def test_nothing_of_a_revoked_batch_starts(bench: Bench) -> None:
    with bench.batch() as batch:
        running, waiting = bench.report.delay_many([(1,), (2,)])
    bench.say(Kind.STARTED, running)
    batch.revoke("no longer needed")
    assert bench.app.live.get(batch.id).state is State.REVOKED  # type: ignore[union-attr]
    assert bench.say(Kind.STARTED, waiting).verdict == "refused"
    assert bench.app.live.get(waiting).state is State.REVOKED  # type: ignore[union-attr]
    assert bench.followed() == []
    bench.say(Kind.SUCCEEDED, running)
    assert bench.followed() == ["tidy"]
    status = batch.status()
    assert (status.state, status.succeeded, status.failed_ids) == (State.REVOKED, 1, (waiting,))
    with pytest.raises(ActionRefused):
        batch.revoke()


# -- what is told


def test_a_batch_is_a_run_with_its_members_below_it(bench: Bench) -> None:
    with bench.app.acting_as("ann"), bench.batch() as batch:
        member = bench.report.delay(1).id
    run = bench.app.live.get(batch.id)
    assert run is not None
    assert (run.state, run.facts["task"], run.facts["owner"]) == (State.RUNNING, "errands.batch", "ann")
    below = bench.app.live.get(member)
    assert below is not None
    assert (below.facts["parent_id"], below.facts["root_id"]) == (batch.id, batch.id)
    bench.end(member)
    (ended,) = bench.told(batch.id, Kind.SUCCEEDED)
    assert ended.result == {"total": 1, "succeeded": 1, "failed": 0}
    assert ended.progress == {"current": 1, "total": 1, "percentage": 100, "note": ""}


def test_progress_is_told_a_few_times_however_many_members_there_are(bench: Bench) -> None:
    with bench.batch() as batch:
        ids = bench.report.delay_many([(n,) for n in range(2000)])
    live = bench.app._live_runs
    begun = time.monotonic()
    for start in range(0, len(ids), 500):
        chunk = ids[start : start + 500]
        for kind in (Kind.STARTED, Kind.SUCCEEDED):
            live.commit(
                [live.recording(Event(kind=kind, run_id=each, at=1.0), hop=0) for each in chunk], patience=10
            )
    quarters = (time.monotonic() - begun) / 0.25
    told = bench.told(batch.id, Kind.PROGRESS)
    assert len(told) <= quarters + 2
    assert batch.status().state is State.SUCCEEDED


def test_the_first_thousand_that_fail_are_named(bench: Bench) -> None:
    with bench.batch() as batch:
        ids = bench.report.delay_many([(n,) for n in range(1100)])
    live = bench.app._live_runs
    live.commit([live.recording(Event(kind=Kind.REVOKED, run_id=each, at=1.0)) for each in ids], patience=10)
    assert (batch.status().failed, batch.status().failed_ids) == (1100, tuple(ids[:1000]))
