"""Health, statistics, metrics and doctor: each thing that can be wrong, made wrong, and named."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery.contrib.testing.worker import start_worker
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families

from errands import Errands, Event, Kind
from errands.beat.leader import Leader
from errands.broker import workers
from errands.core import clock
from errands.doors.fastapi import create_api
from errands.doors.local.valkey import EmbeddedValkey
from errands.ops.doctor import Level, doctor
from errands.store.engine import Database
from ops_app import ROOT, make_api, make_app, record, settings, until

LABELS = ("task", "state", "worker", "queue", "le")


@pytest.fixture
def app(valkey_url: str, sqlite_database: Database) -> Errands:
    return make_app(settings(valkey_url, sqlite_database))


@pytest.fixture
def client(app: Errands) -> TestClient:
    return TestClient(make_api(app))


@contextmanager
def beat(app: Errands) -> Iterator[None]:
    leader = Leader(app.valkey, app.keys.leader, "beat", 60, token_key=app.keys.leader_token)
    assert leader.step()
    yield
    leader.release()


def says_it_reads(app: Errands, *queues: str, name: str = "one@host", **facts: Any) -> None:
    """A worker's heartbeat."""
    workers.report(app.valkey, app.keys, name, {"name": name, "queues": sorted(queues), **facts})


def health(client: TestClient) -> dict[str, Any]:
    response = client.get("/api/celery/health", headers=ROOT)
    assert response.status_code == 200, response.text
    return dict(response.json())


