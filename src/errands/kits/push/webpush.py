"""Push to browsers (RFC 8030), encrypted for the one browser (RFC 8291), signed by us (RFC 8292)."""

from __future__ import annotations

import base64
import hashlib
import json
import ssl
from collections.abc import Callable
from contextlib import AsyncExitStack

import httpx

from errands.fetching import AddressRefused, FetchFailed, Guard, GuardedTransport
from errands.kits.push.devices import WEBPUSH, Device
from errands.kits.push.errors import DeviceGone, PushFailed, PushRefused
from errands.kits.push.notice import PushMessage
from errands.kits.push.provider import Clients, no_answer, not_now
from errands.kits.push.vapid import VapidKey

# The services behind the browsers that there are. Connections to them are kept; to whatever else a
# subscription names, each push opens one of its own.
SERVICES = (
    "fcm.googleapis.com",
    "updates.push.services.mozilla.com",
    "web.push.apple.com",
    ".notify.windows.com",
)
_EXCERPT = 500


class WebPush:
    """Sends to browsers' subscriptions, at addresses that the guard lets through. Follows no redirect.

    Args:
        vapid: the key that browsers subscribed with.
        guard: which addresses may be called: a subscription's endpoint is what a user gives.
        timeout: seconds for one request.
        services: hosts to which connections are kept; a leading dot stands for all names under it.
        tls: certificates of your own to trust; None trusts the usual ones.
    """

    kind = WEBPUSH

    def __init__(
        self, vapid: VapidKey, guard: Guard | None = None, *, timeout: float = 15.0,
        services: tuple[str, ...] = SERVICES, tls: ssl.SSLContext | None = None,
    ) -> None:  # fmt: skip
        self.vapid = vapid
        self._guard = guard or Guard()
        self._timeout = timeout
        self._services = services
        self._tls = tls
        self._kept: dict[str, Clients] = {}

    def service(self, device: Device) -> str:
        return httpx.URL(device.address["endpoint"]).host

    async def send(self, device: Device, message: PushMessage) -> None:
        service = self.service(device)
        try:
            endpoint = self._guard.parse(device.address["endpoint"]).url
        except AddressRefused as exc:
            raise PushRefused(f"{service} is not called: {exc}") from exc
        headers = {
            "Authorization": self.vapid.authorization(_origin(endpoint)),
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(message.ttl),
            "Urgency": "high" if message.urgent else "normal",
            # A service that still holds one of the same topic forgets it (RFC 8030, section 5.4).
            "Topic": topic(message),
            "User-Agent": "Errands-Push/1",
            "Accept-Encoding": "identity",
        }
        body = encrypted(device, payload(message))
        try:
            async with AsyncExitStack() as stack:
                client = await self._client(endpoint, stack)
                response = await stack.enter_async_context(
                    client.stream("POST", endpoint, content=body, headers=headers)
                )
                text = f"{response.status_code} {await _excerpt(response)}".strip()
        except AddressRefused as exc:
            raise PushRefused(f"{service} is not called: {exc}") from exc
        except FetchFailed as exc:
            raise PushFailed(f"{service}: {exc}") from exc
        except httpx.HTTPError as exc:
            raise no_answer(service, exc) from exc
        check(service, response, text)

    async def aclose(self) -> None:
        for clients in self._kept.values():
            await clients.aclose()

    async def _client(self, endpoint: httpx.URL, stack: AsyncExitStack) -> httpx.AsyncClient:
        host, origin = endpoint.host, _origin(endpoint)
        if not any(host == known or (known[0] == "." and host.endswith(known)) for known in self._services):
            return await stack.enter_async_context(self._make(keep=0)())
        # One for each origin: connections are kept by address, and two names may share one.
        if origin not in self._kept:
            self._kept[origin] = Clients(self._make(keep=20))
        return self._kept[origin].get()

    def _make(self, *, keep: int) -> Callable[[], httpx.AsyncClient]:
        if self._tls is None:
            self._tls = httpx.create_ssl_context(trust_env=False)
        tls, limits = self._tls, httpx.Limits(max_connections=100, max_keepalive_connections=keep)

        def make() -> httpx.AsyncClient:
            inner = httpx.AsyncHTTPTransport(verify=tls, trust_env=False, limits=limits)
            return httpx.AsyncClient(
                transport=GuardedTransport(self._guard, inner), trust_env=False, follow_redirects=False,
                timeout=httpx.Timeout(self._timeout, connect=min(5.0, self._timeout)),
            )  # fmt: skip

        return make


def payload(message: PushMessage) -> bytes:
    """What the service worker of the page gets: JSON."""
    told = {
        "id": message.id, "title": message.title, "message": message.message, "kind": message.kind,
        "data": dict(message.data),
    }  # fmt: skip
    return json.dumps(told, ensure_ascii=False, separators=(",", ":")).encode()


def topic(message: PushMessage) -> str:
    """Up to 32 characters of base64url: of messages with one topic, a service keeps the newest."""
    if message.topic is not None:
        return message.topic
    return base64.urlsafe_b64encode(hashlib.sha256(message.id.encode()).digest()[:24]).decode()


def encrypted(device: Device, data: bytes) -> bytes:
    """`data` as only the device can read it."""
    from pywebpush import WebPusher  # type: ignore[import-untyped]

    return bytes(WebPusher({**device.address, "keys": dict(device.address["keys"])}).encode(data)["body"])


def check(service: str, response: httpx.Response, text: str) -> None:
    """Return if the service took the message; else raise what follows.

    Raises:
        DeviceGone: 404, 410: the subscription has ended (RFC 8030, section 7.3).
        PushFailed: 429, 5xx, 408, and redirects, which may be a passing notice.
        PushRefused: any other 4xx: too large (413), not the key that the browser subscribed with (401, 403).
    """
    status = response.status_code
    if 200 <= status < 300:
        return
    if status in (404, 410):
        raise DeviceGone(f"{service} answered {text}: the subscription is removed")
    if status in (408, 429) or status >= 500:
        raise not_now(service, response, text)
    if status < 400:
        raise PushFailed(f"{service} answered {text}, a redirect, which is not followed")
    hint = (
        ": is ERRANDS_VAPID_PRIVATE_KEY the one that browsers subscribed with?"
        if status in (401, 403)
        else ""
    )
    raise PushRefused(f"{service} answered {text}{hint}")


def _origin(url: httpx.URL) -> str:
    return f"{url.scheme}://{url.netloc.decode('ascii')}"


async def _excerpt(response: httpx.Response) -> str:
    """The beginning of what a service says; how much more there is, is none of our business."""
    data = b""
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) >= _EXCERPT:
            break
    return " ".join(data[:_EXCERPT].decode("utf-8", "replace").split())
