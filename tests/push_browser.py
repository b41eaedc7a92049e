"""A web server of the push kit's endpoints on a free port, and browsers that listen to them."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, Header

from errands import Errands
from errands.kits.push.fastapi import notifications_router
from processes import until


@dataclass(frozen=True)
class Someone:
    id: int


def person(x_user: int | None = Header(None)) -> Someone | None:
    return Someone(x_user) if x_user is not None else None


def make_api(app: Errands, **options: Any) -> FastAPI:
    api = FastAPI()
    api.include_router(notifications_router(app, person, **options))
    return api


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
