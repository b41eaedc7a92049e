"""One suite for both places where events go: Valkey, and the memory of an inline process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from errands.broker import leases
from errands.broker.client import Clients
from errands.broker.events import EventStream
from errands.broker.keys import Keys
from errands.broker.runs import LiveRuns, Verdict
from errands.core.events import Event, Kind
from errands.core.states import FINAL, State
from errands.worker.host import RunLog
from errands.worker.inline import InlineRuns


@pytest.fixture(params=["valkey", "inline"])
def log(request: pytest.FixtureRequest, key_prefix: str) -> Iterator[RunLog]:
    if request.param == "inline":
        yield InlineRuns()
    else:
        yield LiveRuns(Clients(request.getfixturevalue("valkey_url")), Keys(key_prefix))


def event(kind: Kind, at: float = 100.0, run_id: str = "r", **facts: Any) -> Event:
    return Event(kind=kind, run_id=run_id, at=at, **facts)


def test_an_unknown_run_is_unknown(log: RunLog) -> None:
    """Mistake 16: an unknown id answered PENDING for ever."""
    assert log.get("nobody") is None
    assert not log.known("nobody")
    assert log.get_many(["nobody"]) == {}


def test_a_life(log: RunLog) -> None:
    told = event(Kind.QUEUED, task="t", queue="q", owner="7", args=[1], kwargs={})
    assert log.record(told)[:2] == ("ok", 0)
    queued = log.get("r")
    assert queued is not None
    assert (queued.state, queued.attempt, queued.facts["owner"], queued.facts["queued_at"]) == (
        State.QUEUED, 0, "7", 100.0,
    )  # fmt: skip
    assert log.record(event(Kind.STARTED, 101.0), hop=0)[:2] == ("ok", 1)
    log.record(event(Kind.PROGRESS, 102.0, progress={"current": 1, "total": 2}), hop=0)
    running = log.get("r")
    assert running is not None
    assert (running.state, running.facts["progress"]) == (State.RUNNING, {"current": 1, "total": 2})
    log.record(event(Kind.SUCCEEDED, 103.0, attempt=1, result={"x": [1]}), hop=0)
    done = log.get("r")
    assert done is not None
    assert (done.final, done.facts["result"], done.facts["finished_at"]) == (True, {"x": [1]}, 103.0)
    assert log.get_many(["r", "nobody"]) == {"r": done}


def test_due_later_is_scheduled(log: RunLog) -> None:
    log.record(event(Kind.QUEUED, eta=500.0))
    run = log.get("r")
    assert run is not None
    assert run.state is State.SCHEDULED


def test_a_worker_may_be_faster_than_the_producers_record(log: RunLog) -> None:
    log.record(event(Kind.STARTED, task="t"), hop=0)
    assert log.record(event(Kind.QUEUED, owner="7", task="late"))[0] is Verdict.KNOWN
    run = log.get("r")
    assert run is not None
    assert (run.state, run.facts["owner"], run.facts["task"]) == (State.RUNNING, "7", "t")


@pytest.mark.parametrize("ending", [Kind.SUCCEEDED, Kind.FAILED, Kind.DISCARDED, Kind.REVOKED, Kind.EXPIRED])
def test_an_ended_run_does_not_start_again(log: RunLog, ending: Kind) -> None:
    log.record(event(Kind.STARTED), hop=0)
    log.record(event(ending), hop=0)
    assert log.record(event(Kind.STARTED), hop=0, redelivered=True)[0] is Verdict.REFUSED
    run = log.get("r")
    assert run is not None
    assert run.state in FINAL


def test_a_revoked_run_never_starts(log: RunLog) -> None:
    log.record(event(Kind.QUEUED))
    log.record(event(Kind.REVOKED))
    assert log.record(event(Kind.STARTED), hop=0)[0] is Verdict.REFUSED


def test_ends_do_not_overtake_each_other(log: RunLog) -> None:
    log.record(event(Kind.STARTED), hop=0)
    log.record(event(Kind.FAILED), hop=0)
    assert log.record(event(Kind.SUCCEEDED), hop=0)[0] is Verdict.REFUSED


def test_a_snooze_does_not_count_and_a_retry_does(log: RunLog) -> None:
    log.record(event(Kind.STARTED), hop=0)
    log.record(event(Kind.SNOOZED, attempt=1, eta=200.0), hop=0)
    assert log.record(event(Kind.STARTED), hop=1)[:2] == ("ok", 1)
    log.record(event(Kind.RETRYING, attempt=1, eta=200.0, error={"type": "E", "message": "m"}), hop=1)
    waiting = log.get("r")
    assert waiting is not None
    assert (waiting.state, waiting.facts["error"]["type"]) == (State.RETRYING, "E")
    assert log.record(event(Kind.STARTED), hop=2)[:2] == ("ok", 2)
    again = log.get("r")
    assert again is not None
    assert "error" not in again.facts


def test_a_person_may_ask_for_another_attempt(log: RunLog) -> None:
    log.record(event(Kind.STARTED), hop=0)
    log.record(event(Kind.FAILED), hop=0)
    assert log.record(event(Kind.REOPENED, attempt=1))[0] is Verdict.OK
    run = log.get("r")
    assert run is not None
    assert run.state is State.QUEUED
    assert log.record(event(Kind.STARTED), hop=1)[:2] == ("ok", 2)


# What only a broker can do: give a message out twice.


@pytest.fixture
def live(valkey_url: str, key_prefix: str) -> LiveRuns:
    return LiveRuns(Clients(valkey_url), Keys(key_prefix), max_deliveries=3)


def test_a_second_copy_of_a_running_message_is_refused(live: LiveRuns) -> None:
    live.record(event(Kind.STARTED), hop=0)
    assert live.record(event(Kind.STARTED), hop=0)[0] is Verdict.RUNNING


def test_a_dead_workers_message_starts_elsewhere_until_it_is_poison(live: LiveRuns) -> None:
    verdicts = [live.record(event(Kind.STARTED), hop=0, redelivered=n > 0)[0] for n in range(4)]
    assert verdicts == ["ok", "ok", "ok", "poison"]


def test_on_its_last_chance_it_starts_alone_and_does_not_count_before(live: LiveRuns) -> None:
    """What kills a worker kills the runs beside it, which must not be taken for the cause."""

    def start(neighbours: bool) -> tuple[str, int, int]:
        verdict, attempt, deliveries, _ = live.record(
            event(Kind.STARTED), hop=0, redelivered=True, neighbours=neighbours
        )
        return verdict, attempt, deliveries

    assert [start(True) for _ in range(2)] == [("ok", 1, 1), ("ok", 2, 2)]
    assert [start(True) for _ in range(5)] == [("alone", 2, 2)] * 5
    live.record(event(Kind.LOST), hop=0)
    assert start(True) == ("alone", 2, 2)
    assert start(False) == ("ok", 3, 3)
    assert start(True)[0] is Verdict.POISON


@pytest.fixture
def owner(valkey: Any, key_prefix: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A worker process that holds a lease, and a way to let it die."""
    keys = Keys(key_prefix)
    monkeypatch.setattr(leases, "_holder", "")
    leases.take("w1@host")
    leases.renew(valkey, keys)
    return lambda: leases.release(valkey, keys)


