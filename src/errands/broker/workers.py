"""What live workers and beats say of themselves: they tell, unasked, and fall silent when they die."""

from __future__ import annotations

import json
from typing import Any

from errands.broker.client import Client
from errands.broker.keys import Keys
from errands.core import clock

ALIVE_SECONDS = 20  # four heartbeats


def report(client: Client, keys: Keys, name: str, facts: dict[str, Any]) -> None:
    """Say that worker `name` is alive. One round trip."""
    with client.pipeline(transaction=False) as pipe:
        pipe.set(keys.worker(name), json.dumps(facts), ex=ALIVE_SECONDS)
        pipe.zadd(keys.workers, {name: clock.timestamp()})
        pipe.execute()


def forget(client: Client, keys: Keys, name: str) -> None:
    """Say that worker `name` has ended in order."""
    with client.pipeline(transaction=False) as pipe:
        pipe.delete(keys.worker(name))
        pipe.zrem(keys.workers, name)
        pipe.execute()


def alive(client: Client, keys: Keys) -> dict[str, dict[str, Any]]:
    """What each live worker last said, by name."""
    raw_names: Any = client.zrange(keys.workers, 0, -1)
    names = [raw.decode() for raw in raw_names]
    if not names:
        return {}
    replies = client.mget([keys.worker(name) for name in names])
    return {name: json.loads(reply) for name, reply in zip(names, replies, strict=True) if reply}
