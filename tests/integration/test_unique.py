"""Unique runs on a real server: which run stands for which, as long as what."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import redis

from errands import Errands, Settings, State, Unique
from errands.broker.events import EventStream
from errands.broker.runs import Verdict
from errands.core import clock
from errands.core.clock import FakeClock
from errands.core.errors import ActionRefused, BrokerUnavailable
from errands.core.events import Event, Kind
from errands.core.states import FINAL
from errands.doors.local.ports import free_port
from errands.ops.access import Person
from errands.ops.actions import Actions
from errands.store.engine import Database
from processes import until
from servers import silent_server

ROOT = Person("root", frozenset({"admin"}))
WITH_SUCCESS = ("scheduled", "queued", "running", "retrying", "succeeded")


@pytest.fixture
def app(valkey_url: str, key_prefix: str, tmp_path: Path, sqlite_database: Database) -> Errands:
    return make_app(valkey_url, key_prefix, tmp_path, sqlite_database)


def make_app(url: str, prefix: str, folder: Path, database: Database, **more: Any) -> Errands:
    settings = Settings(
        home=folder, broker_url=url, key_prefix=prefix,
        database_url=database.url.render_as_string(hide_password=False), **more,
    )  # fmt: skip
    app = Errands("unique", settings=settings, set_as_current=False)
    app.__dict__["database"] = database

    @app.task(name="plain")
    def plain(n: int, text: str = "") -> None: ...

    @app.task(name="kept", unique=Unique(by="n"))
    def kept(n: int, text: str = "") -> None: ...

    @app.task(name="waits", unique=Unique(by="n", while_=("scheduled", "queued", "retrying")))
    def waits(n: int, text: str = "") -> None: ...

    @app.task(name="hourly", unique=Unique(by="n", within=3600, while_=WITH_SUCCESS))
    def hourly(n: int, text: str = "") -> None: ...

    @app.task(name="brief", unique=Unique(by="n", within=0.3))
    def brief(n: int, text: str = "") -> None: ...

    @app.task(name="replaced", unique=Unique(by="n", on_conflict="replace"))
    def replaced(n: int, text: str = "") -> None: ...

    @app.task(name="debounced", unique=Unique(by="n", on_conflict="debounce", wait=30, most=40))
    def debounced(n: int, text: str = "") -> None: ...

    app.finalize()
    return app


def calls_of_scripts(app: Errands) -> int:
    stats: Any = app.valkey.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


def messages(app: Errands) -> int:
    waiting = app.valkey.xlen(app.keys.stream("celery", "normal")) + app.valkey.zcard(
        app.keys.delayed("celery")
    )
    return int(waiting)  # type: ignore[arg-type]


def claims(app: Errands) -> dict[bytes, int]:
    """The claims there are, and how many seconds they may live."""
    keys: Any = app.valkey.keys(f"{app.settings.key_prefix}unique:*")
    return {key: int(app.valkey.ttl(key)) for key in keys}  # type: ignore[arg-type]


def tell(app: Errands, kind: Kind, run_id: str, *, hop: int = -1, **facts: Any) -> Any:
    return app.live.record(Event(kind=kind, run_id=run_id, at=100.0, **facts), hop=hop)


def events(app: Errands, run_id: str) -> list[Event]:
    entries = EventStream(app.valkey, app.keys.events).read(count=1000)
    return [event for _, event, _ in entries if event and event.run_id == run_id]


def test_a_second_request_gets_the_first_run_in_the_round_trip_that_asks(app: Errands) -> None:
    kept = app.tasks["kept"]
    kept.delay(0)  # from now on the server knows the script
    before = calls_of_scripts(app)
    first, second = kept.delay(1, "a"), kept.delay("1", text="b")
    assert calls_of_scripts(app) - before == 2
    assert (second.id, first.duplicate, second.duplicate) == (first.id, False, True)
    assert kept.delay(2).id != first.id
    assert messages(app) == 3
    assert [event.kind for event in events(app, first.id)] == [Kind.QUEUED]
    run = app.live.get(first.id)
    assert run is not None
    assert (run.facts["requests"], run.facts["args"]) == (2, [1, "a"])


async def test_the_same_with_asyncio(app: Errands) -> None:
    first, second = await app.tasks["kept"].adelay(1), await app.tasks["kept"].adelay(1)
    assert (second.id, second.duplicate) == (first.id, True)
    assert (await app.tasks["kept"].adelay_many([(1,), (2,), (2,)]))[0] == first.id


def test_duplicates_in_a_bulk_have_the_same_id(app: Errands) -> None:
    first = app.tasks["kept"].delay(3).id
    ids = app.tasks["kept"].delay_many([(n % 5,) for n in range(20)], chunk=7)
    assert ids == ids[:5] * 4
    assert ids[3] == first
    assert messages(app) == 5


def test_a_call_can_do_without(app: Errands) -> None:
    kept = app.tasks["kept"]
    first = kept.delay(1)
    other = kept.apply_async((1,), unique=False)
    assert (other.id != first.id, other.duplicate) == (True, False)
    assert kept.delay(1).id == first.id


def test_an_id_of_ones_own_is_that_of_the_first_alone(app: Errands) -> None:
    kept = app.tasks["kept"]
    assert kept.apply_async((1,), task_id="mine").id == "mine"
    assert kept.apply_async((1,), task_id="mine").id == "mine"
    other = kept.apply_async((1,), task_id="other")
    assert (other.id, other.duplicate) == ("mine", True)
    assert app.live.get("other") is None


@pytest.mark.parametrize("ending", [Kind.SUCCEEDED, Kind.FAILED, Kind.DISCARDED, Kind.REVOKED, Kind.EXPIRED])
def test_it_stands_for_others_until_it_ends(app: Errands, ending: Kind) -> None:
    kept = app.tasks["kept"]
    first = kept.delay(1).id
    for kind, hop in ((Kind.STARTED, 0), (Kind.RETRYING, 0), (Kind.STARTED, 1)):
        tell(app, kind, first, hop=hop)
        assert kept.delay(1).id == first
    tell(app, ending, first, hop=1)
    assert claims(app) == {}  # a claim goes with its run
    second = kept.delay(1)
    assert (second.id != first, second.duplicate) == (True, False)


def test_only_the_states_that_the_rule_names_count(app: Errands) -> None:
    waits = app.tasks["waits"]
    first = waits.delay(1).id
    tell(app, Kind.STARTED, first, hop=0)
    second = waits.delay(1).id
    assert second != first
    tell(app, Kind.RETRYING, first, hop=0)
    assert waits.delay(1).id == second  # the newest one has the claim
    tell(app, Kind.SUCCEEDED, first, hop=0)
    assert waits.delay(1).id == second


def test_a_run_that_is_to_start_later_stands_for_others(app: Errands) -> None:
    first = app.tasks["kept"].apply_async((1,), countdown=3600).id
    assert app.tasks["kept"].delay(1).id == first


def test_within_an_hour_outlives_the_run_and_what_is_known_of_it(app: Errands) -> None:
    hourly = app.tasks["hourly"]
    first = hourly.delay(1).id
    tell(app, Kind.STARTED, first, hop=0)
    tell(app, Kind.SUCCEEDED, first, hop=0)
    assert hourly.delay(1).id == first
    app.valkey.delete(app.keys.run(first))
    assert hourly.delay(1).id == first
    assert not app.valkey.exists(app.keys.run(first))
    ((_, ttl),) = claims(app).items()
    assert 3500 < ttl <= 3600
    failed = hourly.delay(2).id
    tell(app, Kind.FAILED, failed, hop=0)
    assert hourly.delay(2).id != failed


def test_within_ends_while_the_run_goes_on(app: Errands) -> None:
    brief = app.tasks["brief"]
    first = brief.delay(1).id
    until(lambda: brief.delay(1).id != first, what="the claim ends")
    run = app.live.get(first)
    assert run is not None
    assert run.state is State.QUEUED


def test_a_claim_means_nothing_without_its_run(app: Errands) -> None:
    """A server that lost its data, a queue that was wiped: nothing is jammed."""
    first = app.tasks["kept"].delay(1).id
    app.valkey.delete(app.keys.run(first))
    second = app.tasks["kept"].delay(1)
    assert (second.id != first, second.duplicate) == (True, False)


def test_claims_live_as_long_as_what_is_known_of_their_runs(app: Errands) -> None:
    first = app.tasks["kept"].apply_async((1,), countdown=14 * 24 * 3600).id
    ((key, ttl),) = claims(app).items()
    assert ttl == app.valkey.ttl(app.keys.run(first))
    assert ttl > 20 * 24 * 3600
    app.valkey.expire(key, 100)
    app.valkey.hset(app.keys.run(first), "kept", 0)  # an hour and more ago
    tell(app, Kind.STARTED, first, hop=0)
    assert claims(app)[key] > 6 * 24 * 3600


def test_what_is_sent_on_is_no_second_request(app: Errands) -> None:
    """A retry or a snooze carries the run's own id, and its hop."""
    first = app.tasks["kept"].delay(1).id
    tell(app, Kind.STARTED, first, hop=0)
    sent_on = app.tasks["kept"].apply_async((1,), task_id=first, headers={"errands": {"hop": 1}})
    assert (sent_on.id, sent_on.duplicate) == (first, False)
    assert messages(app) == 2


