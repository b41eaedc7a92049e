"""New notifications as they come: told once to each process, and there to all who listen.

SQL holds what is told. Valkey only says whose boxes have changed, so nothing depends on a message of it: who
listens reads on from the number that was told last, and looks by itself from time to time.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import redis

from errands.kits.push.audience import UserId
from errands.kits.push.boxes import Notification
from errands.kits.push.store import NotificationStore

if TYPE_CHECKING:
    from errands import Errands

T = TypeVar("T")

logger = logging.getLogger("errands.push")

PING_SECONDS = 15.0
LOOK_SECONDS = 30.0
_BLOCK_SECONDS = 2.0
_RECONNECT_SECONDS = 1.0
_READERS = 4  # of one process at once: a broadcast must not take all connections to the database
_PAGE = 100


@dataclass(frozen=True, slots=True)
class Told:
    """What a listener is told: a notification, or how many are unread now, or (neither) that the connection
    is alive."""

    notification: Notification | None = None
    unread: int | None = None


class Feed:
    """Whose boxes have changed, from whoever changes them to whoever listens.

    Args:
        app: its Valkey carries the word; in inline mode it stays in this process.
        store: where notifications are.
        ping_seconds: how often a listener of a quiet box is told that the connection is alive.
        look_seconds: how often boxes that are listened to are looked at, unasked.
    """

    def __init__(
        self, app: Errands, store: NotificationStore, *, ping_seconds: float = PING_SECONDS,
        look_seconds: float = LOOK_SECONDS,
    ) -> None:  # fmt: skip
        self._app = app
        self.store = store
        self.ping_seconds = ping_seconds
        self.look_seconds = look_seconds
        self._hubs: WeakKeyDictionary[asyncio.AbstractEventLoop, Hub] = WeakKeyDictionary()

    @property
    def channel(self) -> str:
        """The channel in Valkey."""
        return f"{self._app.keys.prefix}notifications"

    @property
    def hub(self) -> Hub:
        """The hub of the running event loop."""
        loop = asyncio.get_running_loop()
        found = self._hubs.get(loop)
        if found is None:
            found = self._hubs[loop] = Hub(self, self._app)
        return found

    async def tell(self, users: Sequence[str]) -> None:
        """Say that these users' boxes have changed. Call it after the commit."""
        if not users:
            return
        if self._app.settings.inline:
            for loop, hub in list(self._hubs.items()):
                with suppress(RuntimeError):  # its loop has ended
                    loop.call_soon_threadsafe(hub.wake, list(users))
            return
        try:
            await asyncio.to_thread(self._app.valkey.publish, self.channel, json.dumps(list(users)))
        except redis.RedisError as exc:
            logger.warning("listeners hear of new notifications later: Valkey does not answer: %s", exc)

    def listen(self, user: UserId, after: int | None = None) -> Listener:
        """Begin to listen; close it.

        Args:
            user: whose notifications.
            after: the number of the last one that is known; None begins with the next one.
        """
        return Listener(self.hub, self, str(user), after)


class Listener:
    """The notifications of one user from now on, one `async for` at a time. It holds a flag and a number, and
    no thread; however slowly it is read, nothing piles up."""

    def __init__(self, hub: Hub, feed: Feed, user: str, after: int | None) -> None:
        self.user = user
        self.position = after or 0
        self._after = after
        self._hub = hub
        self._feed = feed
        self._flag = asyncio.Event()
        hub.add(self)

    def wake(self) -> None:
        """The box may have changed."""
        self._flag.set()

    def close(self) -> None:
        """Stop listening. May be called twice."""
        self._hub.drop(self)

    async def __aiter__(self) -> AsyncIterator[Told]:
        store, unread = self._feed.store, -1
        last = await self._hub.read(lambda: store.last_number(self.user))
        # A number that the box has not come to is of a box that was erased.
        self.position = last if self._after is None else min(self._after, last)
        self._flag.set()
        while True:
            try:
                async with asyncio.timeout(self._feed.ping_seconds):
                    await self._flag.wait()
            except TimeoutError:
                yield Told()
                continue
            self._flag.clear()
            while page := await self._hub.read(lambda: store.since(self.user, self.position, _PAGE)):
                for notification in page:
                    self.position = notification.number
                    yield Told(notification)
            before, unread = unread, await self._hub.read(lambda: store.unread(self.user))
            if unread != before:
                yield Told(unread=unread)


class Hub:
    """All listeners of one event loop, and the one task that wakes them."""

    def __init__(self, feed: Feed, app: Errands) -> None:
        self._feed = feed
        self._app = app
        self._listeners: dict[str, set[Listener]] = {}
        self._reading = asyncio.Semaphore(_READERS)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def listened(self) -> int:
        """How many users somebody listens for."""
        return len(self._listeners)

    async def read(self, query: Callable[[], Awaitable[T]]) -> T:
        """Ask the store, a few at a time."""
        async with self._reading:
            return await query()

    def add(self, listener: Listener) -> None:
        """Wake this one from now on."""
        self._listeners.setdefault(listener.user, set()).add(listener)
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._look(), name="errands-notifications-look")]
            if not self._app.settings.inline:
                self._tasks.append(asyncio.create_task(self._follow(), name="errands-notifications"))

    def drop(self, listener: Listener) -> None:
        """Forget a listener; with the last one, stop listening."""
        others = self._listeners.get(listener.user)
        if others is not None:
            others.discard(listener)
            if not others:
                del self._listeners[listener.user]
        if not self._listeners:
            tasks, self._tasks = self._tasks, []
            for task in tasks:
                task.cancel()

    def wake(self, users: Iterable[str] | None = None) -> None:
        """Wake who listens for these users; None wakes all."""
        for user in list(self._listeners) if users is None else users:
            for listener in tuple(self._listeners.get(user, ())):
                listener.wake()

    async def _follow(self) -> None:
        """Hear of changes from Valkey, for as long as anybody listens."""
        failing = False
        while True:
            client = self._app.clients.asyncio()
            try:
                async with client.pubsub() as pubsub:
                    await pubsub.subscribe(self._feed.channel)
                    failing = False
                    while True:
                        message = await pubsub.get_message(timeout=_BLOCK_SECONDS)
                        if asyncio.current_task() not in self._tasks:
                            return  # cancelled, which redis-py does not always let through
                        if message is None:
                            continue
                        # Subscribed (again): what was said before was not heard.
                        self.wake(_named(message) if message["type"] == "message" else None)
            except (redis.RedisError, OSError) as exc:
                if not failing:  # once, not every second
                    logger.warning("new notifications come late until Valkey is back: %s", exc)
                failing = True
                await asyncio.sleep(_RECONNECT_SECONDS)
            finally:
                with suppress(redis.RedisError, OSError):
                    await client.aclose()

    async def _look(self) -> None:
        """Look at the boxes from time to time: whoever changed one may have died before saying so."""
        while True:
            await asyncio.sleep(self._feed.look_seconds)
            try:
                numbers = await self._feed.store.last_numbers(list(self._listeners))
            except Exception as exc:  # noqa: BLE001 — the database is away; the next look may succeed
                logger.warning("boxes of notifications could not be looked at: %s", exc)
                continue
            for user, number in numbers.items():
                for listener in tuple(self._listeners.get(user, ())):
                    if number > listener.position:
                        listener.wake()


def _named(message: Any) -> list[str] | None:
    """The users that a message names; None, which stands for all, if it was somebody else's."""
    try:
        users = json.loads(message["data"])
    except ValueError:
        return None
    return [str(user) for user in users] if isinstance(users, list) else None
