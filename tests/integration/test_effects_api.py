"""Settling effects, and revoking many runs, over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from errands import Errands, Run
from errands.core.errors import EffectUnknown
from errands.store import reads
from errands.store.engine import Database
from ops_app import ANN, ROOT, make_api, make_app, record, settings


@pytest.fixture
def app(valkey_url: str, database: Database) -> Errands:
    return make_app(settings(valkey_url, database))


@pytest.fixture
def client(app: Errands) -> TestClient:
    return TestClient(make_api(app))


def unanswered(app: Errands, run_id: str, name: str = "charge") -> None:
    def charge() -> None:
        raise TimeoutError("no answer")

    with pytest.raises(EffectUnknown):
        Run(run_id, "pay", effects=lambda: app.effects).once(name, charge)


def settle(client: TestClient, run_id: str, headers: Any = ROOT, **told: Any) -> Any:
    return client.post(f"/api/tasks/{run_id}/effects/charge/settle", headers=headers, json=told)


def test_a_person_says_what_became_of_an_effect(app: Errands, client: TestClient) -> None:
    run_id = app.tasks["add"].apply_async((1, 2), owner="ann").id
    unanswered(app, run_id)
    (told,) = client.get("/api/effects/unknown", headers=ROOT).json()
    assert (told["task_id"], told["name"], told["state"], told["error"]) == (
        run_id, "charge", "unknown", "TimeoutError: no answer",
    )  # fmt: skip
    assert client.get(f"/api/tasks/{run_id}", headers=ROOT).json()["effects"][0]["state"] == "unknown"
    assert "effects" not in client.get(f"/api/tasks/{run_id}", headers=ANN).json()

    assert settle(client, run_id, ANN, done=True).status_code == 403
    assert settle(client, run_id).status_code == 422
    assert settle(client, "other", done=True).status_code == 404
    answer = settle(client, run_id, done=True, result={"receipt": 7}, reason="in the books")
    assert (answer.status_code, answer.json()["state"]) == (202, "done")
    assert settle(client, run_id, done=False).status_code == 409
    assert Run(run_id, "pay", effects=lambda: app.effects).once("charge", print) == {"receipt": 7}
    assert client.get("/api/effects/unknown", headers=ROOT).json() == []
    with app.database.reading() as connection:
        (row,) = reads.audit(connection, target=run_id)
    assert (row.actor, row.action, row.reason) == ("root", "settle_effect", "in the books")
    assert row.details == {"effect": "charge", "scope": run_id, "done": True}


def test_what_did_not_happen_may_be_done_again(app: Errands, client: TestClient) -> None:
    run_id = app.tasks["add"].delay(1, 2).id
    unanswered(app, run_id)
    assert settle(client, run_id, done=False).status_code == 202
    assert Run(run_id, "pay", effects=lambda: app.effects).once("charge", lambda: "done now") == "done now"


def test_all_that_match_are_revoked(app: Errands, client: TestClient) -> None:
    wanted = {app.tasks["add"].delay(n, n).id for n in range(3)}
    other = app.tasks["fail"].delay().id
    record(app)
    assert client.post("/api/tasks/revoke", headers=ANN, json={"task": "add"}).status_code == 403
    assert client.post("/api/tasks/revoke", headers=ROOT, json={}).status_code == 409
    answer = client.post("/api/tasks/revoke", headers=ROOT, json={"task": "add", "reason": "by mistake"})
    assert answer.status_code == 202
    assert set(answer.json()["revoked"]) == wanted
    assert (answer.json()["ended"], answer.json()["more"]) == (0, False)
    states = [client.get(f"/api/tasks/{run_id}", headers=ROOT).json()["state"] for run_id in (*wanted, other)]
    assert states == ["revoked"] * 3 + ["queued"]
