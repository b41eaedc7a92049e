"""A broker on streams for tests: connections, messages in and out, and a look at what the server has."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis
from kombu import Connection, Consumer, Producer, Queue

from errands.broker import queues
from errands.broker.keys import Keys
from errands.broker.streams import upkeep
from errands.broker.transport import Transport

QUEUE = "letters"


class Broker:
    """A server, a prefix of keys of the test's own, and what it takes to send and receive.

    Connections are closed by `close`, and the upkeep of this process ends with them.
    """

    def __init__(self, url: str, prefix: str) -> None:
        self.url = url
        self.keys = Keys(prefix)
        self.client = redis.Redis.from_url(url)
        self._connections: list[Connection] = []

    def connect(self, transport: Any = Transport, **options: Any) -> Connection:
        """A connection to the broker, with transport options."""
        options = {"key_prefix": self.keys.prefix, **options}
        connection = Connection(self.url, transport=transport, transport_options=options)
        self._connections.append(connection)
        connection.connect()
        return connection

    def close(self) -> None:
        for connection in self._connections:
            connection.release()
        for found in self.upkeeps():
            found.end()
        self.client.close()

    # -- in

    def send(
        self, *bodies: Any, queue: str = QUEUE, connection: Connection | None = None, **options: Any
    ) -> None:
        """Publish messages; options as of `Producer.publish`."""
        producer = Producer((connection or self.connect()).channel())
        for body in bodies:
            producer.publish(body, routing_key=queue, serializer="json", **options)

    # -- out

    @contextmanager
    def consuming(
        self, connection: Connection, *names: str, prefetch: int = 0, no_ack: bool = False
    ) -> Iterator[list[Any]]:
        """Messages of these queues come into the list while somebody calls `drain`."""
        found: list[Any] = []
        channel = connection.channel()
        consumer = Consumer(
            channel, [Queue(name) for name in names or (QUEUE,)], no_ack=no_ack,
            on_message=found.append, accept=["json"],
        )  # fmt: skip
        if prefetch:
            consumer.qos(prefetch_count=prefetch)
        with consumer:
            yield found
        channel.close()

    def receive(
        self, connection: Connection, count: int, *names: str, prefetch: int = 0, ack: bool = True
    ) -> list[Any]:
        """The payloads of the next messages, acknowledged unless told otherwise."""
        with self.consuming(connection, *names, prefetch=prefetch) as found:
            payloads = []
            while len(payloads) < count:
                drain(connection, found, 1)
                for message in found:
                    payloads.append(message.payload)
                    if ack:
                        message.ack()
                found.clear()
            return payloads

    # -- a look at the server

    def depth(self, queue: str = QUEUE) -> queues.QueueDepth:
        return queues.depths(self.client, self.keys, [queue])[queue]

    def upkeeps(self) -> list[upkeep.Upkeep]:
        """Those of this process at this broker: one, or none when nothing is read or held."""
        return [u for u in upkeep._all.values() if u.holdings.keys.prefix.endswith(self.keys.prefix)]

    def upkeep(self) -> upkeep.Upkeep:
        """The upkeep of this process at this broker."""
        (found,) = self.upkeeps()
        return found

    def allow_rescue(self) -> None:
        """As if workers had been looked for without interruption, for long enough."""
        now = int(time.time() * 1000)
        self.client.hset(self.keys.sweep, mapping={"last": now, "since": now - 60_000})

    def held_by(self, reader: str, queue: str = QUEUE, level: str = "normal") -> list[str]:
        """The next messages of a level are given to a worker `reader` of another process."""
        stream = self.keys.stream(queue, level)
        if not self.client.exists(stream) or not self.client.xinfo_groups(stream):
            self.client.xgroup_create(stream, "workers", "0", mkstream=True)
        reply: Any = self.client.xreadgroup("workers", reader, {stream: ">"})
        rows = (
            reply.get(stream.encode(), [[]])[0] if isinstance(reply, dict) else (reply or [[b"", []]])[0][1]
        )
        return [entry.decode() for entry, _ in rows]

    def die_with(self, message: Any) -> None:
        """As if this process had died with the message, long enough ago."""
        stream, _, entry = message.delivery_tag.rpartition("|")
        self.client.xclaim(stream, "workers", "dead", 0, [entry])
        message.channel.qos._delivered.pop(message.delivery_tag)
        self.upkeep().holdings.told([message.delivery_tag])
        self.allow_rescue()
        self.upkeep().round(sweep=True)


def drain(connection: Connection, found: list[Any], count: int, seconds: float = 20.0) -> list[Any]:
    """Let the connection deliver until there are `count` messages."""
    deadline = time.monotonic() + seconds
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} of {count} messages within {seconds:g} s"
        try:
            connection.drain_events(timeout=1)
        except TimeoutError:
            continue
    return found


def nothing_comes(connection: Connection, found: list[Any], rounds: int = 2) -> None:
    """The connection has asked so many times, and was told that there is nothing."""
    for _ in range(rounds):
        try:
            connection.drain_events(timeout=0.3)
        except TimeoutError:
            continue
    assert found == []