def test_while_its_owner_lives_a_run_is_nobody_elses(live: LiveRuns, owner: Any) -> None:
    """Mistake 27: a visibility timeout shorter than a task, and it ran twice."""
    live.record(event(Kind.STARTED), hop=0)
    assert live.record(event(Kind.STARTED), hop=0, redelivered=True)[0] is Verdict.RUNNING
    owner()
    assert live.record(event(Kind.STARTED), hop=0, redelivered=True)[:2] == ("ok", 2)


def test_past_its_time_limit_nobody_is_at_a_run(
    live: LiveRuns, owner: Any, valkey: Any, key_prefix: str
) -> None:
    """Its worker lives, and could not tell how the attempt ended: the run must not wait for ever."""
    live.record(event(Kind.STARTED), hop=0)
    again = event(Kind.STARTED)
    assert live.record(again, hop=0, redelivered=True, time_limit=60)[0] is Verdict.RUNNING
    taken, begun = valkey.hget(Keys(key_prefix).run("r"), "taken").split()
    valkey.hset(Keys(key_prefix).run("r"), "taken", b"%s %d" % (taken, int(begun) - 61))
    assert live.record(again, hop=0, redelivered=True, time_limit=60)[:2] == ("ok", 2)


def test_a_copy_waits_for_the_death_of_the_owner_and_for_nothing_else(live: LiveRuns, owner: Any) -> None:
    live.record(event(Kind.STARTED), hop=0)
    assert live.record(event(Kind.STARTED), hop=0, copy=True)[0] is Verdict.RUNNING
    live.record(event(Kind.RETRYING), hop=0)
    assert live.record(event(Kind.STARTED), hop=0, copy=True)[0] is Verdict.STALE
    live.record(event(Kind.STARTED), hop=1)
    assert live.record(event(Kind.STARTED), hop=0, copy=True)[0] is Verdict.STALE
    owner()
    assert live.record(event(Kind.STARTED), hop=1, copy=True)[:2] == ("ok", 3)


