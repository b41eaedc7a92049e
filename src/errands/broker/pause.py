"""Queues that no worker reads for now. Messages go on coming in; what workers have taken they finish."""

from __future__ import annotations

from typing import Any

from errands.broker.client import Client
from errands.broker.keys import Keys


def pause(client: Client, keys: Keys, queue: str) -> None:
    """Let no worker read the queue, from a second from now at the latest until `resume`. One round trip."""
    client.sadd(keys.paused, queue)


def resume(client: Client, keys: Keys, queue: str) -> None:
    """Let workers read the queue again: they do within a second. One round trip."""
    client.srem(keys.paused, queue)


def paused(client: Client, keys: Keys) -> set[str]:
    """The names of the queues that are paused. One round trip."""
    names: Any = client.smembers(keys.paused)
    return {name.decode() for name in names}
