"""What people do with endpoints and deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlalchemy.ext.asyncio import AsyncSession

from errands import Run
from errands.core import clock
from errands.kits.webhooks.delivery import Options, Sending, Webhook, attempt, directly
from errands.kits.webhooks.errors import UnknownEndpoint
from errands.kits.webhooks.provider import Sender
from errands.kits.webhooks.records import Delivery
from errands.kits.webhooks.store import WebhookStore

if TYPE_CHECKING:
    from errands import Errands

PING = "webhook.ping"


class Webhooks:
    """`await app.resources.instance(Webhooks).ping(endpoint_id)`, in an admin's request for example."""

    def __init__(self, app: Errands, options: Options) -> None:
        self._app = app
        self._options = options

    async def tell(
        self, session: AsyncSession, event: str, payload: dict[str, Any], *, owner: str | None = None
    ) -> str:
        """Tell all who want it of `event`, when `session` commits. Answers the id of the run that does.

        As `dispatch_webhooks_batch.delay_on_commit`, and in the order of the commits: it joins the lines of
        endpoints that want their events one after the other in the same transaction.

        Args:
            session: on the database of ERRANDS_DATABASE_URL, as in `docs/on-commit.md`.
            event, payload, owner: as of the task.

        Raises:
            InvalidArguments: the event is no word, or the payload no object.
        """
        run = Run(self._app.new_id(), "dispatch_webhooks_batch")
        moment = clock.now().isoformat()
        self._app.tasks[run.task].apply_on_commit(
            session, (event, payload, moment), task_id=run.id, owner=owner
        )
        for endpoint in await self._store.for_event(event, session):
            if endpoint.ordered:
                webhook = Webhook.of_batch(run, event, payload, endpoint.url, moment)
                await self._store.line.add_with(session, webhook.waiting(endpoint, run.id))
        return run.id

    async def ping(self, endpoint_id: str) -> Delivery:
        """Send a `webhook.ping` event now, from here, and tell what came of it. A disabled endpoint is pinged
        as well.

        The attempt is on record, under no run; whether it succeeds says nothing about whether the endpoint
        fails.

        Raises:
            UnknownEndpoint: there is none with this id.
        """
        store = self._store
        to = await store.addressee_by_id(endpoint_id)
        if to is None:
            raise UnknownEndpoint(f"no webhook endpoint {endpoint_id!r}")
        sending = Sending(store, self._app.resources.instance(Sender), self._options)  # type: ignore[type-abstract]
        name = f"ping-{self._app.new_id()}"
        content = {"endpoint_id": endpoint_id}
        webhook = Webhook.of(f"msg_{name}", PING, content, to[0].url, clock.now().isoformat())
        delivery, _ = await attempt(webhook, to, run_id=name, number=1, sending=sending, once=directly)
        await store.record(delivery, counts=False)
        return delivery

    async def replay(self, delivery_id: str, *, owner: str | None = None) -> str:
        """Send once more what was sent in this attempt: the same bytes and the same webhook-id, signed anew.
        Answers the id of the run, a `replay_webhook`, which tries as often as any other.

        A receiver that remembers ids will ignore it, if it took it before.

        Raises:
            UnknownDelivery: it is not on record, or not any more.
        """
        await self._store.body(await self._store.delivery(delivery_id))
        run = await self._app.tasks["replay_webhook"].aapply_async((delivery_id,), owner=owner)
        return str(run.id)

    @property
    def _store(self) -> WebhookStore:
        return self._app.resources.instance(WebhookStore)
