"""One attempt at one webhook, from its bytes to its record."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from errands import Retry, Run
from errands.core import clock
from errands.kits.webhooks import signing
from errands.kits.webhooks.errors import (
    InvalidSecret,
    WebhookError,
    WebhookFailed,
    WebhookGone,
    WebhookRefused,
)
from errands.kits.webhooks.outcome import check
from errands.kits.webhooks.provider import Reply, Sender
from errands.kits.webhooks.store import Delivery, Endpoint, WebhookStore


@dataclass(frozen=True, slots=True)
class Options:
    """What `kit` was told. `url` and `secret` are the one address that is set by configuration, which gets
    every event, and what signs for addresses that are not registered."""

    retry: Retry
    url: str | None = None
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class Webhook:
    """What is told to whom. `occurred_at` (ISO 8601) is the event's own time, the same at each attempt."""

    event: str
    payload: dict[str, Any]
    url: str
    occurred_at: str

    def body(self) -> bytes:
        """The bytes that are signed and sent: compact JSON."""
        content = {"type": self.event, "timestamp": self.occurred_at, "data": self.payload}
        return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


async def deliver(
    webhook: Webhook, *, run: Run, store: WebhookStore, sender: Sender, options: Options
) -> dict[str, Any]:
    """Make one attempt, and keep what became of it.

    Raises:
        WebhookFailed: the next attempt may succeed.
        WebhookRefused: none would.
    """
    endpoint = await store.by_url(webhook.url)
    if endpoint is not None and not endpoint.active:
        raise WebhookRefused(f"the endpoint {endpoint.id} is disabled: {endpoint.disabled_reason}")
    body = webhook.body()
    started = clock.now()
    try:
        headers = signing.headers(
            body,
            message_id=f"msg_{run.id}",
            timestamp=int(started.timestamp()),
            event=webhook.event,
            secrets=await _secrets(options, store, endpoint),
        )
    except InvalidSecret as exc:
        raise WebhookRefused(f"this webhook cannot be signed: {exc}") from exc

    reply: Reply | None = None
    status: int | None = None
    failure: WebhookFailed | WebhookRefused | None = None

    async def send() -> int:
        nonlocal reply
        reply = await sender.send(webhook.url, body, headers)
        check(reply)
        return reply.status

    # The receiver knows a webhook again by its id: what nobody knows the end of may be sent once more.
    effect = run.effect("webhook", safe_to_repeat=True)
    timer = asyncio.get_running_loop().time()
    try:
        status = await effect.once(send)
    except (WebhookFailed, WebhookRefused) as exc:
        failure, status = exc, reply.status if reply else None
    took = round((asyncio.get_running_loop().time() - timer) * 1000)

    await store.record(
        Delivery(
            run_id=run.id,
            endpoint_id=endpoint.id if endpoint else None,
            event=webhook.event,
            url=store.canonical(webhook.url),
            attempt=run.attempt,
            status_code=status,
            error=_told(failure, reply),
            duration_ms=took,
            at=started,
            next_try_at=_next(options.retry, run.attempt, failure),
            delivered_at=None if failure else clock.now(),
        )
    )
    if isinstance(failure, WebhookGone) and endpoint is not None:
        await store.disable(endpoint.id, "the receiver answered 410 Gone")
    if failure is not None:
        raise failure
    return {"delivered": True, "status_code": status, "duration_ms": took}


async def _secrets(options: Options, store: WebhookStore, endpoint: Endpoint | None) -> tuple[str, ...]:
    if endpoint is not None:
        return await store.secrets(endpoint.id)
    if options.secret:
        return (options.secret,)
    raise WebhookRefused(
        "this address is not registered and WEBHOOK_SECRET is not set: there is nothing to sign with"
    )


def _told(failure: WebhookError | None, reply: Reply | None) -> str | None:
    if failure is None:
        return None
    excerpt = reply.excerpt.strip() if reply else ""
    return f"{failure}: {excerpt}" if excerpt else str(failure)


def _next(retry: Retry, attempt: int, failure: WebhookError | None) -> datetime | None:
    """About when the next attempt comes: the retry policy draws its own jitter later."""
    if not isinstance(failure, WebhookFailed) or attempt > retry.times:
        return None
    return clock.now() + timedelta(seconds=retry.wait(attempt, failure, random=lambda: 0.5))