def test_a_lost_process_counts_and_a_stopped_worker_does_not(live: LiveRuns, owner: Any) -> None:
    for _ in range(5):
        assert live.record(event(Kind.STARTED), hop=0, redelivered=True)[:2] == ("ok", 1)
        live.record(event(Kind.SNOOZED, note="the worker was stopped"), hop=0)
    for number in (1, 2, 3):
        assert live.record(event(Kind.STARTED), hop=0, redelivered=True)[:2] == ("ok", number)
        live.record(event(Kind.LOST), hop=0)
    assert live.record(event(Kind.STARTED), hop=0, redelivered=True)[0] is Verdict.POISON


def test_a_message_that_was_sent_on_is_stale(live: LiveRuns) -> None:
    live.record(event(Kind.STARTED), hop=1)
    assert live.record(event(Kind.STARTED), hop=0, redelivered=True)[0] is Verdict.STALE
    assert live.record(event(Kind.SUCCEEDED), hop=0)[0] is Verdict.STALE


def test_live_states_do_not_stay_for_ever(live: LiveRuns, valkey: Any, key_prefix: str) -> None:
    live.record(event(Kind.STARTED), hop=0)
    key = Keys(key_prefix).run("r")
    assert valkey.ttl(key) > 24 * 3600
    live.record(event(Kind.SUCCEEDED), hop=0)
    assert 0 < valkey.ttl(key) <= 24 * 3600


def test_the_stream_tells_what_was_recorded_and_nothing_that_was_refused(
    live: LiveRuns, valkey: Any, key_prefix: str
) -> None:
    live.record(event(Kind.QUEUED, task="t"))
    live.record(event(Kind.STARTED), hop=0)
    live.record(event(Kind.STARTED), hop=0)
    live.record(event(Kind.SUCCEEDED, result=1), hop=0)
    stream = EventStream(valkey, Keys(key_prefix).events)
    entries = stream.read()
    assert [(e.kind, e.attempt) for _, e, _ in entries if e] == [
        (Kind.QUEUED, 0), (Kind.STARTED, 1), (Kind.SUCCEEDED, 1),
    ]  # fmt: skip
    assert stream.last_id() == entries[-1][0]
    assert stream.read(after=entries[1][0]) == entries[2:]


