"""The kit's tasks: one webhook to one address, one event to all who want it, and what goes with these."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, StringConstraints

from errands import Concurrency, Discard, Retry, Run, Unique
from errands.core import clock
from errands.kits.webhooks.delivery import Options, Sending, Webhook, deliver
from errands.kits.webhooks.ordered import deliver_line
from errands.kits.webhooks.provider import Sender
from errands.kits.webhooks.store import Endpoint, WebhookStore

if TYPE_CHECKING:
    from errands import Errands

# It becomes a header, so it is one word.
EventName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.:/-]{0,99}$")]
Moment = Annotated[str, StringConstraints(max_length=40)]

QUEUE = "webhooks"
# What talks only to our own broker and database.
_OWN = Retry(5, first=5, most=300)
_TIMES: dict[str, Any] = {"soft_time_limit": 60, "time_limit": 90}
# A run that is at work may have seen the end of the line already, so it stands for no later request.
_NEXT = Unique(by="endpoint_id", while_=("scheduled", "queued", "retrying"))


def register(app: Errands, options: Options) -> None:
    """Declare the tasks on `app`."""

    @app.task(name="dispatch_webhook", queue=QUEUE, retry=options.retry, **_TIMES)
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
        url = store.canonical(url)
        webhook = Webhook.of(f"msg_{run.id}", event_type, payload, url, occurred_at or _asked_at(run.id))
        to = await store.addressee(url)
        if to is not None and to[0].active and to[0].ordered:
            task_id = await line_up(webhook, to[0], run, store)
            return {"delivered": False, "reason": "it waits for its turn", "task_id": task_id}
        return await deliver(webhook, run=run, sending=Sending(store, sender, options), to=to)

    @app.task(name="dispatch_webhooks_batch", queue=QUEUE, retry=_OWN, **_TIMES)
    async def dispatch_webhooks_batch(
        event_type: EventName,
        payload: dict[str, Any],
        occurred_at: Moment | None = None,
        *,
        run: Run,
        store: WebhookStore,
    ) -> dict[str, Any]:
        wanting: dict[str, Endpoint | None] = {e.url: e for e in await store.for_event(event_type)}
        if options.url and await store.by_url(options.url) is None:
            wanting[store.canonical(options.url)] = None
        moment = occurred_at or _asked_at(run.id)
        task_ids = []
        for url, endpoint in wanting.items():
            # The same id each time: a second delivery of this batch sends nothing twice.
            task_id = run.child_id(url)
            if endpoint is not None and endpoint.ordered:
                webhook = Webhook.of_batch(run, event_type, payload, url, moment)
                task_id = await line_up(webhook, endpoint, run, store)
            else:
                await dispatch_webhook.aapply_async((event_type, payload, url, moment), task_id=task_id)
            task_ids.append(task_id)
        return {"dispatched": len(task_ids), "task_ids": task_ids}

    @app.task(
        name="deliver_webhooks_in_order",
        queue=QUEUE,
        retry=_OWN,
        unique=_NEXT,
        at_most=Concurrency(1, by="endpoint_id"),
        **_TIMES,
    )
    async def deliver_webhooks_in_order(
        endpoint_id: str, *, run: Run, store: WebhookStore, sender: Sender
    ) -> dict[str, Any]:
        return await deliver_line(endpoint_id, run=run, sending=Sending(store, sender, options))

    async def line_up(webhook: Webhook, endpoint: Endpoint, run: Run, store: WebhookStore) -> str:
        """Let it wait for its turn; answers the run that delivers it, as far as that is known by now."""
        position = run.id if _is_v7(run.id) else app.new_id()
        await store.line.add(webhook.waiting(endpoint, position))
        return str((await deliver_webhooks_in_order.aapply_async((endpoint.id,))).id)

    @app.task(name="replay_webhook", queue=QUEUE, retry=options.retry, **_TIMES)
    async def replay_webhook(
        delivery_id: str, *, run: Run, store: WebhookStore, sender: Sender
    ) -> dict[str, Any]:
        before = await store.delivery(delivery_id)
        body = await store.body(before)
        webhook = Webhook(str(before.message_id), before.event, before.url, body)
        to = await store.addressee(before.url)
        return await deliver(webhook, run=run, sending=Sending(store, sender, options), to=to)

    @app.task(name="prune_webhook_deliveries", queue=QUEUE, retry=_OWN)
    async def prune_webhook_deliveries(
        days: Annotated[int, Field(ge=1)] = 30, *, store: WebhookStore
    ) -> dict[str, int]:
        # A line whose run was lost with all that the broker had would stand until the next event.
        for endpoint_id in await store.line.endpoints():
            await deliver_webhooks_in_order.aapply_async((endpoint_id,))
        return {"deleted": await store.prune(clock.now() - timedelta(days=days))}


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
    if not _is_v7(run_id):
        return clock.now().isoformat()
    return datetime.fromtimestamp((uuid.UUID(run_id).int >> 80) / 1000, UTC).isoformat()


def _is_v7(run_id: str) -> bool:
    try:
        return uuid.UUID(run_id).version == 7
    except ValueError:
        return False
