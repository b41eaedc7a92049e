"""Queues over HTTP: what is in them, pausing, and delayed messages of revoked runs."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from celery.contrib.testing.worker import start_worker
from fastapi.testclient import TestClient

from errands import Errands
from errands.broker import queues
from errands.ops import queues as ops_queues
from errands.store import reads
from errands.store.engine import Database
from ops_app import ANN, ROOT, make_api, make_app, settings, until


@pytest.fixture
def app(valkey_url: str, database: Database) -> Errands:
    return make_app(settings(valkey_url, database))


@pytest.fixture
def client(app: Errands) -> TestClient:
    return TestClient(make_api(app))


def found(client: TestClient, name: str) -> dict[str, object]:
    listed = client.get("/api/queues", headers=ROOT).json()
    return next(queue for queue in listed if queue["name"] == name)


def test_a_paused_queue_is_not_read_and_then_is(app: Errands, client: TestClient) -> None:
    answer = client.post("/api/queues/sums/pause", headers=ROOT, json={"reason": "the bank is away"})
    assert (answer.status_code, answer.json()) == (202, {"name": "sums", "paused": True})
    run = app.tasks["add"].delay(1, 2).id
    sentinel = app.tasks["unread"].delay().id  # sent later, to another queue of the same worker
    with start_worker(app, pool="threads", queues=["sums", "unread"], perform_ping_check=False):
        until(lambda: app.live.get(sentinel).final)
        assert app.live.get(run).state == "queued"
        assert found(client, "sums")["paused"] is True
        assert found(client, "sums")["depth"] == 1
        stats = client.get("/api/celery/stats", headers=ROOT).json()["queues"]
        assert stats["sums"]["paused"] is True
        assert stats["unread"]["paused"] is False
        notes = client.get("/api/celery/health", headers=ROOT).json()["notes"]
        assert "The queue 'sums' is paused. 1 messages wait in it." in notes
        text = client.get("/metrics", headers=ROOT).text
        assert 'errands_queue_paused{queue="sums"} 1.0' in text
        assert 'errands_queue_paused{queue="unread"} 0.0' in text
        answer = client.post("/api/queues/sums/resume", headers=ROOT)
        assert answer.json() == {"name": "sums", "paused": False}
        until(lambda: app.live.get(run).final)
    with app.database.reading() as connection:
        resumed, paused = reads.audit(connection, target="sums")
    assert (paused.action, paused.actor, paused.reason) == ("pause", "root", "the bank is away")
    assert (resumed.action, resumed.reason) == ("resume", None)


def test_only_admins_pause_and_only_queues_that_exist(app: Errands, client: TestClient) -> None:
    assert client.post("/api/queues/sums/pause", headers=ANN).status_code == 403
    assert client.post("/api/queues/sums/pause").status_code == 401
    assert client.post("/api/queues/nobody/pause", headers=ROOT).status_code == 404
    assert ops_queues.paused(app) == set()
    with app.database.reading() as connection:
        assert reads.audit(connection) == []


def test_a_broker_without_streams_cannot_pause(
    valkey_url: str, sqlite_database: Database, tmp_path: Path
) -> None:
    app = make_app(settings(f"stock+{valkey_url}", sqlite_database, home=tmp_path))
    client = TestClient(make_api(app))
    answer = client.post("/api/queues/sums/pause", headers=ROOT)
    assert answer.status_code == 409
    assert "cancel_consumer sums" in answer.json()["detail"]
    with app.database.reading() as connection:
        assert reads.audit(connection) == []


def test_depth_and_age_in_stock_lists(valkey_url: str, sqlite_database: Database, tmp_path: Path) -> None:
    app = make_app(settings(f"stock+{valkey_url}", sqlite_database, home=tmp_path))
    app.tasks["unread"].delay()
    app.tasks["unread"].apply_async(priority=6)
    depth = ops_queues.depths(app)["unread"]
    assert depth.depth == 2
    assert depth.oldest_s is not None
    assert ops_queues.depths(app)["sums"].depth == 0


def test_a_revoked_scheduled_run_leaves_no_message(app: Errands, client: TestClient) -> None:
    run = app.tasks["add"].apply_async((1, 2), countdown=3600).id
    other = app.tasks["add"].apply_async((1, 2), countdown=3600).id
    assert found(client, "sums")["delayed"] == 2
    assert client.post(f"/api/tasks/{run}/revoke", headers=ROOT).status_code == 202
    assert found(client, "sums")["delayed"] == 1
    assert queues.remove_delayed(app.valkey, app.keys, "sums", other) == 1


def test_what_a_worker_holds_is_told(app: Errands, client: TestClient) -> None:
    run = app.tasks["hold"].delay("gate").id
    with start_worker(app, pool="threads", perform_ping_check=False):
        until(lambda: (live := app.live.get(run)) and live.state == "running")
        assert found(client, "sums")["held"] == 1
        assert found(client, "sums")["depth"] == 0
        threading.Thread(target=lambda: app.valkey.rpush("gate", "go")).start()
        until(lambda: app.live.get(run).final)
        until(lambda: found(client, "sums")["held"] == 0)
