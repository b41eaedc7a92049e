"""A channel's way from entries to the consumer's callback, and what becomes of those that get nowhere."""

from __future__ import annotations

import logging
from typing import Any

import redis
from kombu.transport import redis as stock

from errands.broker import leases
from errands.broker.client import Client
from errands.broker.keys import Keys
from errands.broker.streams.holdings import Holdings, grouped
from errands.broker.streams.layout import split_tag, tag_of
from errands.broker.streams.message import NotAMessage, NotDue, unpack
from errands.broker.streams.moment import is_marked
from errands.broker.streams.options import Options
from errands.broker.streams.qos import QoS
from errands.broker.streams.reading import Reading, Streams
from errands.broker.streams.scripts import BURY, PUT_OFF, SETTLE
from errands.broker.streams.upkeep import Upkeep, upkeep_for

logger = logging.getLogger("errands.transport")

# kombu publishes no types.
_Channel: Any = stock.Channel

# For the upkeep: a server that does not answer must not hold it for ever.
_SOCKET_SECONDS = 5.0


class Delivering(_Channel):
    """What a channel does with messages that it has read, up to their acknowledgement."""

    QoS = QoS
    keys: Keys
    options: Options
    plain: Client

    def _prepare(self) -> None:
        self._reader = leases.reader()
        self._reading = Reading(self.keys, self._reader)
        self._no_ack: set[str] = set()
        self.fresh: dict[str, float] = {}  # of the last delivery: when the moment of their sending is over
        self._upkeep: Upkeep | None = None
        self._queue_at = len(self.keys.stream("", "")) - 1

    @property
    def holdings(self) -> Holdings:
        """What this process has taken from the broker; from its first use on the upkeep runs."""
        if self._upkeep is None:
            conninfo = self.connection.client
            place = (conninfo.hostname, conninfo.port, conninfo.virtual_host, conninfo.userid, *conninfo.alt)
            identity = (place, self.keys.prefix, self._reader)
            self._upkeep = upkeep_for(identity, self._make_upkeep, self)
        return self._upkeep.holdings

    @property
    def read_sent_at(self) -> float | None:
        """When a read was sent whose reply nobody has looked at yet (`time.monotonic`); None for none."""
        sent_at: float | None = self._brpop_sent_at if self._in_poll else None
        return sent_at

    def _make_upkeep(self) -> Upkeep:
        sentinels: Any = getattr(self, "_sentinel_manager", None)
        pool = self._get_pool()
        # A channel closes the sentinels that it knows of; these belong to the upkeep, which outlives it.
        self._sentinel_manager = sentinels
        pool.connection_kwargs["socket_timeout"] = _SOCKET_SECONDS
        client = redis.Redis(connection_pool=pool)
        holdings = Holdings(client, self.keys, self._reader, self.options)
        return Upkeep(holdings, list_prefix=self.global_keyprefix, separator=self.sep)

    def _take(self, streams: Streams) -> None:
        """From now on the process answers for these."""
        if self._upkeep is not None:
            for stream, entries in streams:
                self._upkeep.holdings.take(stream, [entry for entry, _ in entries])

    def _deliver(self, streams: Streams) -> None:
        """Call the consumer for each message. What a failing consumer leaves over goes back."""
        rows = [
            (tag_of(stream, entry), queue, fields)
            for stream, entries in streams
            for queue in (self._queue_of(stream),)
            for entry, fields in entries
        ]
        if self._reading.blocking and len(rows) > (credit := self._credit()):
            # Waiting may bring one of each stream, more than were asked for.
            self.holdings.give_back([tag for tag, _, _ in rows[credit:]])
            del rows[credit:]
        if self._reading.blocking:  # not in the message, whose sender might say so as well
            self.fresh = {
                tag: self._reading.fresh_until(split_tag(tag)[1])
                for tag, _, fields in rows
                if is_marked(fields)
            }
        deliver, settled, waiting, tag = self.connection._deliver, [], iter(rows), ""
        try:
            for tag, queue, fields in waiting:
                if queue in self._no_ack:
                    settled.append(tag)
                try:
                    deliver(unpack(fields, tag), queue)
                except NotDue as exc:
                    self._put_off(tag, queue, exc)
                except NotAMessage as exc:
                    self._bury(tag, str(exc))
        except BaseException:
            left = [tag for tag, _, _ in waiting]
            if tag not in self.qos._delivered and tag not in settled:
                left.insert(0, tag)
            self.holdings.give_back(left)
            raise
        finally:
            if settled:
                self._settle(settled)

    def _queue_of(self, stream: str) -> str:
        return stream[self._queue_at :].removesuffix(":front").rpartition(":")[0]

    def _credit(self) -> int:
        """How many messages may be read now."""
        if "can_consume" in vars(self.qos):
            return 1  # `worker_disable_prefetch`: Celery looks before each message whether the pool is free
        count = self.qos.can_consume_max_estimate()
        most = self.options.read_max
        return most if count is None else max(1, min(count, most))

    def _credit_in_line(self) -> int:
        """How many messages may be read now where tenants stand in line."""
        free: int = self.qos.free_in_line()
        return min(self._credit(), free)

    def _settle(self, tags: list[str]) -> None:
        """Acknowledge now what nobody else will. One round trip."""
        SETTLE.run(self.plain, self.options.max_deliveries, self.options.dead_letters_max, 0, *grouped(tags))
        if self._upkeep is not None:
            self._upkeep.holdings.told(tags)

    def _put_off(self, tag: str, queue: str, early: NotDue) -> None:
        """Put a message that is not due yet to the delayed ones: no worker holds it until then."""
        stream, entry = split_tag(tag)
        level = stream.removesuffix(":front").rpartition(":")[2]
        PUT_OFF.run(self.plain, self.keys.prefix, queue, level, stream, entry, early.due_ms, early.run_id)
        if self._upkeep is not None:
            self._upkeep.holdings.told([tag])

    def _bury(self, tag: str, reason: str) -> None:
        """Make a dead letter of an entry that cannot be delivered; the upkeep tells of it."""
        reason = f"the entry in the queue is no message: {reason}"
        BURY.run(self.plain, self.options.dead_letters_max, *split_tag(tag), reason)
        if self._upkeep is not None:
            self._upkeep.holdings.told([tag])
        logger.error("dead letter: %s", reason)
