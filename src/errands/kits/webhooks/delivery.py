"""One attempt at one webhook, from its bytes to its record."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from errands import Retry, Run
from errands.core import clock
from errands.fetching import AddressRefused
from errands.kits.webhooks import signing
from errands.kits.webhooks.errors import InvalidSecret, WebhookFailed, WebhookRefused
from errands.kits.webhooks.line import Waiting
from errands.kits.webhooks.outcome import check
from errands.kits.webhooks.provider import Reply, Sender
from errands.kits.webhooks.records import Delivery
from errands.kits.webhooks.store import Endpoint, WebhookStore

Failure = WebhookFailed | WebhookRefused | AddressRefused
# An endpoint, and the secrets that sign for it now.
Addressee = tuple[Endpoint, tuple[str, ...]]
# What makes the call that it is given, at most once.
Once = Callable[[Callable[[], Coroutine[Any, Any, int]]], Awaitable[int]]


@dataclass(frozen=True, slots=True)
class Options:
    """What `kit` was told. `url` and `secret` are the one address that is set by configuration, which gets
    every event, and what signs for addresses that are not registered."""

    retry: Retry
    url: str | None = None
    secret: str | None = None


@dataclass(frozen=True, slots=True)
class Webhook:
    """What is told to whom. `id` is the same at every attempt and replay, and so is `body`, to the byte."""

    id: str
    event: str
    url: str
    body: bytes

    @classmethod
    def of(cls, id: str, event: str, payload: dict[str, Any], url: str, occurred_at: str) -> Webhook:
        """The body is compact JSON; `occurred_at` (ISO 8601) is the event's own time."""
        content = {"type": event, "timestamp": occurred_at, "data": payload}
        return cls(id, event, url, json.dumps(content, separators=(",", ":"), allow_nan=False).encode())

    @classmethod
    def of_batch(cls, batch: Run, event: str, payload: dict[str, Any], url: str, occurred_at: str) -> Webhook:
        """What a run of `dispatch_webhooks_batch` has for one address, each time that it comes to it."""
        return cls.of(f"msg_{batch.child_id(url)}", event, payload, url, occurred_at)

    def waiting(self, endpoint: Endpoint, position: str) -> Waiting:
        """This webhook in the endpoint's line."""
        return Waiting(self.id, endpoint.id, position, self.event, self.body.decode())


@dataclass(frozen=True, slots=True)
class Sending:
    """With what webhooks are sent."""

    store: WebhookStore
    sender: Sender
    options: Options


async def deliver(webhook: Webhook, *, run: Run, sending: Sending, to: Addressee | None) -> dict[str, Any]:
    """Make the attempt that `run` is at. `to` is what the store has at the address.

    Raises:
        WebhookFailed: the next attempt may succeed.
        WebhookRefused, AddressRefused: none would.
    """
    endpoint = to[0] if to else None
    if endpoint is not None and not endpoint.active:
        raise WebhookRefused(f"the endpoint {endpoint.id} is disabled: {endpoint.disabled_reason}")
    # The receiver knows a webhook again by its id: what nobody knows the end of may be sent once more.
    once = run.effect("webhook", safe_to_repeat=True).once
    delivery, failure = await attempt(
        webhook, to, run_id=run.id, number=run.attempt, sending=sending, once=once
    )
    delivery = replace(delivery, next_try_at=_next(sending.options.retry, run.attempt, failure))
    await sending.store.record(delivery, webhook.body.decode())
    if failure is not None:
        raise failure
    return {"delivered": True, "status_code": delivery.status_code, "duration_ms": delivery.duration_ms}


async def attempt(
    webhook: Webhook, to: Addressee | None, *, run_id: str, number: int, sending: Sending, once: Once
) -> tuple[Delivery, Failure | None]:
    """Sign and send. Answers what is to be recorded, and what went wrong.

    Raises:
        WebhookRefused: it cannot be signed, so there was no attempt.
    """
    started = clock.now()
    try:
        headers = signing.headers(
            webhook.body,
            message_id=webhook.id,
            timestamp=int(started.timestamp()),
            event=webhook.event,
            secrets=to[1] if to else _configured(sending.options),
        )
    except InvalidSecret as exc:
        raise WebhookRefused(f"this webhook cannot be signed: {exc}") from exc

    reply: Reply | None = None
    status: int | None = None
    failure: Failure | None = None

    async def send() -> int:
        nonlocal reply
        reply = await sending.sender.send(webhook.url, webhook.body, headers)
        check(reply)
        return reply.status

    timer = time.monotonic()
    try:
        status = await once(send)
    except (WebhookFailed, WebhookRefused, AddressRefused) as exc:
        failure, status = exc, reply.status if reply else None
    delivery = Delivery(
        run_id=run_id,
        endpoint_id=to[0].id if to else None,
        event=webhook.event,
        url=webhook.url,
        attempt=number,
        status_code=status,
        error=_told(failure, reply),
        duration_ms=round((time.monotonic() - timer) * 1000),
        at=started,
        delivered_at=None if failure else clock.now(),
        message_id=webhook.id,
    )
    return delivery, failure


async def directly(send: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """For what keeps by itself that it was sent."""
    return await send()


def _configured(options: Options) -> tuple[str, ...]:
    if options.secret:
        return (options.secret,)
    raise WebhookRefused(
        "this address is not registered and WEBHOOK_SECRET is not set: there is nothing to sign with"
    )


def _told(failure: Failure | None, reply: Reply | None) -> str | None:
    if failure is None:
        return None
    excerpt = reply.excerpt.strip() if reply else ""
    return f"{failure}: {excerpt}" if excerpt else str(failure)


def _next(retry: Retry, number: int, failure: Failure | None) -> datetime | None:
    """About when the next attempt comes: the retry policy draws its own jitter later."""
    if not isinstance(failure, WebhookFailed) or number > retry.times:
        return None
    return clock.now() + timedelta(seconds=retry.wait(number, failure, random=lambda: 0.5))
