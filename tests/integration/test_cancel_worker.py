"""Revocation, under real workers and a broker that restarts: whatever is not wanted any more does not start,
and what is at work ends at its next step.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from celery import chord
from celery.exceptions import ChordError

from errands import State
from errands.beat.recorder import Recorder
from errands.beat.relay import Relay
from errands.broker.events import EventStream
from errands.core import clock
from errands.core.errors import ActionRefused
from errands.doors.local.valkey import EmbeddedValkey
from errands.ops.access import ADMIN, Person
from errands.ops.actions import Actions
from errands.ops.bulk import BulkActions
from errands.store.rows import RunFilter
from processes import until
from work_rig import POOLS, Work, working

ROOT = Person("root", frozenset({ADMIN}))


@pytest.fixture(params=POOLS)
def work(request: pytest.FixtureRequest, valkey_url: str, tmp_path: Path) -> Iterator[Work]:
    with working(request.param, valkey_url, tmp_path) as found:
        yield found


def revoke(work: Work, run_id: str) -> None:
    Actions(work.app).revoke(ROOT, run_id)


def last(work: Work) -> None:
    """Sent after all others, so whatever the worker would start before is started."""
    work.ended(work.send("note", "last"))


@pytest.mark.parametrize("name", ["tell", "tell_plainly", "tell_in_a_group"])
def test_a_run_at_work_ends_at_its_next_step(work: Work, name: str) -> None:
    work.start()
    run_id = work.send(name)
    work.wait_for("begun")
    revoke(work, run_id)
    work.wait_for("cleaned")
    assert work.words("swallowed") == []
    last(work)
    run = work.run(run_id)
    assert (run.state, run.attempt) == (State.REVOKED, 1)
    until(lambda: not work.app.valkey.xlen(work.app.keys.stream("work", "normal")), what="it is acknowledged")


def test_rows_that_are_left_are_not_begun(work: Work) -> None:
    work.start()
    run_id = work.send("work_on")
    work.wait_for("row", 5)
    revoke(work, run_id)
    seen = len(work.words("row"))
    last(work)
    until(lambda: "ends here: the run was revoked" in work.workers[0].log.read_text(), what="it ends")
    assert len(work.words("row")) < seen + 200  # a second's worth, where there is no end of rows
    assert work.run(run_id).state is State.REVOKED


def test_what_never_asks_works_on_and_is_not_recorded(work: Work) -> None:
    work.start()
    run_id = work.send("ask_nothing", str(work.go))
    work.wait_for("begun")
    revoke(work, run_id)
    work.go.touch()
    work.wait_for("done")
    last(work)
    run = work.run(run_id)
    assert (run.state, "result" in run.facts) == (State.REVOKED, False)


@pytest.fixture
def restarted(tmp_path: Path) -> Iterator[tuple[Work, EmbeddedValkey]]:
    with EmbeddedValkey(tmp_path / "valkey") as valkey, working("asyncio", valkey.url, tmp_path) as found:
        yield found, valkey


def test_what_was_revoked_does_not_start_whatever_is_restarted(
    restarted: tuple[Work, EmbeddedValkey],
) -> None:
    """Waiting in a queue, due later, in the outbox, between two tries: no worker has seen the revocation."""
    work, valkey = restarted
    note = work.app.tasks["note"]
    first = work.start()
    trying = work.send("note", "trying", True, countdown=0)
    work.wait_for("noted")
    work.terminate(first)
    work.effects.unlink()
    waiting = work.send("note", "waiting")
    soon = work.send("note", "soon", countdown=2)
    unsent = work.app.new_id()
    with work.app.database.session() as session, work.app.acting_as(None):
        note.apply_on_commit(session, ("unsent",), task_id=unsent)
        work.app.clients.sync.connection_pool.disconnect()
        valkey.stop()
    valkey.start()
    ids = [trying, waiting, soon, unsent]
    for run_id in ids:
        revoke(work, run_id)
    valkey.restart()
    work.app.valkey.connection_pool.disconnect()
    Relay(work.app, work.app.database, after=0).step()
    work.start()
    until(lambda: work.app.valkey.zcard(work.app.keys.delayed("work")) == 0, what="nothing is due any more")
    last(work)
    assert work.words("noted") == ["last"]
    assert {work.run(run_id).state for run_id in ids} == {State.REVOKED}


def test_a_chord_hears_that_a_part_of_it_was_revoked(work: Work) -> None:
    """One that no worker has seen, and one that ends at its next step; else its body is awaited for ever."""
    note, tell = work.app.tasks["note"], work.app.tasks["tell"]
    waiting = chord([note.si("a"), note.si("b")])(note.si("body"))
    revoke(work, waiting.parent.results[0].id)
    work.start(concurrency=4)
    at_work = chord([note.si("c"), tell.si()])(note.si("body"))
    work.wait_for("begun")
    revoke(work, at_work.parent.results[1].id)
    for result in (waiting, at_work):
        until(result.ready, 60, "the body is told")
        assert isinstance(result.result, ChordError)
    assert sorted(work.words("noted")) == ["b", "c"]


def test_a_revoked_run_is_remembered_while_its_message_may_wait(valkey_url: str, tmp_path: Path) -> None:
    """Else a queue that nobody reads over a weekend would start on Monday what was revoked on Friday."""
    day = 24 * 3600
    with working("asyncio", valkey_url, tmp_path) as work:
        waiting = work.send("note", "waiting")
        late = work.app.new_id()
        work.app.tasks["note"].apply_async(("late",), task_id=late, countdown=400 * day)
        begun = work.send("ask_nothing", str(work.go))
        for run_id in (waiting, late):
            revoke(work, run_id)

        def left(run_id: str) -> int:
            seconds = work.app.valkey.ttl(work.app.keys.run(run_id))
            assert isinstance(seconds, int)
            return seconds

        assert 89 * day < left(waiting) <= 90 * day
        assert 400 * day < left(late) <= 408 * day
        work.start()
        work.wait_for("begun")
        assert work.run(waiting).state is State.REVOKED
        until(
            lambda: left(waiting) <= 7 * day,
            what="its message is gone, and it need not be remembered so long",
        )
        revoke(work, begun)  # its worker holds the message
        assert left(begun) <= day
        work.go.touch()
        assert work.words("noted") == []


def test_all_that_match_are_revoked(valkey_url: str, tmp_path: Path) -> None:
    with working("asyncio", valkey_url, tmp_path) as work:
        notes = {work.send("note", str(number)) for number in range(5)}
        other = work.send("tell")
        recorder = Recorder(EventStream(work.app.valkey, work.app.keys.events), work.app.database)
        recorder.step()
        bulk = BulkActions(work.app)
        with pytest.raises(ActionRefused, match="every run"):
            bulk.revoke(ROOT, RunFilter(states=[State.QUEUED]))
        some = bulk.revoke(ROOT, RunFilter(task="note"), limit=2)
        assert (len(some["revoked"]), some["ended"], some["more"]) == (2, 0, True)
        rest = bulk.revoke(
            ROOT, RunFilter(task="note", since=clock.now() - timedelta(hours=1)), reason="too many"
        )
        assert (len(rest["revoked"]), rest["ended"], rest["more"]) == (3, 2, False)
        assert {*some["revoked"], *rest["revoked"]} == notes
        assert work.run(other).state is State.QUEUED
        recorder.step()
        assert bulk.revoke(ROOT, RunFilter(task="note")) == {"revoked": [], "ended": 0, "more": False}
        assert bulk.revoke(ROOT, RunFilter(task="note", states=[State.FAILED]))["revoked"] == []
