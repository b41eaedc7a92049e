"""Schedules as rows and over HTTP: made, changed, paused and deleted while a beat runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.contrib.testing.worker import start_worker
from fastapi.testclient import TestClient

from errands import Errands
from errands.core import clock
from errands.core.clock import FakeClock
from errands.core.schedule import run_id
from errands.store import reads
from errands.store import schedules as store
from errands.store.engine import Database
from ops_app import ANN, ROOT, make_api, settings, until
from schedule_beat import START, ByHand, make_school, sent


@pytest.fixture
def app(valkey_url: str, database: Database, key_prefix: str, tmp_path: Path) -> Iterator[Errands]:
    made = make_school(settings(valkey_url, database, key_prefix=key_prefix, home=tmp_path))
    yield made
    made.close()
    made.database.dispose()


@pytest.fixture
def now() -> Iterator[FakeClock]:
    with clock.use(FakeClock(START)) as fake:
        assert isinstance(fake, FakeClock)
        yield fake


@pytest.fixture
def beats(app: Errands) -> Iterator[Callable[[], ByHand]]:
    made: list[ByHand] = []

    def make() -> ByHand:
        made.append(ByHand(app, now=clock.now))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def client(app: Errands) -> TestClient:
    return TestClient(make_api(app))


def put(client: TestClient, name: str, **said: Any) -> dict[str, Any]:
    answer = client.put(f"/api/schedules/{name}", headers=ROOT, json=said)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def one(client: TestClient, name: str) -> dict[str, Any]:
    return dict(client.get(f"/api/schedules/{name}", headers=ROOT).json())


def test_a_row_is_made_changed_paused_and_deleted_while_a_beat_runs(
    app: Errands, client: TestClient, beats: Callable[[], ByHand], now: FakeClock
) -> None:
    beat = beats()
    beat.turn()
    put(client, "rows", task="tidy", kwargs={"days": 3}, cron="* * * * *", tz="UTC", reason="a trial")
    now.advance(5)
    beat.turn()
    now.advance(25)
    beat.turn()
    first = run_id("school", "rows", START + timedelta(seconds=30))
    assert sent(app) == [first]
    # Its arguments and its rule are changed; the other fields stay.
    put(client, "rows", kwargs={"days": 4}, every=10)
    now.advance(10)
    beat.turn()
    now.advance(10)
    beat.turn()
    assert len(sent(app)) == 3
    assert one(client, "rows")["kwargs"] == {"days": 4}
    assert one(client, "rows")["rule"] == "every 10 s"
    client.post("/api/schedules/rows/pause", headers=ROOT)
    now.advance(60)
    beat.turn()
    now.advance(60)
    beat.turn()
    assert len(sent(app)) == 3
    assert one(client, "rows")["next"] == []
    client.post("/api/schedules/rows/resume", headers=ROOT, json={"reason": "enough"})
    now.advance(5)
    beat.turn()
    assert len(sent(app)) == 3  # the pause is not caught up with
    now.advance(5)
    beat.turn()
    assert len(sent(app)) == 4
    assert client.delete("/api/schedules/rows", headers=ROOT).json() == {"name": "rows", "in_code": False}
    now.advance(60)
    beat.turn()
    now.advance(60)
    beat.turn()
    assert len(sent(app)) == 4
    assert client.get("/api/schedules/rows", headers=ROOT).status_code == 404
    with app.database.reading() as connection:
        audit = reads.audit(connection, target="rows")
    assert [row.action for row in audit][::-1] == [
        "schedule.save", "schedule.save", "schedule.pause", "schedule.resume", "schedule.remove",
    ]  # fmt: skip
    assert {row.actor for row in audit} == {"root"}


def test_what_the_code_says_is_paused_changed_and_comes_back(
    app: Errands, client: TestClient, beats: Callable[[], ByHand], now: FakeClock
) -> None:
    beat = beats()
    beat.turn()
    assert one(client, "hourly")["origin"] == "code"
    client.post("/api/schedules/hourly/pause", headers=ROOT)
    assert one(client, "hourly")["paused"] is True
    now.advance(timedelta(hours=1))
    beat.turn()
    assert sent(app) == []
    client.post("/api/schedules/hourly/resume", headers=ROOT)
    put(client, "hourly", cron="*/5 * * * *")
    changed = one(client, "hourly")
    assert changed["origin"] == "code, changed by a row"
    assert changed["kwargs"] == {"days": 7}
    assert changed["rule"] == "cron */5 * * * * Europe/Berlin"
    now.advance(3)
    beat.turn()
    now.advance(timedelta(minutes=5))
    beat.turn()
    assert len(sent(app)) == 1
    assert client.delete("/api/schedules/hourly", headers=ROOT).json() == {"name": "hourly", "in_code": True}
    assert one(client, "hourly")["rule"] == "cron 0 * * * * Europe/Berlin"
    refused = client.delete("/api/schedules/hourly", headers=ROOT)
    assert (refused.status_code, "declared in the code" in refused.text) == (409, True)


def test_the_next_five_times_and_what_became_of_the_last(
    app: Errands, client: TestClient, beats: Callable[[], ByHand], now: FakeClock
) -> None:
    beat = beats()
    beat.turn()
    now.advance(timedelta(hours=1, seconds=10))
    beat.turn()
    (view,) = client.get("/api/schedules", headers=ROOT).json()
    due = START.replace(hour=13, second=0)
    assert view["name"] == "hourly"
    assert view["last"] == {
        "due": "2026-03-01T13:00:00.000Z", "outcome": "sent", "at": "2026-03-01T13:00:40.000Z",
        "late_s": 40.0, "task_id": run_id("school", "hourly", due), "reason": None, "state": "queued",
    }  # fmt: skip
    assert len(view["next"]) == 5
    times = one(client, "hourly")["times"]
    assert [(time["outcome"], time["late_s"]) for time in times] == [("sent", 40.0)]
    run = client.get(f"/api/tasks/{view['last']['task_id']}", headers=ROOT).json()
    assert run["schedule"]["name"] == "hourly"
    assert run["schedule"]["due"] == "2026-03-01T13:00:00.000Z"


def test_a_run_knows_what_it_was_sent_for(
    app: Errands, client: TestClient, beats: Callable[[], ByHand], now: FakeClock
) -> None:
    put(client, "teller", task="tell", every=60)
    beat = beats()
    beat.turn()
    now.advance(timedelta(seconds=30))
    beat.turn()
    answer = client.post("/api/schedules/teller/run", headers=ROOT, json={"reason": "cannot wait"})
    assert answer.status_code == 202
    by_hand = answer.json()["task_id"]
    due, _ = by_rule = sent(app)
    assert by_rule[1] == by_hand
    with start_worker(app, pool="threads", queues=["tidying"], perform_ping_check=False):
        until(lambda: all(app.live.get(each).final for each in (due, by_hand)))
    assert app.live.get(due).facts["result"] == ["teller", "2026-03-01T12:01:00+00:00"]
    assert app.live.get(by_hand).facts["result"] == ["teller", "now"]
    assert client.get(f"/api/tasks/{by_hand}", headers=ROOT).json()["schedule"] is None
    with app.database.reading() as connection:
        (row,) = [row for row in reads.audit(connection, target="teller") if row.action == "schedule.run"]
    assert (row.reason, row.details) == ("cannot wait", {"task_id": by_hand})


@pytest.mark.parametrize(
    ("said", "status", "why"),
    [
        ({"task": "tidy"}, 422, "one of cron=, every= and at="),
        ({"task": "nothing", "every": 60}, 422, "not registered"),
        ({"every": 60}, 422, "names no task"),
        ({"task": "tidy", "cron": "1--100000000 * * * *"}, 422, "minute"),
        ({"task": "tidy", "cron": "0 0 30 2 *"}, 422, "no such day"),
        ({"task": "tidy", "cron": "0 0 * * *", "tz": "../etc"}, 422, "no time zone"),
        ({"task": "tidy", "every": 60, "kwargs": {"days": "many"}}, 422, "days"),
        ({"task": "tidy", "every": 60, "only_if": [{"moon": {}}]}, 422, "no condition"),
        (
            {"task": "tidy", "every": 60, "only_if": [{"queue_below": {"queue": "x", "count": 1}}]},
            422,
            "queue",
        ),
        ({"task": "tidy", "at": "2020-01-01T00:00:00Z"}, 409, "has passed"),
        ({"task": "tidy", "at": "2030-01-01T00:00:00"}, 422, "time zone"),
        ({"task": "tidy", "every": 60, "colour": "red"}, 422, "colour"),
        ({"task": "sign", "every": 60}, 422, "token"),
    ],
)
def test_what_makes_no_schedule_is_refused_and_not_kept(
    client: TestClient, said: dict[str, Any], status: int, why: str
) -> None:
    answer = client.put("/api/schedules/bad", headers=ROOT, json=said)
    assert answer.status_code == status
    assert why in answer.text
    assert client.get("/api/schedules/bad", headers=ROOT).status_code == 404


def test_only_admins_see_and_change_schedules(client: TestClient) -> None:
    for method, path in [
        ("GET", ""), ("GET", "/hourly"), ("PUT", "/x"), ("DELETE", "/hourly"), ("POST", "/hourly/pause"),
        ("POST", "/hourly/resume"), ("POST", "/hourly/run"),
    ]:  # fmt: skip
        body = {"json": {}} if method in ("PUT", "POST") else {}
        assert client.request(method, f"/api/schedules{path}", headers=ANN, **body).status_code == 403
        assert client.request(method, f"/api/schedules{path}", **body).status_code == 401


def test_secrets_are_sealed_in_the_row_and_masked_on_the_page(
    app: Errands, client: TestClient, beats: Callable[[], ByHand], now: FakeClock
) -> None:
    put(client, "signer", task="sign", kwargs={"token": "hunter2"}, every=60)
    with app.database.reading() as connection:
        row = store.row(connection, "signer")
        audit = reads.audit(connection, target="signer")
    assert row is not None
    assert "hunter2" not in json.dumps(row.kwargs)
    assert "hunter2" not in json.dumps([each.details for each in audit])
    assert "hunter2" not in client.get("/api/schedules/signer", headers=ROOT).text
    beat = beats()
    beat.turn()
    now.advance(30)
    beat.turn()
    (run,) = sent(app)
    with start_worker(app, pool="threads", queues=["tidying"], perform_ping_check=False):
        until(lambda: app.live.get(run).final)
    assert app.live.get(run).facts["result"] == len("hunter2")


def test_a_row_that_somebody_broke_by_hand_stops_nobody_else(
    app: Errands, client: TestClient, beats: Callable[[], ByHand], now: FakeClock
) -> None:
    with app.database.writing() as connection:
        store.save(connection, "broken", {"task": "tidy", "cron": "often"}, "psql")
        store.save(connection, "orphan", {"jitter": 5.0}, "psql")
    beat = beats()
    beat.turn()
    now.advance(timedelta(hours=1))
    beat.turn()
    assert len(sent(app)) == 1
    assert "1 fields" in one(client, "broken")["problem"]
    assert "the code declares no such schedule" in one(client, "orphan")["problem"]
