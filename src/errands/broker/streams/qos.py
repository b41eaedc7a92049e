"""The prefetch limit of a channel, and what happens to messages that it was given."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from kombu.transport import virtual
from redis.exceptions import RedisError

# kombu publishes no types.
_QoS: Any = virtual.QoS


# How many tasks the process has room for at a time; 0 where nobody said so. See `make_room`.
_room = 0


def make_room(slots: int) -> None:
    """Say how many tasks this process works on at a time.

    While tenants stand in line, a worker takes little more than that: what it has taken, it starts in the
    order in which it took it, and who comes later waits for that. A tenth more hides the way to the server.
    """
    global _room
    _room = slots + math.ceil(slots / 10)


class QoS(_QoS):
    """Nothing is written when a message is delivered: the group's list of pending entries remembers it.

    What is relied on inside of kombu: `_delivered`, `_dirty`, `_quick_ack` and `_on_collect` of its QoS.
    """

    def __init__(self, channel: Any, prefetch_count: int = 0) -> None:
        super().__init__(channel, prefetch_count)
        # Celery's requests by id, where this process is a worker: see `ack`.
        worker = sys.modules.get("celery.worker.state")
        self._requests: Mapping[str, Any] = worker.requests if worker else {}

    def free_in_line(self) -> int:
        """How many messages may be taken where tenants stand in line."""
        return max(0, _room - self._count()) if _room else sys.maxsize

    def can_consume(self) -> bool:
        """Whether the channel may be read."""
        most = self.prefetch_count
        if _room and self.channel._reading.in_line:
            most = min(most or _room, _room)
        return not most or self._count() < most

    def _count(self) -> int:
        return len(self._delivered) - len(self._dirty)

    def ack(self, delivery_tag: str) -> None:
        """Acknowledge: in a tenth of a second at the latest, together with others.

        A task that acknowledges before it runs must not run twice: as the worker still knows its request,
        unlike that of a task that has ended, it is told at once.
        """
        message = self._delivered.get(delivery_tag)
        self._quick_ack(delivery_tag)
        urgent = message is not None and message.headers.get("id") in self._requests
        self.channel.holdings.acknowledge(delivery_tag, urgent=urgent)

    def reject(self, delivery_tag: str, requeue: bool = False) -> None:
        """Put it to the front of its level, or throw it away."""
        self._quick_ack(delivery_tag)
        holdings = self.channel.holdings
        if not requeue:
            holdings.acknowledge(delivery_tag)
            return
        holdings.give_back([delivery_tag])
        self._tell()

    def restore_unacked(self, client: Any = None) -> None:
        """Give back what was delivered and does not run."""
        self._flush()
        running = running_tags()
        back = [tag for tag in self._delivered if tag not in running]
        self._delivered.clear()
        if back:
            self.channel.holdings.give_back(back)

    def restore_unacked_once(self, stderr: Any = None) -> None:
        """Called when the channel closes or is collected. A second call finds nothing to do."""
        self._on_collect.cancel()
        if self.restore_at_shutdown and self.channel.do_restore:
            self.restore_unacked()

    def restore_visible(self, *args: Any, **options: Any) -> None:
        """Nothing to do: the upkeep sees to it."""

    def _tell(self) -> None:
        with suppress(RedisError, OSError):  # the upkeep tells it as soon as the server answers
            self.channel.holdings.flush()


def running_tags() -> set[str]:
    """Delivery tags of the tasks that run in this process right now."""
    worker = sys.modules.get("celery.worker.state")
    return {request.message.delivery_tag for request in tuple(worker.active_requests)} if worker else set()
