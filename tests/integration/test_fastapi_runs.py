"""The endpoints for runs, with a real worker, Valkey and ledger: two owners, roles, all states."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery.contrib.testing.worker import start_worker
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from errands import Errands, Event, Kind
from errands.core import clock
from errands.doors.fastapi import Person, acting_person, create_api
from errands.store import reads
from errands.store.engine import Database
from ops_app import ANN, BOB, ROOT, make_api, make_app, record, settings, signed_in, until

FIELDS = {
    "task_id", "task", "status", "state", "ready", "successful", "result", "error", "progress", "attempt",
    "max_attempts", "queued_at", "started_at", "finished_at",
}  # fmt: skip


@pytest.fixture
def app(valkey_url: str, sqlite_database: Database) -> Errands:
    return make_app(settings(valkey_url, sqlite_database))


@pytest.fixture
def worker(app: Errands) -> Iterator[Any]:
    with start_worker(app, pool="threads", concurrency=2, perform_ping_check=False) as running:
        yield running


@pytest.fixture
def client(app: Errands) -> TestClient:
    return TestClient(make_api(app))


def get(client: TestClient, run_id: str, who: dict[str, str] = ANN, what: str = "") -> dict[str, Any]:
    response = client.get(f"/api/tasks/{run_id}{what}", headers=who)
    assert response.status_code == 200, response.text
    assert response.headers["cache-control"] == "no-store"
    return response.json()


def ended(client: TestClient, run_id: str, who: dict[str, str] = ANN) -> dict[str, Any]:
    return until(lambda: (found := get(client, run_id, who))["ready"] and found)


def send(app: Errands, task: str, *args: Any, owner: str | None = "ann", **options: Any) -> str:
    return app.tasks[task].apply_async(args, owner=owner, **options).id


def test_a_run_that_succeeds(app: Errands, worker: Any, client: TestClient) -> None:
    run_id = send(app, "add", 2, 3)
    found = ended(client, run_id)
    assert found.keys() >= FIELDS
    assert found["task_id"] == run_id
    assert (found["task"], found["status"], found["state"]) == ("add", "SUCCESS", "succeeded")
    assert (found["ready"], found["successful"], found["result"], found["error"]) == (True, True, 5, None)
    assert (found["attempt"], found["max_attempts"], found["progress"]) == (1, 1, None)
    assert found["queued_at"] <= found["started_at"] <= found["finished_at"]
    assert found["finished_at"].endswith("Z")
    assert get(client, run_id, what="/status") == {
        "task_id": run_id, "status": "SUCCESS", "state": "succeeded", "ready": True, "successful": True,
        "result": 5, "error": None,
    }  # fmt: skip
    bar = get(client, run_id, what="/progress")
    assert (bar["status"], bar["percentage"], bar["result"]) == ("completed", 100, 5)


def test_the_ledger_answers_when_valkey_has_forgotten(app: Errands, worker: Any, client: TestClient) -> None:
    run_id = send(app, "add", 2, 3)
    before = ended(client, run_id)
    record(app)
    app.valkey.delete(app.keys.run(run_id))
    assert get(client, run_id) == {**before, "requests": None}  # what only Valkey knows
    assert client.get(f"/api/tasks/{run_id}", headers=BOB).status_code == 404


def test_somebody_elses_run_and_an_unknown_id_are_the_same_404(
    app: Errands, worker: Any, client: TestClient
) -> None:
    mine, nobodys = send(app, "add", 2, 3), send(app, "add", 1, 1, owner=None)
    ended(client, mine)
    foreign = client.get(f"/api/tasks/{mine}", headers=BOB)
    unknown = client.get(f"/api/tasks/{app.new_id()}", headers=BOB)
    assert (foreign.status_code, foreign.json()) == (unknown.status_code, unknown.json())
    assert foreign.status_code == 404
    assert foreign.headers["cache-control"] == "no-store"
    for what in ("/status", "/progress", "/events"):
        assert client.get(f"/api/tasks/{mine}{what}", headers=BOB).status_code == 404
    assert client.get(f"/api/tasks/{nobodys}", headers=ANN).status_code == 404
    assert ended(client, nobodys, ROOT)["result"] == 2
    assert get(client, mine, ROOT)["owner"] == "ann"
    assert "owner" not in get(client, mine, ANN)


@pytest.mark.parametrize("run_id", ["%00", "x" * 300, "no-such-run", "%0a", "..%5c"])
def test_ids_that_nobody_made_are_404(client: TestClient, run_id: str) -> None:
    response = client.get(f"/api/tasks/{run_id}", headers=ROOT)
    assert response.status_code == 404
    assert response.json().keys() == {"detail"}


def test_who_is_not_signed_in_gets_401(client: TestClient) -> None:
    for method, path in (
        ("GET", "/api/tasks/x"), ("GET", "/api/tasks/x/status"), ("GET", "/api/tasks/x/progress"),
        ("GET", "/api/tasks/x/events"), ("POST", "/api/tasks/x/revoke"), ("POST", "/api/tasks/x/retry"),
        ("GET", "/api/celery/health"), ("GET", "/api/celery/stats"), ("GET", "/metrics"),
        ("GET", "/api/dead-letters"), ("POST", "/api/dead-letters/x/replay"), ("GET", "/api/workers"),
        ("GET", "/api/queues"),
    ):  # fmt: skip
        response = client.request(method, path)
        assert response.status_code == 401, path
        assert response.headers["www-authenticate"] == "Bearer"
        assert response.headers["cache-control"] == "no-store"
        assert response.json().keys() == {"detail"}


def test_what_is_for_admins_is_403_for_others(app: Errands, client: TestClient) -> None:
    run_id = send(app, "add", 1, 2)
    for method, path in (
        ("POST", f"/api/tasks/{run_id}/revoke"), ("POST", f"/api/tasks/{run_id}/retry"),
        ("POST", "/api/tasks/unknown/revoke"), ("GET", "/api/celery/health"), ("GET", "/api/celery/stats"),
        ("GET", "/metrics"), ("GET", "/api/dead-letters"), ("GET", "/api/workers"), ("GET", "/api/queues"),
        ("POST", "/api/dead-letters/x/replay"),
    ):  # fmt: skip
        response = client.request(method, path, headers=ANN)
        assert response.status_code == 403, path
        assert "admins" in response.json()["detail"]
    assert get(client, run_id)["state"] == "queued"


def test_an_error_tells_its_owner_nothing_of_the_inside(
    app: Errands, worker: Any, client: TestClient
) -> None:
    run_id = send(app, "fail")
    found = ended(client, run_id)
    assert (found["status"], found["state"], found["successful"]) == ("FAILURE", "failed", False)
    assert found["error"] == "The task failed (RuntimeError)."
    for what in ("", "/status", "/progress"):
        text = client.get(f"/api/tasks/{run_id}{what}", headers=ANN).text
        assert "hunter2" not in text
        assert "Traceback" not in text
    assert get(client, run_id, what="/progress")["status"] == "failed"
    record(app)
    in_full = get(client, run_id, ROOT)
    assert in_full["error"] == "inside: password=hunter2"
    assert [attempt["outcome"] for attempt in in_full["attempts"]] == ["failed"]
    assert "RuntimeError" in in_full["attempts"][0]["traceback"]


def test_a_discard_is_told_as_it_was_written(app: Errands, worker: Any, client: TestClient) -> None:
    found = ended(client, send(app, "discard"))
    assert (found["status"], found["state"]) == ("FAILURE", "discarded")
    assert found["error"] == "The course is not complete yet."


def test_between_two_attempts(app: Errands, worker: Any, client: TestClient) -> None:
    run_id = send(app, "retry")
    found = until(lambda: (now := get(client, run_id))["state"] == "retrying" and now)
    assert (found["status"], found["ready"], found["attempt"], found["max_attempts"]) == (
        "RETRY",
        False,
        1,
        3,
    )
    assert found["error"] == "The last attempt failed (ConnectionError); another one follows."
    assert found["eta"] is not None
    assert found["finished_at"] is None
    assert get(client, run_id, what="/progress")["status"] == "processing"


def test_running_with_progress_is_progress(app: Errands, worker: Any, client: TestClient) -> None:
    run_id = send(app, "hold", "gate:running")
    found = until(lambda: (now := get(client, run_id))["status"] == "PROGRESS" and now)
    assert found["state"] == "running"
    assert found["progress"] == {"current": 1, "total": 2, "percentage": 50, "note": "half"}
    bar = get(client, run_id, what="/progress")
    assert (bar["status"], bar["current"], bar["total"], bar["percentage"]) == ("processing", 1, 2, 50)
    app.valkey.lpush("gate:running", "go")
    assert ended(client, run_id)["result"] == "held"


def test_queued_scheduled_and_expired_are_told_apart(app: Errands, client: TestClient) -> None:
    queued, later, expired = (send(app, "add", 1, 2, countdown=wait) for wait in (None, 3600, 60))
    app.live.record(Event(kind=Kind.EXPIRED, run_id=expired, at=clock.timestamp()))
    states = {
        run_id: (get(client, run_id)["state"], get(client, run_id)["status"]) for run_id in (queued, later)
    }
    assert states == {queued: ("queued", "PENDING"), later: ("scheduled", "PENDING")}
    found = get(client, expired)
    assert (found["state"], found["status"], found["ready"]) == ("expired", "REVOKED", True)
    assert found["error"] == "The run expired before a worker could start it."
    assert get(client, queued, what="/progress")["status"] == "queued"


def test_a_run_that_is_still_in_the_outbox_is_queued(app: Errands, client: TestClient) -> None:
    with app.database.session() as session:
        with app.acting_as("ann"):
            run_id = app.tasks["add"].delay_on_commit(session, 1, 2)
        session.info.clear()  # the process dies between its commit and the sending
    assert app.live.get(run_id) is None
    found = get(client, run_id)
    assert (found["state"], found["status"], found["task"]) == ("queued", "PENDING", "add")
    assert client.get(f"/api/tasks/{run_id}", headers=BOB).status_code == 404
    assert client.post(f"/api/tasks/{run_id}/revoke", headers=ROOT).status_code == 202
    assert get(client, run_id)["state"] == "revoked"
    with app.database.reading() as connection:
        assert reads.outbox_length(connection) == 0


def test_secrets_are_masked_for_admins_too(app: Errands, worker: Any, client: TestClient) -> None:
    run_id = app.tasks["sign_in"].apply_async(kwargs={"token": "sesame-open"}, owner="ann").id
    ended(client, run_id)
    text = client.get(f"/api/tasks/{run_id}", headers=ROOT).text
    assert "sesame" not in text
    assert "sealed:" not in text
    assert get(client, run_id, ROOT)["kwargs"] == {"token": "***"}


# -- who starts a run, owns it


def test_runs_started_in_a_request_belong_to_the_person(app: Errands, worker: Any) -> None:
    api: FastAPI = make_api(app)
    acting = acting_person(app, signed_in)

    @api.post("/plain")
    def plain(person: Person = Depends(acting)) -> str:
        return app.tasks["add"].delay(1, 2).id

    @api.post("/async")
    async def asynchronous(person: Person = Depends(acting)) -> str:
        return (await app.tasks["add"].adelay(3, 4)).id

    @api.post("/nobody")
    def nobody() -> str:
        return app.tasks["add"].delay(5, 6).id

    client = TestClient(api)
    for path in ("/plain", "/async"):
        run_id = client.post(path, headers=BOB).json()
        assert ended(client, run_id, BOB)["successful"]
        assert client.get(f"/api/tasks/{run_id}", headers=ANN).status_code == 404
    run_id = client.post("/nobody", headers=BOB).json()
    assert client.get(f"/api/tasks/{run_id}", headers=BOB).status_code == 404
    assert get(client, run_id, ROOT)["owner"] is None


# -- the ready-made application


def test_the_ready_made_api_is_closed_until_a_token_is_set(
    valkey_url: str, sqlite_database: Database
) -> None:
    client = TestClient(create_api(make_app(settings(valkey_url, sqlite_database, admin_token=None))))
    for headers in ({}, {"Authorization": "Bearer "}, {"Authorization": "Bearer guess"}):
        response = client.get("/api/celery/stats", headers=headers)
        assert response.status_code == 401
        assert "ERRANDS_ADMIN_TOKEN" in response.json()["detail"]
    assert client.get("/metrics").status_code == 401
    assert client.get("/healthz").json() == {"status": "ok"}


def test_the_token_opens_the_ready_made_api(valkey_url: str, sqlite_database: Database) -> None:
    client = TestClient(create_api(make_app(settings(valkey_url, sqlite_database, admin_token="séance"))))
    good = {"Authorization": "Bearer séance".encode()}
    assert client.get("/api/celery/stats", headers=good).status_code == 200
    assert client.get("/metrics", headers=good).status_code == 200
    for token in ("seance", "", "séance2"):
        wrong = {"Authorization": f"Bearer {token}".encode()}
        assert client.get("/api/celery/stats", headers=wrong).status_code == 401