# -- replace and debounce


def start(app: Errands, run_id: str, hop: int = 0) -> Any:
    return tell(app, Kind.STARTED, run_id, hop=hop)


def newer(reply: Any) -> Any:
    return Event.from_json(reply.about).args if reply.about else None


def test_a_waiting_run_takes_the_newest_arguments(app: Errands) -> None:
    replaced = app.tasks["replaced"]
    first = replaced.delay(1, "a").id
    assert [replaced.delay(1, text).id for text in ("b", "c")] == [first, first]
    assert messages(app) == 1
    run = app.live.get(first)
    assert run is not None
    assert (run.facts["args"], run.facts["requests"]) == ([1, "c"], 3)
    assert [event.args for event in events(app, first)] == [[1, "a"], [1, "b"], [1, "c"]]
    assert newer(start(app, first)) == [1, "c"]
    # Its worker died: the message comes again, and is as old as before.
    again = app.live.record(Event(kind=Kind.STARTED, run_id=first, at=1.0), hop=0, redelivered=True)
    assert newer(again) == [1, "c"]
    tell(app, Kind.RETRYING, first, hop=0)
    # The next attempt's message has them; and it may have others, if the task said so.
    assert newer(start(app, first, hop=1)) is None


def test_a_retry_takes_the_newest_arguments(app: Errands) -> None:
    replaced = app.tasks["replaced"]
    first = replaced.delay(1, "a").id
    start(app, first)
    tell(app, Kind.RETRYING, first, hop=0)
    assert replaced.delay(1, "b").id == first
    assert newer(start(app, first, hop=1)) == [1, "b"]


