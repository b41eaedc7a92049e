"""The seam between those who have something to tell and what carries it to a device."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol
from weakref import WeakKeyDictionary

import httpx

from errands.core.retry_after import seconds
from errands.kits.push.devices import Device
from errands.kits.push.errors import PushError, PushFailed, PushUnknown
from errands.kits.push.notice import PushMessage

# Google's advice for a quota that is used up, where the answer names no time.
QUOTA_WAIT = 60.0


class Pusher(Protocol):
    """Carries messages to devices of one kind.

    Attributes:
        kind: of the devices that it is for: `Device.kind`.
    """

    @property
    def kind(self) -> str: ...

    def service(self, device: Device) -> str:
        """Which service stands behind a device; when it asks for peace, all its devices wait."""
        ...

    async def send(self, device: Device, message: PushMessage) -> None:
        """Hand a message over to the device's service.

        Raises:
            DeviceGone: the device is not there any more.
            PushFailed: not taken now; sending again is safe.
            PushRefused: never taken as it is.
            PushUnknown: nobody can say whether it was taken.
        """
        ...

    async def aclose(self) -> None:
        """Give connections back. May be called more than once; a later `send` opens them again."""
        ...


class Clients:
    """HTTP clients, one for each event loop: kept connections belong to the loop that opened them."""

    def __init__(self, make: Callable[[], httpx.AsyncClient]) -> None:
        self._make = make
        self._clients: WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = WeakKeyDictionary()

    def get(self) -> httpx.AsyncClient:
        """The client of the running loop."""
        loop = asyncio.get_running_loop()
        found = self._clients.get(loop)
        if found is None:
            found = self._clients[loop] = self._make()
        return found

    async def aclose(self) -> None:
        """Close the running loop's client."""
        client = self._clients.pop(asyncio.get_running_loop(), None)
        if client is not None:
            await client.aclose()


def no_answer(service: str, error: Exception) -> PushError:
    """What follows where no answer came: whether the message can have been heard."""
    text = f"{service}: no answer: {type(error).__name__} {error}".rstrip()
    unheard = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.WriteTimeout)
    if isinstance(error, unheard):
        return PushFailed(text)
    return PushUnknown(f"{text}; it may have been delivered, and is not sent again")


def not_now(service: str, response: httpx.Response, text: str) -> PushFailed:
    """A 429 or 5xx: to be tried again, not before the time that the service names (Retry-After)."""
    wait = seconds(response.headers.get("retry-after"))
    quota = response.status_code == 429
    if wait is None and quota:
        wait = QUOTA_WAIT
    return PushFailed(f"{service} answered {text}", retry_after=wait, pause=quota or wait is not None)
