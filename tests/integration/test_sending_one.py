"""One call, one round trip: what arrives, where, and when Celery has to send it after all."""

from __future__ import annotations

import gc
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import celery
import pytest
import redis
from celery import chain, group
from celery.exceptions import QueueNotFound
from kombu import Exchange
from kombu import Queue as BrokerQueue
from kombu.serialization import register, unregister
from kombu.utils.json import dumps, loads

from errands import Errands, Settings, State
from errands.core.events import Kind
from errands.core.task import LEVELS

pytestmark = pytest.mark.usefixtures("no_worker")


class Rig:
    """An app on the embedded Valkey, and a look at what it sent."""

    def __init__(self, folder: Path, url: str, prefix: str, valkey: redis.Redis) -> None:
        self.valkey, self.prefix = valkey, prefix
        settings = Settings(home=folder, broker_url=url, key_prefix=prefix)
        self.app = Errands("one", settings=settings, queues=["celery", "letters"], set_as_current=False)

        @self.app.task(name="greet", queue="letters", priority=7)
        def greet(name: str, times: int = 1) -> str:
            return name * times

        @self.app.task(name="plain")
        def plain(x: Any = None) -> None: ...

        self.greet, self.plain = greet, plain

    def waiting(self, queue: str, level: str = "normal") -> list[dict[str, Any]]:
        entries: Any = self.valkey.xrange(f"{self.prefix}q:{queue}:{level}")
        return [loads(fields[b"m"]) for _, fields in entries]

    def everything(self) -> list[dict[str, Any]]:
        return [m for queue in ("celery", "letters") for level in LEVELS for m in self.waiting(queue, level)]

    def delayed(self, queue: str) -> dict[str, float]:
        found: Any = self.valkey.zrange(f"{self.prefix}q:{queue}:delayed", 0, -1, withscores=True)
        return {member.decode(): due / 1000 for member, due in found}

    @contextmanager
    def commands(self) -> Iterator[dict[str, int]]:
        """How often the server was told what, inside the block."""
        told: dict[str, int] = {}
        before = self._calls()
        yield told
        after = self._calls()
        told.update({name: n for name in after if (n := after[name] - before.get(name, 0))})

    def _calls(self) -> dict[str, int]:
        stats: Any = self.valkey.info("commandstats")
        # What a script says to its own server is no round trip.
        outside = ("evalsha", "eval", "lpush", "subscribe", "unsubscribe", "get", "ping", "multi")
        return {name: stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in outside}


@pytest.fixture
def rig(tmp_path: Path, valkey_url: str, key_prefix: str, valkey: redis.Redis) -> Rig:
    return Rig(tmp_path, valkey_url, key_prefix, valkey)


def test_a_run_is_sent_and_told_of_in_one_round_trip(rig: Rig) -> None:
    rig.greet.delay("warm up")
    with rig.commands() as told:
        result = rig.greet.delay("Ann", times=2)
        gc.collect()
    assert told == {"multi": 1}
    message = rig.waiting("letters", "high")[-1]
    assert message["headers"]["id"] == result.id
    run = rig.app.live.get(result.id)
    assert run is not None
    assert run.state is State.QUEUED
    assert run.facts["args"] == ["Ann"]
    assert run.facts["kwargs"] == {"times": 2}
    assert run.facts["queue"] == "letters"


def test_a_result_that_nobody_asks_for_costs_the_server_nothing(rig: Rig) -> None:
    rig.greet.delay("warm up")
    with rig.commands() as told:
        results = [rig.greet.delay("Ann") for _ in range(3)]
        assert len({result.id for result in results}) == 3
        assert results[0] != results[1]
        del results
        gc.collect()
    assert told == {"multi": 3}


def test_results_are_celerys_own(rig: Rig) -> None:
    result = rig.greet.delay("Ann")
    assert isinstance(result, celery.result.AsyncResult)
    assert isinstance(result, rig.app.AsyncResult)
    assert result.backend is rig.app.backend
    assert (result.parent, result.ignored) == (None, False)
    assert rig.greet.apply_async(("Ann",), ignore_result=True).ignored is True
    assert result.as_tuple() == ((result.id, None), None)
    heard: list[Any] = []
    result.then(heard.append)
    rig.app.backend.store_result(result.id, "Ann!", "SUCCESS")
    assert result.get(timeout=20) == "Ann!"
    assert [found.id for found in heard] == [result.id]


