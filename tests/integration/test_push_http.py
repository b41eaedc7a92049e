"""A user's own notifications and devices over HTTP."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from errands import Errands, Keyring, Settings
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits import push
from errands.store.engine import Database
from push_browser import make_api
from push_services import subscription


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


async def test_read_and_old_are_told_apart_by_the_clock(app: Errands, browser: httpx.AsyncClient) -> None:
    with clock.use(FakeClock()):
        await tell(app, 7)
        first = (await browser.get("/api/notifications")).json()["notifications"][0]
        assert first["created_at"] == "2026-01-01T12:00:00+00:00"
