"""New notifications, live: over a real server, Valkey and SQL."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest

from errands import Errands, Keyring, Settings
from errands.doors.local.valkey import EmbeddedValkey
from errands.kits import push
from errands.kits.push import boxes
from errands.store.engine import Database
from processes import until
from push_browser import first_count, listening, make_api, serving, titles


def make_app(database: Database, valkey_url: str, **settings: Any) -> Errands:
    url = database.url.render_as_string(hide_password=False)
    values = {"broker_url": valkey_url, "secret_keys": Keyring.new_key(), "database_url": url} | settings
    app = Errands("test", settings=Settings(**values))
    app.use(push.kit(lambda: [push.FakePush()], tasks=True))
    return app


@pytest.fixture
def app(database: Database, valkey_url: str) -> Iterator[Errands]:
    app = make_app(database, valkey_url)
    yield app
    app.database.dispose()
    app.close()


async def tell(app: Errands, *users: int, title: str = "Hello", source: str = "") -> None:
    notifier = app.resources.instance(push.Notifier)
    await notifier.tell([str(user) for user in users], push.Notice(title, "there"), source or app.new_id())


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
