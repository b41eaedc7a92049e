"""A user's own notifications and devices over HTTP, for FastAPI applications."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Header, HTTPException, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from fastapi.routing import APIRoute
from fastapi.sse import KEEPALIVE_COMMENT, format_sse_event
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import exc as sql_errors
from starlette.types import Receive, Scope, Send

from errands.core import clock
from errands.kits.push.devices import Device, DeviceStore
from errands.kits.push.errors import DeviceNotFound, InvalidDevice, NotificationNotFound, PushError
from errands.kits.push.feed import Feed, Listener, Told, logger
from errands.kits.push.notice import KIND
from errands.kits.push.notifier import Notifier
from errands.kits.push.store import NotificationStore

if TYPE_CHECKING:
    from errands import Errands

Answer = dict[str, Any]

_NO_STORE = {"Cache-Control": "no-store"}
_STREAM = _NO_STORE | {
    "X-Accel-Buffering": "no",  # nginx would keep events back until it has a page of them
    "X-Content-Type-Options": "nosniff",
}
_STATUS: dict[type[PushError], int] = {NotificationNotFound: 404, DeviceNotFound: 404, InvalidDevice: 422}
_RECONNECT_MS = 2_000
# A stream ends after so many seconds, and the browser comes again: whoever was signed out by then is refused.
_LONGEST_STREAM = 3600.0


class SignedIn(Protocol):
    """Who asks: anything with an id."""

    @property
    def id(self) -> Any: ...


class Subscription(BaseModel):
    """A browser's `PushSubscription` as JSON, or an app's FCM token."""

    model_config = ConfigDict(extra="ignore")

    endpoint: str | None = Field(None, max_length=2048)
    keys: dict[str, str] | None = None
    token: str | None = Field(None, max_length=4096, description="an app's FCM registration token")


class Muting(BaseModel):
    """Whether notifications of a kind are wanted."""

    on: bool


def notifications_router(
    app: Errands, person: Callable[..., Any], *, prefix: str = "/api", longest_stream: float = _LONGEST_STREAM
) -> APIRouter:
    """Endpoints for a person's own notifications and devices; there are none for anybody else's.

    Args:
        app: an app that uses the push kit.
        person: a dependency that gives who is signed in (something with an `id`), or None.
        prefix: begins each path.
        longest_stream: seconds after which a stream ends, so that the browser signs in again.
    """

    def asking(found: SignedIn | None = Depends(person)) -> str:
        if found is None:
            raise HTTPException(
                401, "not signed in", headers={"WWW-Authenticate": "Bearer", "Cache-Control": "no-store"}
            )
        return str(found.id)

    router = APIRouter(prefix=prefix, route_class=_Route, tags=["notifications"])
    instance = app.resources.instance

    @router.get("/notifications")
    async def listed(
        user: str = Depends(asking),
        before: Annotated[int | None, Query(ge=1)] = None,
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        unread: bool = False,
    ) -> Answer:
        """One's own notifications, the newest first; `next` is the `before` of the next page."""
        store = instance(NotificationStore)
        # First: what comes in between is told by a stream that begins after it.
        last = await store.last_number(user)
        found = await store.list(user, before=before, limit=limit, unread=unread)
        return {
            "notifications": [notification.as_dict() for notification in found],
            "unread": await store.unread(user),
            "last": last,
            "next": found[-1].number if len(found) == limit else None,
        }

    @router.get("/notifications/events", response_class=Response)
    async def events(
        user: str = Depends(asking),
        after: Annotated[int | None, Query(ge=0)] = None,
        last_event_id: Annotated[str | None, Header()] = None,
    ) -> Response:
        """New ones as they come: server-sent events `notification` and `unread`. After a break, the browser
        names the last one that it has (Last-Event-ID), and gets what it missed."""
        known = after
        if last_event_id and last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 19:
            known = int(last_event_id)
        return _EventResponse(instance(Feed).listen(user, known), longest_stream)

    @router.post("/notifications/read")
    async def read_all(user: str = Depends(asking)) -> Answer:
        """All of one's own are read."""
        await instance(NotificationStore).mark_all_read(user)
        return await _changed(user)

    @router.post("/notifications/{notification_id}/read")
    async def read(notification_id: str, user: str = Depends(asking)) -> Answer:
        """One is read."""
        await instance(NotificationStore).mark_read(user, notification_id)
        return await _changed(user)

    @router.get("/notifications/kinds")
    async def kinds(user: str = Depends(asking)) -> Answer:
        """Which kinds one has turned off."""
        return {"off": list(await instance(NotificationStore).muted_kinds(user))}

    @router.put("/notifications/kinds/{kind}")
    async def turn(
        kind: Annotated[str, Path(pattern=KIND)], wanted: Muting, user: str = Depends(asking)
    ) -> Answer:
        """Turn a kind off or on."""
        store = instance(NotificationStore)
        await (store.turn_on if wanted.on else store.turn_off)(user, kind)
        return {"off": list(await store.muted_kinds(user))}

    @router.get("/devices")
    async def own_devices(user: str = Depends(asking)) -> list[Answer]:
        """One's own devices."""
        return [_told(device) for device in await instance(DeviceStore).of(user)]

    @router.post("/devices", status_code=201)
    async def add_device(subscription: Subscription, user: str = Depends(asking)) -> Answer:
        """Tell this browser or app from now on."""
        store = instance(DeviceStore)
        if (subscription.token is None) == (subscription.endpoint is None):
            raise InvalidDevice("send a browser's subscription (endpoint, keys), or an app's token")
        if subscription.token is not None:
            return _told(await store.add_fcm(user, subscription.token))
        return _told(await store.add_web_push(user, subscription.model_dump(include={"endpoint", "keys"})))

    @router.delete("/devices/{device_id}", status_code=204)
    async def remove_device(device_id: str, user: str = Depends(asking)) -> None:
        """Tell a browser or app nothing any more."""
        await instance(DeviceStore).remove(user, device_id)

    @router.get("/push/key")
    async def public_key(user: str = Depends(asking)) -> Answer:
        """What a browser subscribes with (`applicationServerKey`); 404 where there is no Web Push."""
        key = instance(Notifier).public_key
        if key is None:
            raise HTTPException(404, "Web Push is not set up here", headers=_NO_STORE)
        return {"public_key": key}

    async def _changed(user: str) -> Answer:
        await instance(Feed).tell([user])  # the user's other tabs
        return {"unread": await instance(NotificationStore).unread(user)}

    return router


