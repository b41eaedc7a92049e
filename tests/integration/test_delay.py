"""Delays wait on the server, by its clock: whatever clocks do, nothing is early."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from errands import Errands, Event, Kind, Settings, State
from errands.broker import queues
from errands.core import clock
from streams import QUEUE, Broker, drain

HOUR = 3600.0
YEAR = 365 * 24 * HOUR


@pytest.fixture
def app(valkey_url: str, key_prefix: str) -> Iterator[Errands]:
    settings = Settings(
        broker_url=valkey_url, result_url=valkey_url, valkey_url=valkey_url, key_prefix=key_prefix
    )
    app = Errands("delays", settings=settings)

    @app.task(name="later", queue="mail")
    def later() -> None: ...

    yield app
    app.close()


def now_ms(app: Errands) -> float:
    seconds, micros = app.valkey.time()
    return seconds * 1000 + micros / 1000


def due_of(app: Errands, run_id: str) -> float:
    found: Any = app.valkey.zscore(app.keys.delayed("mail"), run_id)
    assert found is not None
    return float(found)


@pytest.mark.parametrize("wrong", [-HOUR, 0.0, HOUR])
def test_a_countdown_counts_by_the_servers_clock(
    app: Errands, monkeypatch: pytest.MonkeyPatch, wrong: float
) -> None:
    """Whatever the caller's clock says: it is a wait, and no time of day."""
    monkeypatch.setattr(clock, "timestamp", lambda: time.time() + wrong)
    before = now_ms(app)
    run = app.tasks["later"].apply_async(countdown=60)
    assert before + 60_000 <= due_of(app, run.id) <= now_ms(app) + 60_001


@pytest.mark.parametrize("wrong", [-HOUR, HOUR])
def test_an_eta_is_a_time_of_day(app: Errands, monkeypatch: pytest.MonkeyPatch, wrong: float) -> None:
    """A caller whose clock is an hour ahead takes it for past; the server does not."""
    eta = datetime.now(UTC) + timedelta(minutes=30)
    monkeypatch.setattr(clock, "timestamp", lambda: time.time() + wrong)
    run = app.tasks["later"].apply_async(eta=eta)
    assert eta.timestamp() * 1000 <= due_of(app, run.id) <= eta.timestamp() * 1000 + 1


def test_an_eta_that_is_past_starts_at_once(app: Errands) -> None:
    app.tasks["later"].apply_async(eta=datetime.now(UTC) - timedelta(days=1))
    depth = queues.depths(app.valkey, app.keys, ["mail"])["mail"]
    assert (depth.depth, depth.delayed) == (1, 0)


def test_said_again_it_keeps_its_time(app: Errands) -> None:
    """As when the answer to the first call was lost."""
    live: Any = app._live_runs
    operation = live.putting(None, run_id="r", queue="mail", priority=None, message=b"{}", wait=60)
    live.commit([operation])
    first = due_of(app, "r")
    while now_ms(app) < first - 59_990:
        pass
    live.commit([operation])
    assert due_of(app, "r") == first
    assert app.valkey.zcard(app.keys.delayed("mail")) == 1


def test_a_run_of_next_year_is_known_until_then(app: Errands) -> None:
    run = app.tasks["later"].apply_async(eta=datetime.now(UTC) + timedelta(seconds=2 * YEAR))
    found = app.live.get(run.id)
    assert found is not None
    assert found.state is State.SCHEDULED
    assert app.valkey.ttl(app.keys.run(run.id)) > 2 * YEAR


def test_a_retry_in_a_month_is_known_until_then(app: Errands) -> None:
    """Though everything before it was said within the hour."""
    run = app.tasks["later"].delay()
    now = clock.timestamp()
    app.live.record(Event(kind=Kind.STARTED, run_id=run.id, at=now, task="later"), hop=0)
    eta = now + 30 * 24 * HOUR
    app.live.record(Event(kind=Kind.SNOOZED, run_id=run.id, at=now, task="later", eta=eta), hop=0)
    assert app.valkey.ttl(app.keys.run(run.id)) > 30 * 24 * HOUR


# -- what others send


@pytest.fixture(params=["valkey_url", "redis_url"])
def broker(request: pytest.FixtureRequest, key_prefix: str) -> Iterator[Broker]:
    broker = Broker(str(request.getfixturevalue(request.param)), key_prefix)
    yield broker
    broker.close()


def written(eta: datetime) -> str:
    """A message that somebody writes into the stream, past every transport."""
    return json.dumps(
        {
            "body": '"early"', "content-type": "application/json", "content-encoding": "utf-8",
            "headers": {"id": "run-1", "task": "t", "eta": eta.isoformat()},
            "properties": {"delivery_info": {"exchange": "", "routing_key": QUEUE}, "delivery_tag": "t"},
        }
    )  # fmt: skip


def test_what_comes_too_early_is_put_off_and_no_worker_holds_it(broker: Broker) -> None:
    connection = broker.connect()
    due = datetime.now(UTC) + timedelta(seconds=1.5)
    broker.client.xadd(broker.keys.stream(QUEUE, "high"), {"m": written(due)})
    with broker.consuming(connection) as found:
        while broker.depth().delayed == 0:
            drain_once(connection)
        assert found == []
        assert (broker.depth().depth, broker.depth().held, broker.depth().delayed) == (0, 0, 1)
        (message,) = drain(connection, found, 1)
        assert broker.client.time() >= (int(due.timestamp()), due.microsecond)
        assert message.delivery_tag.startswith(broker.keys.stream(QUEUE, "high"))
        assert datetime.fromisoformat(message.headers["eta"]) <= datetime.now(UTC)
        message.ack()


def test_what_comes_too_early_can_be_taken_out(broker: Broker) -> None:
    connection = broker.connect()
    broker.client.xadd(
        broker.keys.stream(QUEUE, "normal"), {"m": written(datetime.now(UTC) + timedelta(days=9))}
    )
    assert connection.channel().basic_get(QUEUE) is None
    assert broker.depth().delayed == 1
    assert queues.remove_delayed(broker.client, broker.keys, QUEUE, "run-1") == 1


def test_a_plain_producers_message_that_is_due_stays(broker: Broker) -> None:
    connection = broker.connect()
    broker.send("due", connection=connection, headers={"id": "r", "eta": datetime.now(UTC).isoformat()})
    assert broker.receive(connection, 1) == ["due"]


def drain_once(connection: Any) -> None:
    try:
        connection.drain_events(timeout=0.2)
    except (TimeoutError, redis.TimeoutError):
        return
