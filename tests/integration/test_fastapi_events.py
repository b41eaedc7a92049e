"""Watching runs over server-sent events, through a real server, with a real worker."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from celery.contrib.testing.worker import start_worker
from fastapi import FastAPI
from fastapi.testclient import TestClient

from errands import Errands, Event, Kind
from errands.core import clock
from errands.core.errors import RunNotFound
from errands.doors.local.valkey import EmbeddedValkey
from errands.ops.access import Person
from errands.ops.watch import Live, Message
from errands.store.engine import Database
from ops_app import ANN, BOB, ROOT, make_api, make_app, settings, until

OWNER = Person("ann")


@dataclass
class Told:
    event: str
    id: str
    data: dict[str, Any]


@pytest.fixture
def app(valkey_url: str, sqlite_database: Database) -> Errands:
    return make_app(settings(valkey_url, sqlite_database))


@contextmanager
def serving(api: FastAPI) -> Iterator[str]:
    """A real server on a free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        config = uvicorn.Config(api, log_level="warning", timeout_graceful_shutdown=1, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)


@asynccontextmanager
async def watching(
    base: str, run_id: str, who: dict[str, str] = ANN, after: str | None = None
) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[Told]]]:
    headers = who | ({"Last-Event-ID": after} if after else {})
    async with httpx.AsyncClient(base_url=base, timeout=30, trust_env=False) as client:
        async with client.stream("GET", f"/api/tasks/{run_id}/events", headers=headers) as response:
            yield response, parsed(response)


async def parsed(response: httpx.Response) -> AsyncIterator[Told]:
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line == "" and "event" in fields:
            yield Told(fields["event"], fields["id"], json.loads(fields["data"]))
        if line == "":
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            assert name not in fields
            fields[name] = value


def summary(told: list[Told]) -> list[Any]:
    return [(t.event, t.data.get("state") or t.data.get("text") or t.data.get("current")) for t in told]


async def test_a_run_is_told_from_its_queue_to_its_end(app: Errands) -> None:
    run_id = app.tasks["hold"].apply_async(("gate:sse",), owner="ann").id
    told: list[Told] = []
    with serving(make_api(app)) as base:
        async with watching(base, run_id) as (response, events):
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["cache-control"] == "no-store"
            told.append(await anext(events))
            with start_worker(app, pool="threads", perform_ping_check=False):
                async for item in events:
                    told.append(item)
                    if item.event == "progress" and item.data["current"] == 1:
                        app.valkey.lpush("gate:sse", "go")
    assert summary(told) == [
        ("state", "queued"), ("state", "running"), ("log", "line one\nline two"), ("progress", 1),
        ("progress", 2), ("state", "succeeded"),
    ]  # fmt: skip
    last = told[-1].data
    assert (last["result"], last["ready"], last["task"], last["status"]) == ("held", True, "hold", "SUCCESS")
    assert last["progress"] == {"current": 2, "total": 2, "percentage": 100, "note": "done"}
    ids = [tuple(map(int, item.id.split("-"))) for item in told]
    assert ids == sorted(set(ids))


async def test_a_watcher_goes_on_where_it_was_cut_off(app: Errands) -> None:
    with serving(make_api(app)) as base:
        run_id = app.tasks["hold"].apply_async(("gate:resume",), owner="ann").id
        async with watching(base, run_id) as (_, events):
            first = await anext(events)
        with start_worker(app, pool="threads", perform_ping_check=False):  # nobody watches meanwhile
            app.valkey.lpush("gate:resume", "go")
            until(lambda: app.live.get(run_id).final)
        async with watching(base, run_id, after=first.id) as (_, events):
            told = [item async for item in events]
        assert summary(told) == [
            ("state", "running"), ("log", "line one\nline two"), ("progress", 1), ("progress", 2),
            ("state", "succeeded"),
        ]  # fmt: skip
        middle = next(item for item in told if item.event == "log")
        async with watching(base, run_id, after=middle.id) as (_, events):
            assert summary([item async for item in events]) == [
                ("progress", 1), ("progress", 2), ("state", "succeeded"),
            ]  # fmt: skip
        async with watching(base, run_id, after=told[-1].id) as (response, _):
            assert response.status_code == 204  # which tells a browser to stop coming back
        app.valkey.xtrim(app.keys.events, maxlen=1, approximate=False)
        async with watching(base, run_id, after=first.id) as (_, events):
            assert summary([item async for item in events]) == [("state", "succeeded")]
        async with watching(base, run_id, after="no id at all") as (_, events):
            assert summary([item async for item in events]) == [("state", "succeeded")]


async def test_only_its_owner_and_admins_watch_a_run(app: Errands) -> None:
    client = TestClient(make_api(app))
    run_id = app.tasks["fail"].apply_async(owner="ann").id
    assert client.get(f"/api/tasks/{run_id}/events").status_code == 401
    assert client.get(f"/api/tasks/{run_id}/events", headers=BOB).status_code == 404
    assert client.get("/api/tasks/unknown/events", headers=ROOT).status_code == 404
    with start_worker(app, pool="threads", perform_ping_check=False):
        until(lambda: app.live.get(run_id).final)
    as_owner = client.get(f"/api/tasks/{run_id}/events", headers=ANN).text
    as_admin = client.get(f"/api/tasks/{run_id}/events", headers=ROOT).text
    assert "hunter2" not in as_owner
    assert "The task failed (RuntimeError)." in as_owner
    assert "hunter2" in as_admin
    assert "Traceback" not in as_admin


