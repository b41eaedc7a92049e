"""A batch on the screens: it answers as any run does, with its counts, and its members are below it."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from celery import chain, chord
from celery.contrib.testing.worker import start_worker
from fastapi.testclient import TestClient

from errands import BatchStatus, Errands, Event, Kind, State
from errands.beat.batches import BatchKeeper
from errands.beat.service import BeatService
from errands.ops.access import Person
from errands.ops.watch import Live, Message
from errands.store.engine import Database
from ops_app import ANN, BOB, ROOT, make_api, make_app, record, settings, until


@pytest.fixture
def app(valkey_url: str, sqlite_database: Database) -> Errands:
    made = make_app(settings(valkey_url, sqlite_database))

    @made.task(name="tidy", queue="sums")
    def tidy(outcome: BatchStatus) -> int:
        return outcome.total

    @made.task(name="gather", queue="sums")
    def gather(numbers: list[int]) -> int:
        return sum(numbers)

    return made


@pytest.fixture
def client(app: Errands) -> TestClient:
    return TestClient(make_api(app))


def get(client: TestClient, run_id: str, who: dict[str, str] = ANN, what: str = "") -> Any:
    response = client.get(f"/api/tasks/{run_id}{what}", headers=who)
    assert response.status_code == 200, response.text
    return response.json()


def sent(app: Errands, count: int, **options: Any) -> tuple[Any, list[str]]:
    with app.batch("May", on_complete=app.tasks["tidy"].s(), owner="ann", **options) as batch:
        ids = app.tasks["add"].delay_many([(n, 0) for n in range(count)], owner="ann")
    return batch, ids


def end(app: Errands, run_id: str, kind: Kind = Kind.SUCCEEDED) -> None:
    app.live.record(Event(kind=kind, run_id=run_id, at=1.0))


def test_a_batch_answers_as_any_run_does(app: Errands, client: TestClient) -> None:
    batch, ids = sent(app, 4)
    end(app, ids[0])
    end(app, ids[1], Kind.FAILED)
    found = get(client, batch.id)
    assert (found["task"], found["status"], found["state"]) == ("errands.batch", "PROGRESS", "running")
    assert found["progress"] == {"current": 2, "total": 4, "percentage": 50, "note": "1 failed"}
    assert found["batch"] == {
        "name": "May", "total": 4, "succeeded": 1, "failed": 1, "pending": 2, "open": False,
        "failed_ids": [ids[1]], "fault": "",
    }  # fmt: skip
    bar = get(client, batch.id, what="/progress")
    assert (bar["status"], bar["current"], bar["total"], bar["percentage"]) == ("processing", 2, 4, 50)
    assert client.get(f"/api/tasks/{batch.id}", headers=BOB).status_code == 404


def test_its_members_and_what_followed_are_below_it(app: Errands, client: TestClient) -> None:
    batch, ids = sent(app, 2)
    for run_id in ids:
        end(app, run_id)
    record(app)
    found = get(client, batch.id, ROOT)
    below = {child["task_id"]: (child["task"], child["state"]) for child in found["children"]}
    assert [below.pop(run_id) for run_id in ids] == [("add", "succeeded")] * 2
    assert list(below.values()) == [("tidy", "queued")]
    assert (found["parent_id"], found["root_id"]) == (None, batch.id)
    member = get(client, ids[0], ROOT)
    assert (member["parent_id"], member["root_id"]) == (batch.id, batch.id)


def test_the_ledger_remembers_it_when_valkey_has_forgotten(app: Errands, client: TestClient) -> None:
    batch, ids = sent(app, 2)
    end(app, ids[0])
    end(app, ids[1], Kind.FAILED)
    record(app)
    app.valkey.delete(app.keys.run(batch.id), app.keys.batch(batch.id))
    found = get(client, batch.id, ROOT)
    assert (found["state"], found["error"]) == ("failed", "1 of 2 runs did not succeed")
    assert found["progress"]["percentage"] == 100
    assert found["batch"]["name"] == "May"


def test_revoking_it_takes_out_what_waits(app: Errands, client: TestClient) -> None:
    with app.batch("May", on_complete=app.tasks["tidy"].s()) as batch:
        now = app.tasks["add"].delay(1, 1).id
        late = app.tasks["add"].apply_async((2, 2), countdown=3600).id
        running = app.tasks["add"].delay(3, 3).id
    app.live.record(Event(kind=Kind.STARTED, run_id=running, at=1.0), hop=0)
    record(app)
    answer = client.post(f"/api/tasks/{batch.id}/revoke", json={"reason": "a mistake"}, headers=ROOT)
    assert (answer.status_code, answer.json()["members"]) == (202, 2)
    assert [app.live.get(each).state for each in (now, late, running)] == [  # type: ignore[union-attr]
        State.REVOKED, State.REVOKED, State.RUNNING,
    ]  # fmt: skip
    end(app, running)
    status = batch.status()
    assert (status.state, status.done, status.fault) == (State.REVOKED, 3, "revoked by root: a mistake")
    again = client.post(f"/api/tasks/{batch.id}/revoke", headers=ROOT)
    assert again.status_code == 409
    assert client.post(f"/api/tasks/{batch.id}/retry", headers=ROOT).status_code == 409


def test_a_member_that_is_retried_by_hand_stays_below_its_batch(app: Errands, client: TestClient) -> None:
    batch, ids = sent(app, 2)
    end(app, ids[0], Kind.FAILED)
    record(app)
    assert client.post(f"/api/tasks/{ids[0]}/retry", headers=ROOT).status_code == 202
    assert (batch.status().pending, batch.status().failed) == (2, 0)
    with start_worker(app, pool="solo", perform_ping_check=False):
        until(lambda: batch.status().done == 2)
    record(app)
    found = get(client, ids[0], ROOT)
    assert (found["parent_id"], found["root_id"]) == (batch.id, batch.id)


async def test_who_watches_sees_it_grow_and_end(app: Errands) -> None:
    batch, ids = sent(app, 3)
    watch = await Live(app).watch(Person("ann"), batch.id)
    assert watch is not None
    seen: list[Message] = []

    async def follow() -> None:
        async for message in watch:
            if message.event is not None:
                seen.append(message)  # noqa: PERF401 - it is looked at meanwhile

    following = asyncio.create_task(follow())
    end(app, ids[0])
    end(app, ids[1])  # too soon after the first to be told by itself
    async with asyncio.timeout(20):
        while not any(each.data and each.data.get("current") == 2 for each in seen):
            await asyncio.sleep(0.02)
        end(app, ids[2])
        await following
    watch.close()
    assert seen[0].event == "state"
    assert seen[-1].data is not None
    assert (seen[-1].event, seen[-1].data["state"]) == ("state", "succeeded")


def test_the_beat_looks_after_batches(app: Errands) -> None:
    beat = BeatService(app, lease_seconds=1)
    beat.start()
    try:
        batch = app.batch("May", on_complete=app.tasks["tidy"].s(), open_for=1)
        batch.__enter__()
        batch._leave()  # its process is gone
        until(lambda: batch.status().state is State.FAILED)
        beat.check()
    finally:
        beat.stop()
    assert BatchKeeper(app, seconds=3).step() == 3


def test_celerys_canvas_is_a_tree_of_runs(app: Errands, client: TestClient) -> None:
    add = app.tasks["add"]
    with start_worker(app, pool="threads", concurrency=2, perform_ping_check=False):
        last = chain(add.s(1, 2), add.s(3), add.s(4)).apply_async()
        assert last.get(timeout=20) == 10
        body = chord([add.s(1, 1), add.s(2, 2)], app.tasks["gather"].s()).apply_async()
        assert body.get(timeout=20) == 6
        until(lambda: all(app.live.get(each).final for each in (last.id, body.id)))  # type: ignore[union-attr]
    record(app)
    first, second = last.parent.parent.id, last.parent.id
    found = get(client, last.id, ROOT)
    assert (found["parent_id"], found["root_id"]) == (second, first)
    assert [child["task_id"] for child in get(client, first, ROOT)["children"]] == [second]
