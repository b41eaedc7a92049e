"""The seam between those who have a webhook to send and what carries it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import httpx

from errands.fetching import FetchFailed, Guard, GuardedTransport
from errands.kits.webhooks.errors import WebhookFailed

EXCERPT = 1024  # bytes of an answer that are read; what follows is not our business


@dataclass(frozen=True, slots=True)
class Reply:
    """What a receiver answered: the status, its Retry-After header if any, the beginning of the body."""

    status: int
    retry_after: str | None = None
    excerpt: str = ""


class Sender(Protocol):
    """Posts one webhook. Ask for it in a task's signature: `*, sender: Sender`."""

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        """POST exactly `body`. Any answer with a status is a reply, redirects too.

        Raises:
            AddressRefused: the address must not be called.
            WebhookFailed: there was no answer.
        """
        ...


class HttpSender:
    """Posts over HTTP, to addresses that the guard lets through, and follows no redirect.

    Args:
        guard: which addresses may be called.
        timeout: seconds for everything together: looking the name up, connecting, sending, the answer.
        tls: certificates of your own to trust; None trusts the usual ones.
    """

    def __init__(self, guard: Guard, *, timeout: float = 15.0, tls: ssl.SSLContext | None = None) -> None:
        self._guard = guard
        self._timeout = timeout
        self._tls = tls

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Reply:
        target = self._guard.parse(url)
        if self._tls is None:
            self._tls = httpx.create_ssl_context(trust_env=False)
        transport = GuardedTransport(self._guard, httpx.AsyncHTTPTransport(verify=self._tls, trust_env=False))
        reply: Reply | None = None
        try:
            async with (
                asyncio.timeout(self._timeout),
                # Nothing from the environment: a proxy would connect for us, to where we did not look. A
                # client each time, since kept connections are shared by all names at an address.
                httpx.AsyncClient(
                    transport=transport,
                    trust_env=False,
                    follow_redirects=False,
                    timeout=httpx.Timeout(self._timeout, connect=min(5.0, self._timeout)),
                ) as client,
                client.stream(
                    "POST",
                    target.url,
                    content=body,
                    headers={
                        "Content-Type": "application/json",
                        "User-Agent": "Errands-Webhooks/1",
                        # A body that unfolds to gigabytes is none of ours either.
                        "Accept-Encoding": "identity",
                        **headers,
                    },
                ) as response,
            ):
                reply = Reply(response.status_code, response.headers.get("retry-after"))
                reply = Reply(reply.status, reply.retry_after, await _excerpt(response))
        except FetchFailed as exc:
            raise WebhookFailed(str(exc)) from exc
        except TimeoutError as exc:
            if reply is None:
                raise WebhookFailed(f"no answer within {self._timeout:g} s") from exc
        except httpx.HTTPError as exc:
            if reply is None:
                raise WebhookFailed(f"no answer: {type(exc).__name__} {exc}".rstrip()) from exc
        if reply is None:
            raise WebhookFailed("no answer")
        return reply


async def _excerpt(response: httpx.Response) -> str:
    data = b""
    async for chunk in response.aiter_raw():
        data += chunk
        if len(data) >= EXCERPT:
            break
    return data[:EXCERPT].decode("utf-8", "replace")
