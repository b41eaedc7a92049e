"""Revoking, retrying and replaying runs over HTTP, with real workers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from celery.contrib.testing.worker import start_worker
from fastapi.testclient import TestClient

from errands import Errands, State
from errands.core.secrets import Keyring
from errands.store import reads
from errands.store.engine import Database
from ops_app import ANN, ROOT, SECRET_KEYS, make_api, make_app, record, settings, until

ROOT_FOLDER = Path(__file__).parents[2]


@pytest.fixture
def app(valkey_url: str, database: Database) -> Errands:
    return make_app(settings(valkey_url, database))


@pytest.fixture
def client(app: Errands) -> TestClient:
    return TestClient(make_api(app))


@contextmanager
def working(app: Errands) -> Iterator[Any]:
    with start_worker(app, pool="threads", concurrency=4, perform_ping_check=False) as worker:
        yield worker


def state(client: TestClient, run_id: str) -> str:
    return str(client.get(f"/api/tasks/{run_id}", headers=ROOT).json()["state"])


def post(client: TestClient, run_id: str, action: str, **body: Any) -> Any:
    return client.post(f"/api/tasks/{run_id}/{action}", headers=ROOT, json=body or None)


def done_by(app: Errands) -> int:
    """How many attempts were ever started."""
    record(app)
    with app.database.reading() as connection:
        return sum(n for (_, what), n in reads.counters(connection).runs.items() if what == "running")


def test_a_revoked_run_is_not_started(app: Errands, client: TestClient) -> None:
    revoked = app.tasks["add"].apply_async((1, 2), owner="ann").id
    answer = post(client, revoked, "revoke", terminate=False, reason="sent by mistake")
    assert answer.status_code == 202
    assert answer.json() == {
        "task_id": revoked, "status": "REVOKED", "state": "revoked", "attempt": 0, "terminate": False,
    }  # fmt: skip
    assert answer.headers["cache-control"] == "no-store"
    with working(app):
        after = app.tasks["add"].delay(3, 4).id
        until(lambda: state(client, after) == "succeeded")
    found = client.get(f"/api/tasks/{revoked}", headers=ANN).json()
    assert (found["status"], found["state"], found["ready"], found["result"]) == (
        "REVOKED",
        "revoked",
        True,
        None,
    )
    assert found["error"] == "The run was revoked."
    assert done_by(app) == 1
    with app.database.reading() as connection:
        trail = reads.audit(connection, target=revoked)
    assert [(row.actor, row.action, row.reason, row.details) for row in trail] == [
        ("root", "revoke", "sent by mistake", {"terminate": False})
    ]


def test_what_has_ended_cannot_be_revoked(app: Errands, client: TestClient) -> None:
    with working(app):
        run_id = app.tasks["add"].delay(1, 2).id
        until(lambda: state(client, run_id) == "succeeded")
    answer = post(client, run_id, "revoke")
    assert answer.status_code == 409
    assert "succeeded" in answer.json()["detail"]
    with app.database.reading() as connection:
        assert reads.audit(connection) == []


def test_an_unknown_run_can_be_neither_revoked_nor_retried(client: TestClient) -> None:
    for action in ("revoke", "retry"):
        assert post(client, "no-such-run", action).status_code == 404


def test_bad_bodies_are_refused(app: Errands, client: TestClient) -> None:
    run_id = app.tasks["add"].delay(1, 2).id
    for body in ({"terminate": "perhaps"}, {"reason": "x" * 501}, []):
        answer = client.post(f"/api/tasks/{run_id}/revoke", headers=ROOT, json=body)
        assert answer.status_code == 422
    assert state(client, run_id) == "queued"


def test_only_what_has_ended_can_be_retried(app: Errands, client: TestClient) -> None:
    run_id = app.tasks["add"].delay(1, 2).id
    answer = post(client, run_id, "retry")
    assert answer.status_code == 409
    assert "queued" in answer.json()["detail"]


def test_a_failed_run_is_done_again_under_its_id(app: Errands, client: TestClient) -> None:
    with working(app):
        run_id = app.tasks["fail"].apply_async(("once",), owner="ann").id
        until(lambda: state(client, run_id) == "failed")
        answer = post(client, run_id, "retry", reason="mended")
        assert answer.status_code == 202
        assert (answer.json()["attempt"], answer.json()["state"]) == (2, "queued")
        found = until(
            lambda: (
                (now := client.get(f"/api/tasks/{run_id}", headers=ANN).json())["attempt"] == 2
                and now["ready"]
                and now
            )
        )
    assert found["state"] == "failed"
    record(app)
    in_full = client.get(f"/api/tasks/{run_id}", headers=ROOT).json()
    assert [(attempt["number"], attempt["outcome"]) for attempt in in_full["attempts"]] == [
        (1, "failed"), (2, "failed"),
    ]  # fmt: skip
    assert (in_full["owner"], in_full["args"]) == ("ann", ["once"])


def test_a_run_is_retried_from_the_ledger_when_valkey_has_forgotten(app: Errands, client: TestClient) -> None:
    with working(app):
        run_id = app.tasks["sign_in"].apply_async(kwargs={"token": "sesame"}, owner="ann").id
        until(lambda: state(client, run_id) == "succeeded")
        record(app)
        app.valkey.delete(app.keys.run(run_id))
        assert post(client, run_id, "retry").json()["attempt"] == 2
        found = until(
            lambda: (
                (now := client.get(f"/api/tasks/{run_id}", headers=ANN).json())["attempt"] == 2
                and now["ready"]
                and now
            )
        )
        assert (found["state"], found["result"]) == ("succeeded", "signed in")
        assert app.AsyncResult(run_id).get(timeout=5) == "signed in"


def test_a_revoked_run_can_be_retried_and_is_done_once(app: Errands, client: TestClient) -> None:
    """The message of before still waits in the queue, in front of the new one."""
    gate = f"gate:{app.new_id()}"
    run_id = app.tasks["hold"].apply_async((gate,), owner="ann").id
    assert post(client, run_id, "revoke").status_code == 202
    assert post(client, run_id, "retry").json()["attempt"] == 1
    assert state(client, run_id) == "queued"
    with working(app):
        until(lambda: state(client, run_id) == "running")
        after = app.tasks["add"].delay(1, 2).id  # both messages were taken when this one is
        until(lambda: state(client, after) == "succeeded")
        assert done_by(app) == 2
        app.valkey.lpush(gate, "go")
        until(lambda: state(client, run_id) == "succeeded")


def test_workers_that_were_told_of_a_revocation_forget_it(app: Errands, client: TestClient) -> None:
    with working(app) as worker:
        until(lambda: client.get("/api/workers", headers=ROOT).json())
        run_id = app.tasks["add"].apply_async((1, 2), countdown=600).id
        assert post(client, run_id, "revoke").status_code == 202
        until(lambda: run_id in worker.state.revoked)
        assert post(client, run_id, "retry").status_code == 202
        until(lambda: state(client, run_id) == "succeeded")


def test_a_run_that_expired_starts_when_it_is_retried(app: Errands, client: TestClient) -> None:
    """Celery's worker takes what expired for revoked from then on. It goes to the queue of the call."""
    other = "unread"
    run_id = app.tasks["add"].apply_async((1, 2), queue=other, expires=0.001).id
    with working(app):
        until(lambda: state(client, run_id) == "expired")
        assert post(client, run_id, "retry").status_code == 202
        until(lambda: state(client, run_id) == "succeeded")
    record(app)
    assert client.get(f"/api/tasks/{run_id}", headers=ROOT).json()["queue"] == other