def test_a_run_at_work_takes_no_new_arguments_so_there_is_a_second(app: Errands) -> None:
    replaced = app.tasks["replaced"]
    first = replaced.delay(1, "a").id
    start(app, first)
    second = replaced.delay(1, "b")
    assert (second.id != first, second.duplicate) == (True, False)


def test_debounce_puts_the_start_off_by_the_servers_clock(app: Errands) -> None:
    debounced = app.tasks["debounced"]
    first = debounced.delay(1, "a").id
    run = app.live.get(first)
    assert run is not None
    assert run.state is State.SCHEDULED
    accepted = run.facts["queued_at"]
    assert run.facts["eta"] == pytest.approx(accepted + 30, abs=0.5)
    assert debounced.delay(1, "b").id == first
    reply = start(app, first)
    assert reply.verdict is Verdict.EARLY
    assert 29_000 < int(reply.about) <= 30_001
    # At the most 40 s after the first, however late the newest.
    debounced.apply_async((1, "c"), countdown=300)
    run = app.live.get(first)
    assert run is not None
    assert run.facts["eta"] == pytest.approx(accepted + 40, abs=1.5)
    assert (run.state, run.facts["args"]) == (State.SCHEDULED, [1, "c"])
    app.valkey.hset(app.keys.run(first), "due", 1000)
    assert newer(start(app, first)) == [1, "c"]


# -- outbox


def left(database: Database) -> set[str]:
    from sqlalchemy import select

    from errands.store import tables

    with database.reading() as connection:
        return set(connection.scalars(select(tables.outbox.c.id).where(tables.outbox.c.sent_at.is_(None))))


def test_what_valkey_knows_needs_no_row(app: Errands, sqlite_database: Database) -> None:
    first = app.tasks["kept"].delay(1).id
    with sqlite_database.session() as session:
        assert app.tasks["kept"].delay_on_commit(session, 1) == first
        session.flush()
        other = app.tasks["kept"].delay_on_commit(session, 2)
    assert messages(app) == 2
    assert left(sqlite_database) == set()
    run = app.live.get(other)
    assert run is not None
    assert run.state is State.QUEUED


def test_an_id_that_was_handed_out_has_a_truthful_end(app: Errands, sqlite_database: Database) -> None:
    kept = app.tasks["kept"]
    with sqlite_database.session() as session:
        ids = [kept.delay_on_commit(session, 1) for _ in range(3)]
    assert len(set(ids)) == 3  # before the commit nobody else knows of it
    first, *others = ids
    assert messages(app) == 1
    assert left(sqlite_database) == set()
    for run_id in others:
        run = app.live.get(run_id)
        assert run is not None
        assert (run.state, run.facts["note"]) == (State.DISCARDED, f"duplicate of {first}")
        assert app.valkey.ttl(app.keys.run(run_id)) > 0
        (told,) = events(app, run_id)
        assert (told.kind, told.note) == (Kind.DISCARDED, f"duplicate of {first}")
        with pytest.raises(Exception, match=f"duplicate of {first}"):
            app.AsyncResult(run_id).get(timeout=5)


