"""How deep a queue is, and how old its oldest message, in the lists of kombu's own Redis transport."""

from __future__ import annotations

import json
from typing import Any

from errands.broker.client import Client
from errands.broker.queues import QueueDepth
from errands.core import clock

# kombu keeps the messages of a priority above zero in lists of their own: name, separator, step.
_SEPARATOR = "\x06\x16"
_STEPS = (0, 3, 6, 9)


def list_depths(client: Client, names: list[str]) -> dict[str, QueueDepth]:
    """The depth of each queue in `names`. One round trip."""
    lists = {name: [name if step == 0 else f"{name}{_SEPARATOR}{step}" for step in _STEPS] for name in names}
    with client.pipeline(transaction=False) as pipe:
        for keys in lists.values():
            for key in keys:
                pipe.llen(key)
                pipe.lindex(key, -1)  # kombu pushes left and takes from the right
        replies = iter(pipe.execute())
    found = {}
    for name, keys in lists.items():
        rows = [(next(replies), next(replies)) for _ in keys]
        ages = [age for _, oldest in rows if (age := _age(oldest)) is not None]
        found[name] = QueueDepth(sum(int(length) for length, _ in rows), max(ages, default=None))
    return found


def _age(message: Any) -> float | None:
    if not message:
        return None
    try:
        queued_at = json.loads(message)["headers"]["errands"]["queued_at"]
    except (ValueError, KeyError, TypeError):
        return None  # a plain Celery producer says nothing of the time
    return max(0.0, clock.timestamp() - float(queued_at))
