"""A kombu channel whose queues are streams. Fan-out, remote control and events are as in kombu's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from kombu.transport import virtual
from kombu.utils.json import dumps

from errands.broker import queues
from errands.broker.client import Client
from errands.broker.green import GreenConnection, GreenSSLConnection
from errands.broker.keys import Keys
from errands.broker.streams.consuming import Consuming
from errands.broker.streams.layout import all_keys
from errands.broker.streams.message import Message, due_ms
from errands.broker.streams.options import Options
from errands.broker.streams.scripts import PUT
from errands.core.fairness import lane
from errands.core.task import LEVELS, level_of


class Channel(Consuming):
    """See `docs/transport.md`."""

    Message = Message
    # A task on a worker's loop that sends something must not hold it up.
    connection_class = GreenConnection
    connection_class_ssl = GreenSSLConnection
    # Without these a synchronous command waits for ever on a connection that died in silence.
    socket_timeout = 5.0
    socket_connect_timeout = 5.0

    def __init__(self, connection: Any, **options: Any) -> None:
        given = connection.client.transport_options
        self.options = Options.of(given)
        self.keys = Keys(given.get("global_keyprefix", "") + self.options.key_prefix)
        self._prepare()
        self._kept: Any = None
        self._plain: Client | None = None
        super().__init__(connection, **options)

    # -- connections

    @contextmanager
    def conn_or_acquire(self, client: Any = None) -> Iterator[Any]:
        """A client: kombu makes a new one for each command, which takes longer than most commands."""
        if client is None:
            if self._kept is None:
                self._kept = self._create_client()
            client = self._kept
        yield client

    @property
    def plain(self) -> Client:  # type: ignore[override]
        """A client that takes keys as they are, also where kombu prefixes its own."""
        if self._plain is None:
            self._plain = redis.Redis(connection_pool=self.pool)
        return self._plain

    def _disconnect_pools(self) -> None:
        self._kept = self._plain = None
        super()._disconnect_pools()

    def _after_fork(self) -> None:
        # What the parent holds is the parent's.
        self._upkeep = None
        self._telling = []
        super()._after_fork()

    # -- putting

    def _put(self, queue: str, message: dict[str, Any], **options: Any) -> None:
        """Put one message: into its stream, or, with an `eta` header to come, to the delayed ones."""
        batch = options.pop("_publish_batch", None)
        headers = message.get("headers") or {}
        due = due_ms(headers.get("eta"))
        ours = headers.get("errands")
        where = level_of(self._get_message_priority(message, reverse=False))
        if isinstance(ours, dict) and ours.get("fair"):
            where = lane(where, ours["fair"])
        raw = dumps(message)  # type: ignore[no-untyped-call]
        expires = self._expires.get(queue, 0)
        if not due and not expires and where in LEVELS:
            if batch is not None:
                batch.add("xadd", self.keys.stream(queue, where), {"m": raw})
            else:
                self.plain.xadd(self.keys.stream(queue, where), {"m": raw})
            return
        values = (self.keys.prefix, queue, where, raw, due, str(headers.get("id") or ""), expires)
        if batch is not None:
            # In a pipeline the script cannot be sent after all when the server does not know it.
            batch.add("eval", PUT.text, 0, *values)
        else:
            PUT.run(self.plain, *values)

    # -- queues

    def _size(self, queue: str) -> int:
        return queues.depths(self.plain, self.keys, [queue])[queue].depth

    def _purge(self, queue: str) -> int:
        gone = queues.purge(self.plain, self.keys, queue)
        return gone + int(super()._purge(queue)) if self.options.adopt_lists else gone

    def _has_queue(self, queue: str, **options: Any) -> bool:
        if self.plain.exists(*all_keys(self.keys, queue)):
            return True
        return self.options.adopt_lists and bool(super()._has_queue(queue, **options))

    def _delete(self, queue: str, *args: Any, **options: Any) -> None:
        super()._delete(queue, *args, **options)
        self.plain.delete(*all_keys(self.keys, queue))

    # -- the end

    def close(self) -> None:
        """Give back what does not run, at once, and close. A broker that is away is no reason to fail."""
        self._closing = True
        if not self.closed:
            self._stop_consuming()
            try:
                super().close()
            except self.connection_errors:
                # kombu stops half-way: what is left is to forget the connections.
                self._disconnect_pools()
                self._close_clients()
                virtual.Channel.close(self)  # type: ignore[no-untyped-call]