def test_arguments_that_fit_no_more_are_refused(app: Errands, client: TestClient) -> None:
    with working(app):
        run_id = app.tasks["sign_in"].apply_async(kwargs={"token": "sesame"}).id
        until(lambda: state(client, run_id) == "succeeded")
    app.keyring = Keyring.parse(Keyring.new_key("other"))
    answer = post(client, run_id, "retry")
    assert answer.status_code == 409
    assert "k1" in answer.json()["detail"]
    assert state(client, run_id) == "succeeded"


def test_a_dead_letter_is_sent_again_when_its_task_exists(app: Errands, client: TestClient) -> None:
    with working(app):
        run_id = app.send_task("renamed", (4, 5), queue="sums").id
        until(lambda: state(client, run_id) == "failed")
        record(app)
        letters = client.get("/api/dead-letters", headers=ROOT).json()
        assert [(letter["task_id"], letter["task"]) for letter in letters] == [(run_id, "renamed")]
        path = f"/api/dead-letters/{letters[0]['id']}/replay"
        assert client.post(path, headers=ROOT).status_code == 409  # there is still no such task

    @app.task(name="renamed", queue="sums")
    def renamed(x: int, y: int) -> int:
        return x * y

    with working(app):
        assert client.post(path, headers=ROOT).status_code == 202
        until(lambda: state(client, run_id) == "succeeded")
        assert client.get(f"/api/tasks/{run_id}", headers=ROOT).json()["result"] == 20
        again = client.post(path, headers=ROOT)
        assert (again.status_code, again.json()["detail"]) == (409, "this dead letter was sent again already")
    assert client.post("/api/dead-letters/0-1/replay", headers=ROOT).status_code == 404


def test_terminate_ends_a_running_attempt(valkey_url: str, sqlite_database: Database, tmp_path: Path) -> None:
    app = make_app(settings(valkey_url, sqlite_database))
    client = TestClient(make_api(app))
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join([str(ROOT_FOLDER / "src"), str(ROOT_FOLDER / "tests")]),
        "ERRANDS_BROKER_URL": valkey_url,
        "ERRANDS_DATABASE_URL": str(sqlite_database.url),
        "ERRANDS_SECRET_KEYS": SECRET_KEYS,
        "ERRANDS_HOME": str(tmp_path),
    }
    command = [sys.executable, "-m", "celery", "-A", "ops_app:app", "worker", "-c", "1", "-l", "warning"]
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        try:
            run_id = app.tasks["hold"].delay("gate:never").id
            until(lambda: state(client, run_id) == "running", 60)
            assert post(client, run_id, "revoke", terminate=True).status_code == 202
            # The only slot is free again, so the attempt is over.
            after = app.tasks["add"].delay(1, 2).id
            until(lambda: state(client, after) == "succeeded")
            live = app.live.get(run_id)
            assert live is not None
            assert live.state is State.REVOKED
        finally:
            worker.terminate()
            worker.wait(20)