def test_an_id_is_accepted_once(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    rig.greet.apply_async(("warm up",), task_id="warm-up")  # the server learns the script
    with caplog.at_level(logging.INFO, "errands"), rig.commands() as told:
        for name in ("Ann", "Bob"):
            assert rig.greet.apply_async((name,), task_id="follow-up").id == "follow-up"
    assert told == {"evalsha": 2}
    assert [m["headers"]["argsrepr"] for m in rig.everything()] == ["('warm up',)", "('Ann',)"]
    assert "is known already and is not sent again" in caplog.text


def test_what_is_due_later_waits_in_the_delayed_set(rig: Rig) -> None:
    now = time.time()
    first = rig.greet.apply_async(("Ann",), countdown=60)
    second = rig.greet.apply_async(("Ann",), countdown=-5)
    third = rig.greet.apply_async(("Ann",), eta="2100-01-01T00:00:00+00:00")
    due = rig.delayed("letters")
    assert due.keys() == {first.id, third.id}
    assert now + 59 < due[first.id] < time.time() + 61
    assert [m["headers"]["id"] for m in rig.everything()] == [second.id]
    run = rig.app.live.get(first.id)
    assert run is not None
    assert run.state is State.SCHEDULED


@pytest.mark.parametrize(("priority", "level"), [(None, "high"), (9, "high"), (1, "low"), (5, "normal")])
def test_a_callers_priority_goes_over_the_tasks_own(rig: Rig, priority: int | None, level: str) -> None:
    rig.greet.apply_async(("Ann",), priority=priority)
    assert len(rig.waiting("letters", level)) == 1


def test_a_queue_that_does_not_exist_is_named(rig: Rig) -> None:
    for _ in range(2):
        with pytest.raises(QueueNotFound, match="'no-such-queue'"):
            rig.greet.apply_async(("Ann",), queue="no-such-queue")
    assert rig.everything() == []


def test_routes_are_asked(rig: Rig) -> None:
    asked: list[Any] = []

    def by_arguments(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any) -> Any:
        asked.append((name, args, options.get("countdown")))
        return {"queue": "letters", "priority": 1} if args == (3,) else None

    rig.app.conf.task_routes = [{"pla*": {"queue": "letters", "routing_key": "letters.plain"}}]
    rig.plain.delay(1)
    assert len(rig.waiting("letters")) == 1
    rig.app.conf.update(task_routes=[by_arguments])
    rig.app.amqp.flush_routes()
    rig.app.amqp.router = rig.app.amqp.Router()
    rig.plain.delay(2)
    rig.plain.apply_async((3,), countdown=0)
    assert len(rig.waiting("celery")) == 1
    assert len(rig.waiting("letters", "low")) == 1
    assert asked == [("plain", (2,), None), ("plain", (3,), 0)]


def test_kombus_queue_may_be_given(rig: Rig) -> None:
    rig.plain.apply_async((1,), queue=BrokerQueue("letters", routing_key="letters"))
    assert len(rig.waiting("letters")) == 1


def test_a_task_sent_by_its_name_waits_where_it_says(rig: Rig) -> None:
    rig.app.send_task("greet", ("Ann",))
    rig.app.send_task("of.somebody.else", ("Ann",), queue="letters")
    assert [m["headers"]["task"] for m in rig.everything()] == ["greet", "of.somebody.else"]
    assert len(rig.waiting("letters", "high")) == 1
    assert len(rig.waiting("letters")) == 1


def test_whose_run_it_is_travels_with_it(rig: Rig) -> None:
    with rig.app.acting_as("7"):
        first = rig.greet.delay("Ann")
        second = rig.greet.apply_async(("Ann",), owner="8")
    third = rig.greet.delay("Ann")
    owners = {m["headers"]["id"]: m["headers"]["errands"].get("owner") for m in rig.everything()}
    assert owners == {first.id: "7", second.id: "8", third.id: None}
    run = rig.app.live.get(first.id)
    assert run is not None
    assert run.facts["owner"] == "7"


def test_celerys_own_tasks_are_no_runs(rig: Rig) -> None:
    result = rig.app.tasks["celery.backend_cleanup"].delay()
    assert rig.app.live.get(result.id) is None
    assert [m["headers"]["task"] for m in rig.everything()] == ["celery.backend_cleanup"]


def test_members_of_a_canvas_take_one_round_trip_each(rig: Rig) -> None:
    rig.greet.apply_async(("warm up",), task_id="warm-up")  # the server learns the script
    with rig.commands() as told:
        group(rig.greet.s("Ann"), rig.greet.s("Bob")).apply_async()
        chain(rig.greet.s("Cid"), rig.plain.s()).apply_async()
        with rig.app.producer_pool.acquire(block=True) as producer:
            rig.greet.apply_async(("Dan",), producer=producer)
    # Celery's result of a group subscribes for each of its members at once.
    # What has an id of its own, as Celery gives its members one, is sent by the script.
    assert told == {"evalsha": 3, "multi": 1, "subscribe": 2, "unsubscribe": 2}
    assert len(rig.everything()) == 5


@pytest.fixture(autouse=True)
def _serializer() -> Iterator[None]:
    register("errands-test", dumps, loads, "application/x-errands-test", "utf-8")
    yield
    unregister("errands-test")


UNUSUAL: dict[str, dict[str, Any]] = {
    "compression": {"compression": "zlib"},
    "serializer": {"serializer": "errands-test"},
    "exchange": {"exchange": Exchange("", type="direct"), "routing_key": "letters"},
    "delivery mode": {"delivery_mode": 1},
}


@pytest.mark.parametrize("named", UNUSUAL)
def test_what_only_kombu_knows_is_sent_by_celery_and_told_of(rig: Rig, named: str) -> None:
    result = rig.greet.apply_async(("Ann",), **UNUSUAL[named])
    (message,) = rig.everything()
    assert message["headers"]["id"] == result.id
    assert message["headers"]["errands"]
    run = rig.app.live.get(result.id)
    assert run is not None
    assert run.state is State.QUEUED


def test_a_configuration_that_changes_is_heeded(rig: Rig) -> None:
    rig.greet.delay("Ann")
    rig.app.conf.task_compression = "zlib"
    rig.greet.delay("Ann")
    rig.app.conf.task_compression = None
    rig.greet.delay("Ann")
    assert [m["headers"].get("compression") for m in rig.everything()] == [None, "application/x-gzip", None]


def test_eager_runs_stay_here(rig: Rig) -> None:
    rig.greet.delay("warm up")
    rig.app.conf.task_always_eager = True
    assert rig.greet.delay("Ann", 2).get() == "AnnAnn"
    assert len(rig.everything()) == 1


def test_who_wraps_celerys_sending_is_called(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sentry's integration does, to put the trace into the headers."""
    theirs = celery.Task.apply_async

    def wrapped(self: Any, *args: Any, **options: Any) -> Any:
        options["headers"] = {**(options.get("headers") or {}), "sentry-trace": "1"}
        return theirs(self, *args, **options)

    monkeypatch.setattr(celery.Task, "apply_async", wrapped)
    result = rig.greet.delay("Ann")
    (message,) = rig.everything()
    assert message["headers"]["sentry-trace"] == "1"
    assert message["headers"]["id"] == result.id


def test_events_on_another_server_are_told_there(
    tmp_path: Path, valkey_url: str, redis_url: str, key_prefix: str
) -> None:
    """The message and its event cannot share a script: Celery sends, and the event follows."""
    settings = Settings(home=tmp_path, broker_url=redis_url, valkey_url=valkey_url, key_prefix=key_prefix)
    app = Errands("apart", settings=settings, set_as_current=False)

    @app.task(name="plain")
    def plain() -> None: ...

    result = plain.delay()
    run = app.live.get(result.id)
    assert run is not None
    assert run.state is State.QUEUED
    with redis.Redis.from_url(redis_url) as broker:
        assert broker.xlen(f"{key_prefix}q:celery:normal") == 1
    with redis.Redis.from_url(valkey_url) as events:
        assert events.xlen(f"{key_prefix}q:celery:normal") == 0


def test_what_was_sent_is_in_the_stream_of_events(rig: Rig) -> None:
    from errands.broker.events import EventStream

    result = rig.greet.delay("Ann")
    events = [event for _, event, _ in EventStream(rig.valkey, rig.app.keys.events).read(count=10) if event]
    assert [(event.kind, event.run_id, event.max_attempts) for event in events] == [
        (Kind.QUEUED, result.id, 1)
    ]