def test_a_row_that_is_published_twice_says_nothing_twice(app: Errands, sqlite_database: Database) -> None:
    """The process died between the broker and the database, and later requests came in between."""
    from errands.store import outbox

    replaced = app.tasks["replaced"]
    first = replaced.delay(1, "a").id
    with sqlite_database.session() as session:
        row_id = replaced.delay_on_commit(session, 1, "b")
        session.flush()
        session.info.clear()  # nothing is published with the commit
        session.commit()
    rows = outbox.rows(sqlite_database, [row_id])
    assert app.publish_outbox(rows) == {}
    replaced.delay(1, "c")
    assert app.publish_outbox(rows) == {}
    run = app.live.get(first)
    assert run is not None
    assert run.facts["args"] == [1, "c"]
    told = app.live.get(row_id)
    assert told is not None
    assert told.state is State.DISCARDED


def test_a_change_waits_for_its_commit(app: Errands, sqlite_database: Database) -> None:
    replaced = app.tasks["replaced"]
    first = replaced.delay(1, "a").id
    with pytest.raises(RuntimeError), sqlite_database.session() as session:
        replaced.delay_on_commit(session, 1, "b")
        raise RuntimeError("rolled back")
    run = app.live.get(first)
    assert run is not None
    assert run.facts["args"] == [1, "a"]


def test_a_broker_that_is_away_holds_nobody_up(
    tmp_path: Path, key_prefix: str, sqlite_database: Database
) -> None:
    away = make_app(f"redis://127.0.0.1:{free_port()}/0", key_prefix, tmp_path, sqlite_database)
    with sqlite_database.session() as session:
        ids = [away.tasks["kept"].delay_on_commit(session, 1) for _ in range(3)]
    assert left(sqlite_database) == set(ids)


def test_a_silent_broker_costs_a_transaction_one_wait_and_a_long_session_no_more_than_that(
    tmp_path: Path, key_prefix: str, sqlite_database: Database
) -> None:
    with silent_server() as (port, taken), clock.use(FakeClock()) as now:
        away = make_app(f"redis://127.0.0.1:{port}/0", key_prefix, tmp_path, sqlite_database)
        with sqlite_database.session() as session:
            for _ in range(3):
                away.tasks["kept"].delay_on_commit(session, 1)
            assert len(taken) == 1
            now.advance(6)
            away.tasks["kept"].delay_on_commit(session, 1)
            assert len(taken) == 2
            session.rollback()


# -- by hand


def test_a_run_whose_work_another_does_is_not_sent_again(app: Errands) -> None:
    kept = app.tasks["kept"]
    first = kept.delay(1).id
    tell(app, Kind.STARTED, first, hop=0)
    tell(app, Kind.FAILED, first, hop=0)
    second = kept.delay(1).id
    with pytest.raises(ActionRefused, match=f"another run does the same work by now: {second}"):
        Actions(app).retry(ROOT, first)
    run = app.live.get(second)
    assert run is not None
    assert "requests" not in run.facts
    Actions(app).revoke(ROOT, second)
    Actions(app).retry(ROOT, first)
    assert kept.delay(1).id == first  # it stands for others again
    ((_, ttl),) = claims(app).items()
    assert ttl > 60


def test_a_revoked_run_stands_for_nobody(app: Errands) -> None:
    first = app.tasks["hourly"].delay(1).id
    Actions(app).revoke(ROOT, first)
    assert app.tasks["hourly"].delay(1).id != first


# -- where it fails


def test_a_server_that_is_away_is_an_error(
    tmp_path: Path, key_prefix: str, sqlite_database: Database
) -> None:
    away = make_app(f"redis://127.0.0.1:{free_port()}/0", key_prefix, tmp_path, sqlite_database)
    with pytest.raises(BrokerUnavailable):
        away.tasks["kept"].delay(1)


def test_the_live_hash_has_no_more_than_before_without_the_rule(app: Errands, valkey: redis.Redis) -> None:
    run = app.tasks["plain"].delay(1)
    fields: Any = valkey.hkeys(app.keys.run(run.id))
    assert set(fields) == {b"kept", b"queued", b"state"}
    assert claims(app) == {}


def test_every_final_state_gives_a_claim_up() -> None:
    assert FINAL & set(Unique().states) == set()
