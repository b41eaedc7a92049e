"""One endpoint's webhooks, one after the other.

A run delivers what waits in the endpoint's line. What fails stays first in it, with all the attempts of the
schedule, while the run is put off; so nothing overtakes it, and no other endpoint waits for this one.
"""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import Any

from errands import Run, Snooze
from errands.core import clock
from errands.core.outcome import Again, decide
from errands.kits.webhooks.delivery import Addressee, Sending, Webhook, attempt, directly
from errands.kits.webhooks.line import Waiting
from errands.kits.webhooks.records import Delivery
from errands.kits.webhooks.store import Endpoint

_TURN = 20.0  # seconds after which a long line lets other work of its queue go first


async def deliver_line(endpoint_id: str, *, run: Run, sending: Sending) -> dict[str, Any]:
    """Deliver what waits, until nothing does.

    Raises:
        Snooze: what is first failed and is to be tried again, or others are to have their turn.
    """
    line = sending.store.line
    counts = {"delivered": 0, "given_up": 0}
    began = time.monotonic()
    while (waiting := await line.first(endpoint_id)) is not None:
        if time.monotonic() - began > _TURN:
            raise Snooze(0, "there is more in the line")
        # Another run's failure is waited out here as well; one's own has been, when this attempt began.
        if waiting.next_try_at is not None and waiting.run_id != run.id:
            left = (waiting.next_try_at - clock.now()).total_seconds()
            if left > 0:
                raise Snooze(left, "the first in the line is to be tried again then")
        to = await sending.store.addressee_by_id(endpoint_id)
        if to is None:  # it was removed, and its line with it
            break
        endpoint = to[0]
        done = endpoint.active and await _deliver(waiting, to, run, sending)
        if not endpoint.active:
            await sending.store.record(_given_up(waiting, endpoint, run), waiting.body, counts=False)
        await line.leave(waiting)
        counts["delivered" if done else "given_up"] += 1
    return counts


async def _deliver(waiting: Waiting, to: Addressee, run: Run, sending: Sending) -> bool:
    """Make one attempt, on record; tells whether it was delivered, or else given up."""
    number = waiting.attempts + 1
    webhook = Webhook(waiting.id, waiting.event, to[0].url, waiting.body.encode())
    delivery, failure = await attempt(
        webhook, to, run_id=run.id, number=number, sending=sending, once=directly
    )
    follows = None if failure is None else decide(failure, sending.options.retry, number)
    if not isinstance(follows, Again):
        await sending.store.record(delivery, waiting.body)
        return failure is None
    until = clock.now() + timedelta(seconds=follows.wait)
    await sending.store.record(replace(delivery, next_try_at=until), waiting.body)
    await sending.store.line.put_off(waiting, until=until, run_id=run.id)
    raise Snooze(follows.wait, str(failure))


def _given_up(waiting: Waiting, endpoint: Endpoint, run: Run) -> Delivery:
    """What is on record of a webhook that came to its turn at a disabled endpoint: it can be replayed."""
    return Delivery(
        run_id=run.id,
        endpoint_id=endpoint.id,
        event=waiting.event,
        url=endpoint.url,
        attempt=waiting.attempts,
        status_code=None,
        error=f"not sent: the endpoint is disabled: {endpoint.disabled_reason}",
        duration_ms=0,
        at=clock.now(),
        message_id=waiting.id,
    )
