"""A user's own notifications and devices over HTTP; new ones live, over a real server, Valkey and SQL."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from fastapi import FastAPI, Header

from errands import Errands, Keyring, Settings
from errands.core import clock
from errands.core.clock import FakeClock
from errands.doors.local.valkey import EmbeddedValkey
from errands.kits import push
from errands.kits.push import boxes
from errands.kits.push.fastapi import notifications_router
from errands.store.engine import Database
from processes import until
from push_services import subscription


@dataclass(frozen=True)
class Someone:
    id: int


def person(x_user: int | None = Header(None)) -> Someone | None:
    return Someone(x_user) if x_user is not None else None


def make_app(database: Database, valkey_url: str, **settings: Any) -> Errands:
    url = database.url.render_as_string(hide_password=False)
    values = {"broker_url": valkey_url, "secret_keys": Keyring.new_key(), "database_url": url} | settings
    app = Errands("test", settings=Settings(**values))
    app.use(push.kit(lambda: [push.FakePush()], tasks=True))
    return app


def make_api(app: Errands, **options: Any) -> FastAPI:
    api = FastAPI()
    api.include_router(notifications_router(app, person, **options))
    return api


@pytest.fixture
def app(database: Database, valkey_url: str) -> Iterator[Errands]:
    app = make_app(database, valkey_url)
    yield app
    app.database.dispose()
    app.close()


@pytest.fixture
async def browser(app: Errands) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(make_api(app))
    async with httpx.AsyncClient(
        transport=transport, base_url="http://school", headers={"x-user": "7"}
    ) as it:
        yield it
    await app.database.adispose()


async def tell(app: Errands, *users: int, title: str = "Hello", source: str = "") -> None:
    notifier = app.resources.instance(push.Notifier)
    await notifier.tell([str(user) for user in users], push.Notice(title, "there"), source or app.new_id())


# -- asking


async def test_ones_own_notifications(app: Errands, browser: httpx.AsyncClient) -> None:
    for n in range(3):
        await tell(app, 7, 8, title=f"n{n}")
    answer = await browser.get("/api/notifications", params={"limit": 2})
    assert answer.headers["cache-control"] == "no-store"
    told = answer.json()
    assert [n["title"] for n in told["notifications"]] == ["n2", "n1"]
    assert (told["unread"], told["last"], told["next"]) == (3, 3, 2)
    rest = (await browser.get("/api/notifications", params={"limit": 2, "before": told["next"]})).json()
    assert ([n["title"] for n in rest["notifications"]], rest["next"]) == (["n0"], None)


async def test_reading_them(app: Errands, browser: httpx.AsyncClient) -> None:
    await tell(app, 7, 8)
    await tell(app, 7)
    first = (await browser.get("/api/notifications")).json()["notifications"][0]
    path = f"/api/notifications/{first['id']}/read"
    assert (await browser.post(path)).json() == {"unread": 1}
    assert (await browser.post(path, headers={"x-user": "8"})).status_code == 404
    assert (await browser.post("/api/notifications/none/read")).status_code == 404
    assert (await browser.post("/api/notifications/read")).json() == {"unread": 0}
    left = (await browser.get("/api/notifications", params={"unread": True})).json()
    assert left["notifications"] == []
    assert (await browser.get("/api/notifications", headers={"x-user": "8"})).json()["unread"] == 1


async def test_kinds(browser: httpx.AsyncClient) -> None:
    assert (await browser.put("/api/notifications/kinds/news", json={"on": False})).json() == {
        "off": ["news"]
    }
    assert (await browser.get("/api/notifications/kinds")).json() == {"off": ["news"]}
    assert (await browser.put("/api/notifications/kinds/news", json={"on": True})).json() == {"off": []}
    assert (await browser.put("/api/notifications/kinds/a b", json={"on": True})).status_code == 422


async def test_devices(browser: httpx.AsyncClient) -> None:
    web = await browser.post("/api/devices", json=subscription())
    phone = await browser.post("/api/devices", json={"token": "token-of-the-phone-of-7"})
    assert (web.status_code, phone.status_code) == (201, 201)
    assert set(web.json()) == {"id", "kind", "created_at", "last_ok_at"}
    listed = (await browser.get("/api/devices")).json()
    assert {device["kind"] for device in listed} == {"webpush", "fcm"}
    assert "token" not in json.dumps(listed)
    assert "push.example" not in json.dumps(listed)
    path = f"/api/devices/{web.json()['id']}"
    assert (await browser.delete(path, headers={"x-user": "8"})).status_code == 404
    assert (await browser.delete(path)).status_code == 204
    assert (await browser.delete(path)).status_code == 404
    assert len((await browser.get("/api/devices")).json()) == 1


async def test_what_is_no_device_is_refused(browser: httpx.AsyncClient) -> None:
    bodies: list[Any] = [
        {}, [], {"endpoint": "https://push.example/1"}, {"token": "short"},
        {"token": "token-of-the-phone-of-7", **subscription()},
        {**subscription(), "endpoint": "https://169.254.169.254/latest"},
        {**subscription(), "endpoint": "http://push.example/"}, subscription(auth="x"),
    ]  # fmt: skip
    for body in bodies:
        assert (await browser.post("/api/devices", json=body)).status_code == 422, body
    assert (await browser.get("/api/devices")).json() == []


async def test_who_is_not_signed_in_gets_nothing(app: Errands) -> None:
    api = make_api(app)
    transport = httpx.ASGITransport(api)
    async with httpx.AsyncClient(transport=transport, base_url="http://school") as stranger:
        for method, path in (
            ("GET", "notifications"), ("GET", "notifications/events"), ("POST", "notifications/read"),
            ("POST", "notifications/x/read"), ("GET", "notifications/kinds"),
            ("PUT", "notifications/kinds/x"), ("GET", "devices"), ("POST", "devices"),
            ("DELETE", "devices/x"), ("GET", "push/key"),
        ):  # fmt: skip
            answer = await stranger.request(method, f"/api/{path}", json={"on": True, "token": "x" * 30})
            assert answer.status_code == 401, path
    await app.database.adispose()


async def test_the_key_that_browsers_subscribe_with(database: Database, valkey_url: str) -> None:
    url = database.url.render_as_string(hide_password=False)
    for key in (None, push.new_vapid_key()):
        settings = Settings(
            broker_url=valkey_url, database_url=url, secret_keys=Keyring.new_key(), vapid_private_key=key,
            vapid_subject="mailto:admin@school.example",
        )  # fmt: skip
        app = Errands("test", settings=settings)
        app.use(push.kit())
        transport = httpx.ASGITransport(make_api(app))
        async with httpx.AsyncClient(transport=transport, base_url="http://school") as browser:
            answer = await browser.get("/api/push/key", headers={"x-user": "7"})
        if key is None:
            assert answer.status_code == 404
        else:
            expected = push.VapidKey(key, "mailto:admin@school.example").public_key
            assert answer.json() == {"public_key": expected}
        app.close()


async def test_a_database_that_is_away_is_told_as_such(valkey_url: str) -> None:
    away = Database("postgresql://nobody@127.0.0.1:1/none")
    app = make_app(away, valkey_url)
    transport = httpx.ASGITransport(make_api(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://school") as browser:
        answer = await browser.get("/api/notifications", headers={"x-user": "7"})
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert "127.0.0.1" not in answer.text
    await app.database.adispose()
    app.close()


# -- live


@contextmanager
def serving(api: FastAPI) -> Iterator[str]:
    """A real server on a free port."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(512)
        config = uvicorn.Config(api, log_level="warning", timeout_graceful_shutdown=1, lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        until(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        server.should_exit = True
        thread.join(20)


@dataclass
class Event:
    event: str
    id: str | None
    data: dict[str, Any]


@asynccontextmanager
async def listening(
    base: str, user: int, *, last: str | None = None, after: int | None = None
) -> AsyncIterator[AsyncIterator[Event]]:
    headers = {"x-user": str(user)} | ({"Last-Event-ID": last} if last else {})
    params = {} if after is None else {"after": str(after)}
    async with httpx.AsyncClient(base_url=base, timeout=30, trust_env=False) as client:
        async with client.stream(
            "GET", "/api/notifications/events", headers=headers, params=params
        ) as response:
            assert response.status_code == 200
            assert response.headers["content-type"].startswith("text/event-stream")
            assert response.headers["cache-control"] == "no-store"
            yield parsed(response)


async def parsed(response: httpx.Response) -> AsyncIterator[Event]:
    fields: dict[str, str] = {}
    async for line in response.aiter_lines():
        if line == "" and "event" in fields:
            yield Event(fields["event"], fields.get("id"), json.loads(fields["data"]))
        if line == "":
            fields = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value


async def titles(events: AsyncIterator[Event], count: int) -> list[tuple[str, str | None]]:
    """The next `count` notifications' titles and ids."""
    found = []
    async with asyncio.timeout(60):
        while len(found) < count:
            event = await anext(events)
            if event.event == "notification":
                found.append((event.data["title"], event.id))
    return found


async def first_count(events: AsyncIterator[Event]) -> int:
    """What a listener is told first: the stream stands, and all that comes now is heard."""
    async with asyncio.timeout(60):
        event = await anext(events)
    assert event.event == "unread"
    return int(event.data["unread"])


async def test_new_ones_are_told_as_they_come(app: Errands) -> None:
    await tell(app, 7, title="before")
    with serving(make_api(app)) as base:
        async with listening(base, 7) as events, listening(base, 8) as others:
            assert await first_count(events) == 1
            assert await first_count(others) == 0
            await tell(app, 7, title="one")
            assert await titles(events, 1) == [("one", "2")]
            assert await first_count(events) == 2
            await tell(app, 8, title="not for 7")
            await tell(app, 7, 8, title="two")
            assert await titles(events, 1) == [("two", "3")]
            assert await titles(others, 2) == [("not for 7", "1"), ("two", "2")]
    await app.database.adispose()


async def test_a_listener_goes_on_where_it_was_cut_off(app: Errands) -> None:
    with serving(make_api(app)) as base:
        async with listening(base, 7) as events:
            await first_count(events)
            await tell(app, 7, title="one")
            ((_, last),) = await titles(events, 1)
        with app.database.writing() as connection:
            for n in range(150):  # more than is read at once
                boxes.add(connection, push.Notice(f"missed {n}", "x"), ["7"], f"run-{n}")
        async with listening(base, 7, last=last) as events:
            assert await titles(events, 150) == [(f"missed {n}", str(n + 2)) for n in range(150)]
            await tell(app, 7, title="next")
            assert await titles(events, 1) == [("next", "152")]
        # A page that has read the list begins after what it has.
        async with listening(base, 7, after=151) as events:
            assert await titles(events, 1) == [("next", "152")]
        # What is no number, and a number that was never given, do no harm.
        for wrong in ("x", "-1", "9" * 30, "9999"):
            async with listening(base, 7, last=wrong) as events:
                await first_count(events)
    await app.database.adispose()


async def test_reading_is_told_to_the_other_tabs(app: Errands) -> None:
    await tell(app, 7)
    with serving(make_api(app)) as base:
        async with listening(base, 7) as events, httpx.AsyncClient(base_url=base) as client:
            assert await first_count(events) == 1
            await client.post("/api/notifications/read", headers={"x-user": "7"})
            assert await first_count(events) == 0
    await app.database.adispose()


async def test_listeners_cost_no_threads_and_leave_nothing_behind(app: Errands) -> None:
    api = make_api(app)
    feed = app.resources.instance(push.Feed)
    with serving(api) as base:
        async with listening(base, 1) as events:
            await first_count(events)
            before = threading.active_count()
            async with AsyncExitStack() as stack:
                streams = [await stack.enter_async_context(listening(base, n)) for n in range(1, 41)]
                for stream in streams:
                    await first_count(stream)
                # The database's driver keeps one for each of its connections (of 15, at most).
                assert threading.active_count() <= before + 15
                await tell(app, *range(1, 41), title="to all")
                told = await asyncio.gather(*(titles(stream, 1) for stream in streams))
                assert told == [[("to all", "1")]] * 40
        (hub,) = feed._hubs.values()
        until(lambda: hub.listened == 0 and not hub._tasks, what="all listeners are forgotten")
    await app.database.adispose()


async def test_a_word_that_is_lost_is_made_up_for(app: Errands) -> None:
    """A worker may die between the commit and saying so."""
    feed = app.resources.instance(push.Feed)
    feed.look_seconds = 0.2
    store = app.resources.instance(push.NotificationStore)
    with serving(make_api(app)) as base:
        async with listening(base, 7) as events:
            await first_count(events)
            await store.add(push.Notice("untold", "x"), ["7"], "run-1")
            assert await titles(events, 1) == [("untold", "1")]
    await app.database.adispose()


async def test_listeners_go_on_after_valkey_was_away(database: Database, tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "valkey") as server:
        app = make_app(database, server.url)
        with serving(make_api(app)) as base:
            async with listening(base, 7) as events:
                await first_count(events)
                await tell(app, 7, title="one")
                await titles(events, 1)
                server.stop()
                await tell(app, 7, title="while it was away")  # stored, and told to nobody
                server.start()
                assert await titles(events, 1) == [("while it was away", "2")]
                await tell(app, 7, title="after")
                assert await titles(events, 1) == [("after", "3")]
        await app.database.adispose()
        app.close()


async def test_what_others_say_on_the_channel_does_no_harm(app: Errands) -> None:
    channel = app.resources.instance(push.Feed).channel
    with serving(make_api(app)) as base:
        async with listening(base, 7) as events:
            await first_count(events)
            for nonsense in ("{", "7", '"7"', "null", '[["7"]]', "\xff"):
                app.valkey.publish(channel, nonsense)
            await tell(app, 7, title="one")
            assert await titles(events, 1) == [("one", "1")]
    await app.database.adispose()


async def test_a_stream_ends_after_its_time(app: Errands) -> None:
    """Who was signed out meanwhile is not let in again."""
    with serving(make_api(app, longest_stream=-1)) as base:
        async with listening(base, 7) as events:
            assert [event.event async for event in events] == ["unread"]
    await app.database.adispose()


async def test_a_quiet_stream_shows_that_it_lives(app: Errands) -> None:
    app.resources.instance(push.Feed).ping_seconds = 0.05
    with serving(make_api(app)) as base:
        async with httpx.AsyncClient(base_url=base, timeout=30) as client:
            async with client.stream("GET", "/api/notifications/events", headers={"x-user": "7"}) as response:
                lines = response.aiter_lines()
                async with asyncio.timeout(60):
                    seen = [await anext(lines) for _ in range(8)]
    assert seen[0].startswith("retry: ")
    assert ": ping" in seen
    await app.database.adispose()


async def test_inline_the_word_stays_in_the_process(sqlite_database: Database) -> None:
    app = make_app(sqlite_database, "redis://127.0.0.1:1/0", inline=True)
    with serving(make_api(app)) as base:
        async with listening(base, 7) as events:
            await first_count(events)
            await asyncio.to_thread(app.tasks["send_push_notification"].delay, 7, "inline", "x")
            assert await titles(events, 1) == [("inline", "1")]
    await app.database.adispose()


async def test_read_and_old_are_told_apart_by_the_clock(app: Errands, browser: httpx.AsyncClient) -> None:
    with clock.use(FakeClock()):
        await tell(app, 7)
        first = (await browser.get("/api/notifications")).json()["notifications"][0]
        assert first["created_at"] == "2026-01-01T12:00:00+00:00"
