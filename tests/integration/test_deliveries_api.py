"""Recipients over HTTP: who sees what, and sending again to those who were refused."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from errands import Deliveries, Errands, Run
from errands.deliveries import Bounced, Delivery, Failed, Outcome, Recipient, Sent, Unknown
from errands.ops.erase import Erasing
from errands.store import deliveries as store
from errands.store import reads
from errands.store.engine import Database
from ops_app import ANN, BOB, ROOT, make_api, make_app, record, settings

OUTCOMES: list[Outcome] = [
    Sent("m-0"), Bounced("550 <p1@example.com>: no such user"), Failed("refused"), Unknown("no answer"),
    Sent("m-4"),
]  # fmt: skip
SEES_ALL = {"X-Person": "root", "X-Roles": "admin,personal-data"}


@pytest.fixture
def app(valkey_url: str, database: Database) -> Errands:
    return make_app(settings(valkey_url, database))


@pytest.fixture
def client(app: Errands) -> TestClient:
    return TestClient(make_api(app))


async def sent_to_five(app: Errands) -> str:
    """A run of ann's that has ended, and its recipients."""
    run_id = str(app.tasks["add"].apply_async((1, 2), owner="ann").id)
    deliveries, run = Deliveries.of(app), Run(run_id, "add")
    recipients = [Recipient(f"p{n}@example.com", person=str(n)) for n in range(5)]
    await deliveries.begin(run, "mail", [*recipients, Recipient("no", skip="no address")])

    async def send(row: Delivery) -> Outcome:
        return OUTCOMES[row.position]

    await deliveries.deliver(run, send)
    return run_id


def end(app: Errands, run_id: str) -> None:
    from errands import Event, Kind

    for kind in (Kind.STARTED, Kind.SUCCEEDED):
        app.live.record(Event(kind=kind, run_id=run_id, at=1000.0, task="add"), hop=0)
    record(app)


def get(client: TestClient, run_id: str, who: Any, **query: Any) -> Any:
    return client.get(f"/api/deliveries/{run_id}", headers=who, params=query)


async def test_the_owner_sees_all_admins_see_masked_addresses_others_nothing(
    app: Errands, client: TestClient
) -> None:
    run_id = await sent_to_five(app)
    answer = get(client, run_id, ANN).json()
    assert answer["totals"] == {
        "recipients": 6, "queued": 0, "sending": 0, "sent": 2, "deferred": 0, "bounced": 1, "failed": 1,
        "unknown": 1, "skipped": 1,
    }  # fmt: skip
    assert [(row["recipient"], row["state"], row["tries"]) for row in answer["deliveries"]] == [
        ("p0@example.com", "sent", 1), ("p1@example.com", "bounced", 1), ("p2@example.com", "failed", 1),
        ("p3@example.com", "unknown", 1), ("p4@example.com", "sent", 1), ("no", "skipped", 0),
    ]  # fmt: skip
    row = answer["deliveries"][1]
    assert (row["reason"], row["provider_id"]) == ("550 <p1@example.com>: no such user", None)
    assert row["at"].endswith("+00:00") or row["at"].endswith("Z")

    row = get(client, run_id, ROOT).json()["deliveries"][1]
    assert (row["recipient"], row["reason"]) == ("p***@example.com", "550 <p***@example.com>: no such user")
    assert get(client, run_id, SEES_ALL).json()["deliveries"][1]["recipient"] == "p1@example.com"
    assert [get(client, run_id, who).status_code for who in (BOB, {})] == [404, 401]
    assert get(client, "nothing", ROOT).status_code == 404


async def test_pages_and_states(app: Errands, client: TestClient) -> None:
    run_id = await sent_to_five(app)
    seen, after = [], -1
    while after is not None:
        answer = get(client, run_id, ANN, limit=2, after=after).json()
        seen.append([row["position"] for row in answer["deliveries"]])
        after = answer["next"]
    assert seen == [[0, 1], [2, 3], [4, 5]]
    answer = get(client, run_id, ANN, state="sent").json()
    assert [row["position"] for row in answer["deliveries"]] == [0, 4]
    assert [get(client, run_id, ANN, **query).status_code for query in ({"state": "x"}, {"limit": 0})] == [
        422
    ] * 2


def test_a_run_that_sends_to_nobody_has_no_recipients(app: Errands, client: TestClient) -> None:
    run_id = app.tasks["add"].apply_async((1, 2), owner="ann").id
    answer = get(client, run_id, ANN).json()
    assert (answer["deliveries"], answer["next"], answer["totals"]["recipients"]) == ([], None, 0)