async def test_one_reader_serves_all_watchers_and_ends_with_the_last(app: Errands) -> None:
    runs = [app.tasks["add"].apply_async((n, n), owner="ann").id for n in range(3)]
    live = Live(app)
    watches = [await live.watch(OWNER, run_id) for run_id in runs for _ in range(4)]
    assert live.follower.watched == 3
    assert len([task for task in asyncio.all_tasks() if task.get_name() == "errands-live"]) == 1

    async def states(watch: Any) -> list[str]:
        return [message.data["state"] async for message in watch]

    following = [asyncio.create_task(states(watch)) for watch in watches]
    with start_worker(app, pool="threads", perform_ping_check=False):
        assert await asyncio.gather(*following) == [["queued", "running", "succeeded"]] * 12
    for watch in watches:
        watch.close()
        watch.close()
    assert live.follower.watched == 0
    await asyncio.sleep(0)
    readers = [task for task in asyncio.all_tasks() if task.get_name() == "errands-live"]
    await asyncio.wait_for(asyncio.gather(*readers, return_exceptions=True), 30)


async def test_a_client_that_goes_away_is_forgotten(app: Errands, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Live] = []
    monkeypatch.setattr("errands.doors.fastapi.router.Live", lambda app: made.append(Live(app)) or made[-1])
    run_id = app.tasks["add"].apply_async((1, 2), owner="ann").id
    with serving(make_api(app)) as base:
        async with watching(base, run_id) as (_, events):
            assert (await anext(events)).data["state"] == "queued"
            (follower,) = made[0]._followers.values()
            assert follower.watched == 1
        await asyncio.to_thread(until, lambda: follower.watched == 0 and follower._task is None)


async def test_a_watcher_who_is_too_slow_is_sent_away_and_can_come_back(app: Errands) -> None:
    run_id = app.tasks["add"].apply_async((1, 2), owner="ann").id
    live = Live(app)
    watch = await live.watch(OWNER, run_id)
    assert watch is not None
    for n in range(400):
        note = {"current": n, "total": 400, "percentage": n // 4, "note": ""}
        app.live.record(Event(kind=Kind.PROGRESS, run_id=run_id, at=clock.timestamp(), progress=note))
    app.live.record(Event(kind=Kind.REVOKED, run_id=run_id, at=clock.timestamp()))
    while live.follower.watched:
        await asyncio.sleep(0.01)
    told = [message async for message in watch]
    assert told[-1] == Message(reconnect=1.0)
    assert len(told) < 400
    resumed = await live.watch(OWNER, run_id, told[-2].id)
    assert resumed is not None
    rest = [message async for message in resumed]
    resumed.close()
    currents = [m.data["current"] for m in (*told, *rest) if m.event == "progress"]
    assert currents == list(range(400))
    assert rest[-1].data["state"] == "revoked"


async def test_a_quiet_run_is_kept_open_by_comments(app: Errands) -> None:
    run_id = app.tasks["add"].apply_async((1, 2), owner="ann").id
    watch = await Live(app, ping_seconds=0.01).watch(OWNER, run_id)
    messages = aiter(watch)
    assert (await anext(messages)).event == "state"
    assert await anext(messages) == Message()
    assert await anext(messages) == Message()
    watch.close()


async def test_a_lost_end_is_noticed(app: Errands) -> None:
    """The stream lost the last event (trimmed, or the server came back without it), the state did not."""
    run_id = app.tasks["add"].apply_async((1, 2), owner="ann").id
    watch = await Live(app, ping_seconds=0.01).watch(OWNER, run_id)
    app.valkey.hset(app.keys.run(run_id), "state", "revoked")
    told = [message async for message in watch if message.event]
    assert [message.data["state"] for message in told] == ["queued", "revoked"]
    watch.close()


async def test_watching_survives_a_broker_that_restarts(tmp_path: Path, sqlite_database: Database) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        app = make_app(settings(valkey.url, sqlite_database))
        run_id = app.tasks["add"].apply_async((1, 2), owner="ann").id
        watch = await Live(app).watch(OWNER, run_id)
        messages = aiter(watch)
        assert (await anext(messages)).data["state"] == "queued"
        await asyncio.to_thread(valkey.restart)
        app.live.record(Event(kind=Kind.STARTED, run_id=run_id, at=clock.timestamp()))
        assert (await anext(messages)).data["state"] == "running"
        watch.close()


async def test_in_inline_mode_the_end_is_told_at_once(sqlite_database: Database) -> None:
    app = make_app(settings("redis://127.0.0.1:1/0", sqlite_database, inline=True))
    client = TestClient(make_api(app))
    run_id = app.tasks["add"].apply_async((2, 3), owner="ann").id
    response = client.get(f"/api/tasks/{run_id}/events", headers=ANN)
    assert "event: state" in response.text
    assert '"result": 5' in response.text
    again = client.get(f"/api/tasks/{run_id}/events", headers={**ANN, "Last-Event-ID": "1-0"})
    assert again.status_code == 204
    assert client.get(f"/api/tasks/{run_id}/events", headers=BOB).status_code == 404
    assert client.get("/healthz").status_code == 200
    assert client.get("/api/celery/health", headers=ROOT).json()["overall"] == "healthy"
    assert client.get("/api/celery/stats", headers=ROOT).status_code == 200
    with pytest.raises(RunNotFound):
        await Live(app).watch(Person("bob"), run_id)