class _Route(APIRoute):
    """Tells the kit's errors as HTTP; nobody may keep an answer."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handler(request: Request) -> Response:
            try:
                response = await handle(request)
            except tuple(_STATUS) as exc:
                raise HTTPException(_STATUS[type(exc)], str(exc), headers=_NO_STORE) from exc
            except (sql_errors.OperationalError, sql_errors.TimeoutError) as exc:
                logger.warning("notifications: the database does not answer: %s", exc)
                away = "not available at the moment: a server behind this one does not answer"
                raise HTTPException(503, away, headers=_NO_STORE | {"Retry-After": "5"}) from exc
            response.headers.setdefault("Cache-Control", "no-store")
            return response

        return handler


class _EventResponse(StreamingResponse):
    """Sends what a listener is told, and closes it, however the connection ends."""

    def __init__(self, listener: Listener, longest: float) -> None:
        self._listener = listener
        super().__init__(_encoded(listener, longest), media_type="text/event-stream", headers=_STREAM)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._listener.close()


async def _encoded(listener: Listener, longest: float) -> AsyncIterator[bytes]:
    ends = clock.timestamp() + longest
    yield format_sse_event(retry=_RECONNECT_MS)
    try:
        async for told in listener:
            yield _event(told)
            if clock.timestamp() > ends:
                return
    except sql_errors.SQLAlchemyError as exc:  # the browser comes again, and gets what it missed
        logger.warning("a stream of notifications ends: the database does not answer: %s", exc)


def _event(told: Told) -> bytes:
    if told.notification is not None:
        data = json.dumps(told.notification.as_dict(), ensure_ascii=False)
        return format_sse_event(event="notification", data_str=data, id=str(told.notification.number))
    if told.unread is not None:
        return format_sse_event(event="unread", data_str=json.dumps({"unread": told.unread}))
    return KEEPALIVE_COMMENT


def _told(device: Device) -> Answer:
    """A device without its address."""
    return {
        "id": device.id, "kind": device.kind, "created_at": device.created_at.isoformat(),
        "last_ok_at": device.last_ok_at.isoformat() if device.last_ok_at else None,
    }  # fmt: skip