async def test_who_was_refused_is_queued_again_and_the_run_sent_again(
    app: Errands, client: TestClient
) -> None:
    run_id = await sent_to_five(app)
    again = f"/api/deliveries/{run_id}/resend-failed"
    assert client.post(again, headers=BOB).status_code == 404
    refused = client.post(again, headers=ANN)
    assert (refused.status_code, "wait until it has ended" in refused.json()["detail"]) == (409, True)
    end(app, run_id)
    answer = client.post(again, headers=ANN, json={"reason": "their server is back"})
    assert (answer.status_code, answer.json()) == (
        202, {"task_id": run_id, "status": "PENDING", "state": "queued", "attempt": 2, "recipients": 2},
    )  # fmt: skip
    totals = get(client, run_id, ANN).json()["totals"]
    assert (totals["queued"], totals["bounced"], totals["failed"], totals["unknown"]) == (2, 0, 0, 1)
    with app.database.reading() as connection:
        (row,) = reads.audit(connection, target=run_id)
    assert (row.actor, row.action, row.reason) == ("ann", "resend_failed", "their server is back")
    assert client.post(again, headers=ANN).status_code == 409  # it is on its way


async def test_who_is_unknown_is_sent_to_again_only_when_asked(app: Errands, client: TestClient) -> None:
    run_id = await sent_to_five(app)
    end(app, run_id)
    again = f"/api/deliveries/{run_id}/resend-failed"
    answer = client.post(again, headers=ROOT, json={"unknown": True})
    assert (answer.status_code, answer.json()["recipients"]) == (202, 3)


async def test_who_still_waits_when_a_run_has_ended_is_sent_to(app: Errands, client: TestClient) -> None:
    """Its provider was away, and the tries of the run are used up."""
    run_id = str(app.tasks["add"].apply_async((1, 2), owner="ann").id)
    await Deliveries.of(app).begin(Run(run_id, "add"), "mail", [Recipient("p0@example.com")])
    end(app, run_id)
    answer = client.post(f"/api/deliveries/{run_id}/resend-failed", headers=ANN)
    assert (answer.status_code, answer.json()["recipients"]) == (202, 1)


async def test_whom_a_run_was_sending_to_when_it_ended_is_unknown(app: Errands, client: TestClient) -> None:
    """Its last attempt was killed, and none followed that would have said so."""
    run_id = str(app.tasks["add"].apply_async((1, 2), owner="ann").id)
    await Deliveries.of(app).begin(Run(run_id, "add"), "mail", [Recipient("p0@example.com")])
    with app.database.writing() as connection:
        store.claim(connection, run_id, "token", 1)
    assert get(client, run_id, ANN).json()["totals"]["sending"] == 1
    end(app, run_id)
    answer = get(client, run_id, ANN, state="unknown").json()
    assert (answer["totals"]["sending"], answer["totals"]["unknown"]) == (0, 1)
    assert [row["state"] for row in answer["deliveries"]] == ["unknown"]
    again = f"/api/deliveries/{run_id}/resend-failed"
    assert client.post(again, headers=ANN).status_code == 409
    answer = client.post(again, headers=ANN, json={"unknown": True})
    assert (answer.status_code, answer.json()["recipients"]) == (202, 0)


async def test_where_nobody_failed_nothing_is_sent(app: Errands, client: TestClient) -> None:
    run_id = str(app.tasks["add"].apply_async((1, 2), owner="ann").id)
    end(app, run_id)
    refused = client.post(f"/api/deliveries/{run_id}/resend-failed", headers=ANN)
    assert (refused.status_code, "nobody failed" in refused.json()["detail"]) == (409, True)
    with app.database.reading() as connection:
        assert reads.audit(connection, target=run_id) == []


async def test_a_person_is_erased_from_what_was_sent_to_them(app: Errands, client: TestClient) -> None:
    from errands.doors.fastapi import Person

    run_id = await sent_to_five(app)
    end(app, run_id)
    Erasing(app).erase_person(Person("root", frozenset({"admin"})), "1")
    rows = get(client, run_id, ANN).json()["deliveries"]
    assert [(row["recipient"], row["reason"]) for row in rows[:3]] == [
        ("p0@example.com", None), (None, None), ("p2@example.com", "refused"),
    ]  # fmt: skip
    assert client.post(f"/api/deliveries/{run_id}/resend-failed", headers=ANN).json()["recipients"] == 1