def samples(client: TestClient) -> dict[tuple[str, tuple[str, ...]], float]:
    response = client.get("/metrics", headers=ROOT)
    assert response.status_code == 200
    return {
        (sample.name, tuple(sample.labels[name] for name in LABELS if name in sample.labels)): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


# -- health


def test_all_is_well(app: Errands, client: TestClient) -> None:
    says_it_reads(app, "sums", "unread")
    with beat(app):
        found = health(client)
    assert found["overall"] == "healthy", found["why"]
    assert (found["celery"], found["redis"], found["database"], found["beat"]) == ("healthy",) * 4
    assert found["workers"] == ["one@host"]
    assert set(found["queues"]) >= {"sums", "unread"}
    assert (found["why"], found["notes"]) == ([], [])


def test_without_a_worker_nothing_goes_on(app: Errands, client: TestClient) -> None:
    with beat(app):
        found = health(client)
    assert (found["overall"], found["celery"], found["workers"]) == ("unhealthy", "unhealthy", [])
    assert found["why"] == ["No worker is alive: what is sent waits."]


def test_a_queue_that_nobody_reads_is_named(app: Errands, client: TestClient) -> None:
    says_it_reads(app, "sums")
    app.tasks["unread"].delay()
    with beat(app):
        found = health(client)
    assert (found["overall"], found["celery"]) == ("degraded", "degraded")
    assert found["why"] == ["No live worker reads the queue 'unread'. 1 messages wait in it."]


def test_a_real_worker_is_seen(app: Errands, client: TestClient) -> None:
    with start_worker(app, pool="threads", perform_ping_check=False, hostname="real@host"), beat(app):
        found = until(lambda: (now := health(client))["workers"] and now)
        assert found["workers"] == ["real@host"]
        assert found["celery"] == "healthy"
        facts = client.get("/api/workers", headers=ROOT).json()
        assert facts[0]["name"] == "real@host"
        assert "sums" in facts[0]["queues"]
    assert health(client)["workers"] == []


def test_a_beat_that_is_missing_or_behind(app: Errands, client: TestClient) -> None:
    says_it_reads(app, "sums", "unread")
    found = health(client)
    assert (found["overall"], found["beat"]) == ("degraded", "degraded")
    assert "No beat is alive" in found["why"][0]
    event = Event(kind=Kind.QUEUED, run_id="x", at=clock.timestamp(), task="add").to_json()
    long_ago = int((clock.timestamp() - 3600) * 1000)
    app.valkey.xadd(app.keys.events, {"e": event}, id=f"{long_ago}-0")
    with beat(app):
        found = health(client)
        assert found["beat"] == "degraded"
        assert found["why"][0].startswith("The ledger is 3600 s (1 events) behind")
        record(app)
        assert health(client)["overall"] == "healthy"


def test_dead_letters_are_a_note(app: Errands, client: TestClient) -> None:
    says_it_reads(app, "sums", "unread")
    app.live.record(Event(kind=Kind.DEAD_LETTER, run_id="x", at=clock.timestamp(), note="why", message={}))
    record(app)
    with beat(app):
        found = health(client)
    assert found["overall"] == "healthy"
    assert "1 dead letters" in found["notes"][0]


def test_servers_that_are_away_are_named(tmp_path: Path, sqlite_database: Database) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        app = make_app(settings(valkey.url, sqlite_database))
        client = TestClient(make_api(app))
        run_id = app.tasks["add"].delay(1, 2).id
        assert client.get("/healthz").status_code == 200
        valkey.kill()
        found = health(client)
        assert (found["overall"], found["redis"], found["database"]) == ("unhealthy", "unhealthy", "healthy")
        assert "does not answer" in found["why"][0]
        assert valkey.password not in str(found)
        probe = client.get("/healthz")
        assert (probe.status_code, probe.json()["status"]) == (503, "unavailable")
        # It may be there or not: nobody can say, so it is neither 404 nor an error of ours.
        for path in (f"/api/tasks/{run_id}", f"/api/tasks/{run_id}/events", "/api/celery/stats"):
            answer = client.get(path, headers=ROOT)
            assert answer.status_code == 503
            assert answer.headers["retry-after"] == "5"
        assert client.post(f"/api/tasks/{run_id}/revoke", headers=ROOT).status_code == 503
        assert samples(client)["errands_broker_up", ()] == 0
        assert samples(client)["errands_database_up", ()] == 1
        valkey.start()
        assert client.get(f"/api/tasks/{run_id}", headers=ROOT).json()["state"] == "queued"


def test_a_database_without_tables_is_named(app: Errands, tmp_path: Path, valkey_url: str) -> None:
    bare = make_app(settings(valkey_url, Database(f"sqlite:///{tmp_path / 'bare.db'}")))
    client = TestClient(make_api(bare))
    found = health(client)
    assert (found["overall"], found["database"]) == ("unhealthy", "unhealthy")
    assert samples(client)["errands_database_up", ()] == 0
    assert client.get("/api/tasks/unknown", headers=ROOT).status_code == 503


def test_a_broker_that_evicts_is_named(app: Errands, client: TestClient) -> None:
    says_it_reads(app, "sums", "unread")
    app.valkey.config_set("maxmemory-policy", "allkeys-lru")
    try:
        with beat(app):
            found = health(client)
            findings = doctor(app)
    finally:
        app.valkey.config_set("maxmemory-policy", "noeviction")
    assert (found["overall"], found["redis"]) == ("degraded", "degraded")
    assert "allkeys-lru" in found["why"][0]
    assert ["allkeys-lru" in finding.what for finding in findings if finding.level is Level.PROBLEM] == [True]


# -- statistics


def test_the_last_day_in_numbers(app: Errands, client: TestClient) -> None:
    with start_worker(app, pool="threads", perform_ping_check=False):
        runs = [
            app.tasks[name].apply_async(args)
            for name, args in (("add", (1, 2)), ("add", (3, 4)), ("fail", ()))
        ]
        for run in runs:
            until(lambda run=run: app.live.get(run.id).final)
    app.tasks["discard"].delay()
    app.tasks["unread"].delay()
    revoked = app.tasks["unread"].delay().id
    client.post(f"/api/tasks/{revoked}/revoke", headers=ROOT)
    says_it_reads(app, "sums", active=3)
    record(app)
    found = client.get("/api/celery/stats", headers=ROOT).json()
    assert found["total_tasks_24h"] == 6
    assert (found["successful_tasks_24h"], found["failed_tasks_24h"]) == (2, 1)
    assert (found["pending_tasks_24h"], found["revoked_tasks_24h"]) == (2, 1)
    assert (found["workers"], found["active_tasks"]) == (1, 3)
    assert found["queues"]["unread"]["depth"] == 2
    assert 0 <= found["queues"]["unread"]["oldest_s"] < 60
    listed = {queue["name"]: queue for queue in client.get("/api/queues", headers=ROOT).json()}
    assert (listed["sums"]["workers"], listed["unread"]["workers"]) == (["one@host"], [])


def test_depths_of_queues_in_rabbitmq(
    rabbitmq_url: str, valkey_url: str, key_prefix: str, sqlite_database: Database
) -> None:
    app = Errands(
        "rabbit",
        settings=settings(rabbitmq_url, sqlite_database, valkey_url=valkey_url),
    )
    name = f"{key_prefix}deep"

    @app.task(name="one", queue=name)
    def one() -> None: ...

    client = TestClient(make_api(app))
    try:
        assert client.get("/api/celery/stats", headers=ROOT).json()["queues"][name]["depth"] == 0
        one.delay()
        one.delay()
        depth = until(lambda: client.get("/api/celery/stats", headers=ROOT).json()["queues"][name]["depth"])
        assert depth in (1, 2)
        assert client.get("/healthz").status_code == 200
    finally:
        with app.connection_for_write() as connection:
            connection.default_channel.queue_delete(name)


# -- metrics


def test_metrics_by_the_names_promised(app: Errands, client: TestClient) -> None:
    with start_worker(app, pool="threads", perform_ping_check=False, hostname="real@host"):
        runs = [app.tasks[name].delay() for name in ("fail", "discard")] + [app.tasks["add"].delay(1, 2)]
        for run in runs:
            until(lambda run=run: app.live.get(run.id).final)
        until(lambda: samples(client)["celery_workers", ()] == 1)
        before = samples(client)
        assert before["errands_worker_memory_bytes", ("real@host",)] > 1_000_000
        assert before["errands_worker_cpu_seconds_total", ("real@host",)] > 0
    assert before["errands_events_behind", ()] == 9  # queued, started and ended, three times
    app.tasks["unread"].delay()
    record(app)
    for found in (samples(client), samples(client)):  # reading twice counts nothing twice
        assert found["celery_tasks_total", ("add", "succeeded")] == 1
        assert found["celery_tasks_total", ("fail", "failed")] == 1
        assert found["celery_tasks_total", ("discard", "discarded")] == 1
        assert found["celery_task_duration_seconds_count", ("add",)] == 1
        assert found["celery_task_duration_seconds_bucket", ("add", "+Inf")] == 1
        assert found["celery_task_duration_seconds_sum", ("add",)] >= 0
        assert found["errands_queue_depth", ("unread",)] == 1
        assert found["errands_queue_depth", ("sums",)] == 0
        assert found["errands_queue_oldest_seconds", ("unread",)] >= 0
        assert found["errands_failure_rate", ()] == pytest.approx(2 / 3)
        assert found["errands_events_behind", ()] == 0
        assert (found["errands_broker_up", ()], found["errands_database_up", ()]) == (1, 1)
        assert found["celery_workers", ()] == 0


def test_metrics_speak_openmetrics_where_asked(client: TestClient) -> None:
    accept = "application/openmetrics-text;version=1.0.0"
    response = client.get("/metrics", headers={**ROOT, "Accept": accept})
    assert response.headers["content-type"].startswith("application/openmetrics-text")
    assert response.text.endswith("# EOF\n")


def test_metrics_are_open_only_where_the_setting_says_so(valkey_url: str, sqlite_database: Database) -> None:
    app = make_app(settings(valkey_url, sqlite_database, metrics_open=True))
    client = TestClient(create_api(app))
    assert client.get("/metrics").status_code == 200
    assert client.get("/api/celery/stats").status_code == 401


# -- doctor


def test_a_sound_system_gives_the_doctor_nothing_to_say(app: Errands) -> None:
    says_it_reads(app, "sums", "unread")
    with beat(app):
        findings = doctor(app)
    assert {finding.level for finding in findings} == {Level.GOOD}, findings
    assert len(findings) == 8


def test_the_doctor_names_what_is_wrong_and_what_to_do(valkey_url: str, tmp_path: Path) -> None:
    bare = Database(f"sqlite:///{tmp_path / 'bare.db'}")
    app = make_app(settings(valkey_url, bare, secret_keys=""))
    says_it_reads(app, "sums")
    app.valkey.config_set("appendonly", "no")
    try:
        with clock.use(clock.FakeClock()):
            says_it_reads(app, "sums")
            findings = doctor(app)
    finally:
        app.valkey.config_set("appendonly", "yes")
    wrong = [finding for finding in findings if finding.level is not Level.GOOD]
    told = " | ".join(finding.what for finding in wrong)
    for part in (
        "tasks have secret arguments: sign_in", "tables are at nothing", "append-only", "clock is",
        "'unread'", "no beat",
    ):  # fmt: skip
        assert part in told
    assert all(finding.advice for finding in wrong)


def test_the_doctor_says_once_that_the_broker_is_away(tmp_path: Path, sqlite_database: Database) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        app = make_app(settings(valkey.url, sqlite_database))
    findings = doctor(app)
    assert [finding.level for finding in findings].count(Level.PROBLEM) == 1
    assert "broker does not answer" in findings[-1].what
