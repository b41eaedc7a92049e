"""The kit's two tasks: one webhook to one address, and one event to all who want it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import StringConstraints

from errands import Discard, Retry, Run
from errands.core import clock
from errands.kits.webhooks.delivery import Options, Webhook, deliver
from errands.kits.webhooks.provider import Sender
from errands.kits.webhooks.store import WebhookStore

if TYPE_CHECKING:
    from errands import Errands

# It becomes a header, so it is one word.
EventName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,99}$")]
Moment = Annotated[str, StringConstraints(max_length=40)]

# Sending to all talks only to our own broker and database.
_OWN = Retry(5, first=5, most=300)


def register(app: Errands, options: Options) -> None:
    """Declare the tasks on `app`."""

    @app.task(
        name="dispatch_webhook", queue="webhooks", retry=options.retry, soft_time_limit=60, time_limit=90
    )
    async def dispatch_webhook(
        event_type: EventName,
        payload: dict[str, Any],
        webhook_url: str | None = None,
        occurred_at: Moment | None = None,
        *,
        run: Run,
        store: WebhookStore,
        sender: Sender,
    ) -> dict[str, Any]:
        url = webhook_url or await _only_address(options, store, event_type)
        if url is None:
            return {"delivered": False, "reason": "no address registered"}
        webhook = Webhook(event_type, payload, url, occurred_at or _asked_at(run.id))
        return await deliver(webhook, run=run, store=store, sender=sender, options=options)

    @app.task(name="dispatch_webhooks_batch", queue="webhooks", retry=_OWN, soft_time_limit=60, time_limit=90)
    async def dispatch_webhooks_batch(
        event_type: EventName,
        payload: dict[str, Any],
        occurred_at: Moment | None = None,
        *,
        run: Run,
        store: WebhookStore,
    ) -> dict[str, Any]:
        urls = [endpoint.url for endpoint in await store.for_event(event_type)]
        if options.url and await store.by_url(options.url) is None:
            urls.append(store.canonical(options.url))
        moment = occurred_at or _asked_at(run.id)
        for url in urls:
            # The same id each time: a second delivery of this batch sends nothing twice.
            await dispatch_webhook.aapply_async((event_type, payload, url, moment), task_id=run.child_id(url))
        return {"dispatched": len(urls), "task_ids": [run.child_id(url) for url in urls]}


async def _only_address(options: Options, store: WebhookStore, event: str) -> str | None:
    """The address for a webhook that names none: the configured one, else the only one that wants it."""
    if options.url:
        return options.url
    wanting = await store.for_event(event)
    if len(wanting) > 1:
        raise Discard(
            f"{len(wanting)} addresses are registered for {event}: name one, or send dispatch_webhooks_batch"
        )
    return wanting[0].url if wanting else None


def _asked_at(run_id: str) -> str:
    """When the run was asked for, which a UUIDv7 tells (RFC 9562, 5.7); now, for ids of another kind."""
    try:
        made = uuid.UUID(run_id)
    except ValueError:
        return clock.now().isoformat()
    if made.version != 7:
        return clock.now().isoformat()
    return datetime.fromtimestamp((made.int >> 80) / 1000, UTC).isoformat()