def test_what_is_no_event_is_told_as_none(valkey: Any, key_prefix: str) -> None:
    valkey.xadd(Keys(key_prefix).events, {"e": "{broken"})
    valkey.xadd(Keys(key_prefix).events, {"other": "x"})
    entries = EventStream(valkey, Keys(key_prefix).events).read()
    assert [(e, raw) for _, e, raw in entries] == [(None, b"{broken"), (None, b"")]


def test_the_stream_is_trimmed_only_behind_the_reader_and_the_time_kept(
    live: LiveRuns, valkey: Any, key_prefix: str
) -> None:
    for _ in range(300):
        live.record(event(Kind.LOG, note="x"))
    stream = EventStream(valkey, Keys(key_prefix).events)
    assert stream.trim(stream.last_id(), keep_seconds=600) == 0
    assert stream.trim("0-0", keep_seconds=-1) == 0
    assert stream.trim(stream.last_id(), keep_seconds=-1) > 0


def told(
    log: RunLog, kind: Kind = Kind.PROGRESS, *, hop: int = 0, attempt: int = 1, **options: Any
) -> Verdict:
    """What an attempt hears when it tells something on its way."""
    heard: list[Verdict] = []
    facts = {"checkpoint": {"": {"key": 7, "count": 7}}} if kind is Kind.CHECKPOINT else {}
    log.tell(
        event(kind, **facts), hop=hop, attempt=attempt, heard=lambda r: heard.append(r.verdict), **options
    )
    (verdict,) = heard
    assert verdict is log.check("r", hop=hop, attempt=attempt).verdict
    return verdict


def test_an_attempt_is_heard_while_the_run_is_its_own(log: RunLog) -> None:
    log.record(event(Kind.STARTED), hop=0)
    assert told(log) is Verdict.OK
    log.record(event(Kind.RETRYING, attempt=1), hop=0)
    log.record(event(Kind.STARTED), hop=1)
    assert told(log) is Verdict.STALE
    assert told(log, hop=1, attempt=2) is Verdict.OK
    log.record(event(Kind.REVOKED))
    assert told(log, hop=1, attempt=2) is Verdict.REFUSED


def test_a_run_that_nobody_remembers_may_go_on(log: RunLog) -> None:
    assert log.check("forgotten", hop=0, attempt=3).verdict is Verdict.OK


def test_checkpoints_outlive_attempts_and_are_the_newest_attempts_own(log: RunLog) -> None:
    log.record(event(Kind.STARTED), hop=0)
    assert log.checkpoint("r") is None
    assert told(log, Kind.CHECKPOINT, wait=True) is Verdict.OK
    log.record(event(Kind.FAILED, attempt=1), hop=0)
    log.record(event(Kind.REOPENED, attempt=1), hop=1)
    log.record(event(Kind.STARTED), hop=1)
    assert log.checkpoint("r") == {"": {"key": 7, "count": 7}}
    run = log.get("r")
    assert run is not None
    assert run.facts["checkpoint"] == {"": {"key": 7, "count": 7}}
    log.record(event(Kind.SUCCEEDED, attempt=2), hop=1)
    log.record(event(Kind.REOPENED, attempt=2), hop=2)
    assert log.checkpoint("r") is None


def test_a_late_attempt_moves_no_checkpoint(log: RunLog) -> None:
    log.record(event(Kind.STARTED), hop=0)
    log.record(event(Kind.RETRYING, attempt=1), hop=0)
    log.record(event(Kind.STARTED), hop=1)
    assert told(log, Kind.CHECKPOINT) is Verdict.STALE
    assert log.checkpoint("r") is None


def test_what_is_quiet_is_kept_and_not_in_the_stream(valkey_url: str, key_prefix: str) -> None:
    clients, keys = Clients(valkey_url), Keys(key_prefix)
    live = LiveRuns(clients, keys)
    live.record(event(Kind.STARTED), hop=0)
    before = clients.sync.xlen(keys.events)
    assert told(live, Kind.CHECKPOINT, quiet=True) is Verdict.OK
    assert live.checkpoint("r") is not None
    assert clients.sync.xlen(keys.events) == before
