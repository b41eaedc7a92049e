"""Batches in inline mode and in the test helpers: the same rules, in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group

from errands import (
    ActionRefused,
    BatchStatus,
    ConfigurationError,
    Discard,
    Errands,
    InvalidArguments,
    Keyring,
    Kind,
    Run,
    RunNotFound,
    Settings,
    State,
)
from errands.core.batches import outcome_of
from errands.core.events import Event
from errands.testing import capture, events_of, inline


class Followed(list[tuple[Any, ...]]):
    """What followed the batches, in its order."""


@pytest.fixture
def followed() -> Followed:
    return Followed()


@pytest.fixture
def app(tmp_path: Path, followed: Followed) -> Iterator[Errands]:
    settings = Settings(home=tmp_path, broker_url="redis://127.0.0.1:1/0", secret_keys=Keyring.new_key())
    made = Errands("batches", settings=settings, set_as_current=False)

    @made.task(name="report")
    def report(n: int) -> int:
        if n < 0:
            raise Discard("no such student")
        return n

    @made.task(name="spreads")
    def spreads(count: int, *, run: Run) -> None:
        report.delay(0)  # its own affair
        assert run.batch is not None
        with run.batch:
            report.delay_many([(n,) for n in range(count)])

    @made.task(name="announce")
    def announce(term: int, outcome: BatchStatus) -> None:
        followed.append(("announce", term, outcome.total))

    @made.task(name="tidy")
    def tidy(outcome: BatchStatus) -> None:
        followed.append(("tidy", outcome.state, outcome.total, outcome.failed))

    @made.task(name="total")
    def total(numbers: list[int]) -> int:
        return sum(numbers)

    yield made
    made.close()


def batch(app: Errands, **options: Any) -> Any:
    follows = {"on_success": app.tasks["announce"].s(term=5), "on_complete": app.tasks["tidy"].s()}
    return app.batch("May", **{**follows, **options})


# -- inline


def test_all_succeed(app: Errands, followed: Followed) -> None:
    with inline(app) as runs:
        with batch(app) as made:
            app.tasks["report"].delay(1)
            app.tasks["report"].delay_many([(2,), (3,)])
            assert followed == []
        status = made.status()
        assert (status.state, status.total, status.percentage) == (State.SUCCEEDED, 3, 100)
        assert followed == [("announce", 5, 3), ("tidy", State.SUCCEEDED, 3, 0)]
        kinds = [event.kind for event in events_of(runs, made.id)]
        assert (kinds[0], kinds[-1], set(kinds[1:-1])) == (Kind.STARTED, Kind.SUCCEEDED, {Kind.PROGRESS})
        run = runs.get(made.id)
        assert run is not None
        assert run.facts["progress"]["percentage"] == 100


def test_one_fails(app: Errands, followed: Followed) -> None:
    with inline(app):
        with batch(app) as made:
            bad = app.tasks["report"].delay(-1)
            app.tasks["report"].delay(1)
        assert made.status().failed_ids == (bad.id,)
    assert followed == [("tidy", State.FAILED, 2, 1)]


def test_no_member(app: Errands, followed: Followed) -> None:
    with inline(app), batch(app):
        pass
    assert followed == [("announce", 5, 0), ("tidy", State.SUCCEEDED, 0, 0)]


def test_a_block_that_raises(app: Errands, followed: Followed) -> None:
    with inline(app):
        with pytest.raises(ZeroDivisionError), batch(app) as made:
            app.tasks["report"].delay(1)
            raise ZeroDivisionError
        assert made.status().fault == "its block raised ZeroDivisionError: not all of it was sent"
    assert followed == [("tidy", State.FAILED, 1, 0)]


def test_members_send_members_and_only_where_they_say_so(app: Errands, followed: Followed) -> None:
    with inline(app), batch(app):
        app.tasks["spreads"].delay(4)
    assert followed[-1] == ("tidy", State.SUCCEEDED, 5, 0)


def test_celerys_canvas(app: Errands, followed: Followed) -> None:
    report, total = app.tasks["report"], app.tasks["total"]
    with inline(app), batch(app):
        chain(report.s(1), report.s()).delay()
        group(report.s(1), report.s(2)).delay()
        chord([report.s(1), report.s(2)], total.s()).delay()
    assert followed[-1] == ("tidy", State.SUCCEEDED, 2 + 2 + 3, 0)


async def test_asyncio(app: Errands, followed: Followed) -> None:
    with inline(app):
        async with batch(app) as made:
            await app.tasks["report"].adelay(1)
        assert (await made.astatus()).done == 1
    assert followed == [("announce", 5, 1), ("tidy", State.SUCCEEDED, 1, 0)]


# -- caught


def test_what_is_caught_is_counted_when_it_is_drained(app: Errands, followed: Followed) -> None:
    with capture(app) as enqueued:
        with batch(app) as made:
            app.tasks["spreads"].delay(2)
            app.tasks["report"].delay(-1)
        assert (made.status().total, made.status().pending) == (2, 2)
        enqueued.assert_not_enqueued("tidy")
        enqueued.drain(throw=False)
        assert made.status().state is State.FAILED
    assert followed == [("tidy", State.FAILED, 4, 1)]


def test_an_empty_one_enqueues_what_follows(app: Errands) -> None:
    with capture(app) as enqueued:
        with batch(app):
            pass
        enqueued.assert_enqueued("announce", term=5)
        enqueued.assert_enqueued("tidy")


def test_nothing_of_a_revoked_one_starts(app: Errands, followed: Followed) -> None:
    with capture(app) as enqueued:
        with batch(app) as made:
            app.tasks["report"].delay_many([(1,), (2,)])
        made.revoke("a mistake")
        assert made.status().state is State.REVOKED
        enqueued.drain(throw=False)
        with pytest.raises(ActionRefused):
            made.revoke()
    assert followed == [("tidy", State.REVOKED, 2, 2)]


def test_an_ended_one_takes_no_more(app: Errands) -> None:
    with capture(app) as enqueued:
        with batch(app) as made:
            pass
        with pytest.raises(ActionRefused, match="its batch has ended"), app.get_batch(made.id):
            app.tasks["report"].delay(1)
        enqueued.assert_not_enqueued("report")


def test_a_member_that_goes_on_after_its_end(app: Errands, followed: Followed) -> None:
    with inline(app) as runs:
        with batch(app) as made:
            bad = app.tasks["report"].delay(-1)
            runs.record(Event(kind=Kind.REOPENED, run_id=bad.id, at=1.0))
            assert (made.status().pending, made.status().failed_ids) == (1, ())
        assert followed == []
        runs.record(Event(kind=Kind.SUCCEEDED, run_id=bad.id, at=2.0))
        assert made.status().state is State.SUCCEEDED
    assert len(followed) == 2


# -- refused


@pytest.mark.parametrize("option", ["open_for", "expires"])
@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_times_are_above_zero(app: Errands, option: str, seconds: float) -> None:
    with pytest.raises(ConfigurationError, match=f"batch 'May': {option}"):
        batch(app, **{option: seconds})


def test_follow_ups_that_cannot_wait(app: Errands) -> None:
    tidy, report = app.tasks["tidy"], app.tasks["report"]
    with pytest.raises(ConfigurationError, match=r"batch 'May': on_complete: .* is no signature"):
        batch(app, on_complete=tidy)
    with pytest.raises(ConfigurationError, match="a chord counts its members when it is sent"):
        batch(app, on_success=chord([report.s(1)], app.tasks["total"].s()))


def test_arguments_of_follow_ups_are_checked_at_once(app: Errands) -> None:
    with pytest.raises(InvalidArguments, match="term"):
        batch(app, on_success=app.tasks["announce"].s(term="soon"))


def test_who_follows_no_batch_has_no_outcome(app: Errands) -> None:
    with inline(app):
        assert isinstance(app.tasks["tidy"].delay().result, RunNotFound)


def test_an_unknown_batch(app: Errands) -> None:
    with inline(app), pytest.raises(RunNotFound, match="there is no batch"):
        app.get_batch("nobody").status()


# -- values


def test_a_status_says_how_far_it_is() -> None:
    status = BatchStatus("b", "May", State.RUNNING, total=8, succeeded=2, failed=1)
    assert (status.done, status.pending, status.percentage) == (3, 5, 37)
    assert status.progress == {"current": 3, "total": 8, "percentage": 37, "note": "1 failed"}
    assert BatchStatus("b", "", State.RUNNING).percentage == 100


def test_how_a_batch_ends() -> None:
    assert outcome_of(BatchStatus("b", "", State.RUNNING)) == (State.SUCCEEDED, "")
    failed = BatchStatus("b", "", State.RUNNING, total=3, succeeded=2, failed=1)
    assert outcome_of(failed) == (State.FAILED, "1 of 3 runs did not succeed")
    assert outcome_of(BatchStatus("b", "", State.RUNNING, fault="why")) == (State.FAILED, "why")
    assert outcome_of(BatchStatus("b", "", State.REVOKED, fault="why")) == (State.REVOKED, "why")
