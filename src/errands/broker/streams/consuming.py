"""A channel's way to the server: it asks for messages when it may have some, and reads the answer."""

from __future__ import annotations

import logging
from contextlib import suppress
from queue import Empty
from time import monotonic
from typing import Any

import redis
from redis.exceptions import RedisError, ResponseError

from errands.broker.streams.delivering import Delivering
from errands.broker.streams.layout import tag_of
from errands.broker.streams.message import NotAMessage, NotDue, unpack
from errands.broker.streams.reading import opened
from errands.broker.streams.scripts import READ

logger = logging.getLogger("errands.transport")

_QUIET_SECONDS = 60.0
# Answers by which a server says that it is the wrong one now, or not ready: another connection may do.
_PASSING = ("READONLY", "LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "NOREPLICAS", "BUSY ")


class Consuming(Delivering):
    """What a channel does to read its queues.

    What is relied on inside of kombu: that its poller calls `_brpop_start` when the channel may read,
    `handlers["BRPOP"]` when the connection of `client` is readable, and looks at `_in_poll`.
    """

    def _prepare(self) -> None:
        super()._prepare()
        self._telling: list[str] = []
        self._problems_at = -_QUIET_SECONDS

    # -- consuming

    def basic_consume(self, queue: str, no_ack: bool, *args: Any, **options: Any) -> Any:
        """Begin to read a queue. Without acknowledgements its messages are gone when they are delivered."""
        if queue not in self._fanout_queues:
            if no_ack:
                self._no_ack.add(queue)
            else:
                self._no_ack.discard(queue)
                self.holdings.queues.add(queue)
        return super().basic_consume(queue, no_ack, *args, **options)

    def _brpop_start(self, timeout: float | None = None) -> None:
        """Send the next read. Its reply is read when the connection is readable."""
        queues = self._queue_cycle.consume(len(self.active_queues))
        if not queues:
            return
        reading, upkeep = self._reading, self._upkeep
        if upkeep is not None and not reading.blocks:
            self._telling = upkeep.holdings.take_acks()
        connection = self._in_poll = self.client.connection
        self._brpop_sent_at = monotonic()
        wait = timeout or self.brpop_timeout or 1
        command = reading.command(
            queues, self._expires, self._credit(), self._telling, max(1, int(wait * 1000)),
            self._credit_in_line(),
        )  # fmt: skip
        try:
            connection.send_command(*command)
        except BaseException:
            self._not_told()
            raise

    def _brpop_read(self, **options: Any) -> bool:
        """Read the reply, and deliver what it brings.

        Raises:
            Empty: there was nothing.
        """
        connection = self.client.connection
        try:
            try:
                streams, problems = self._reading.reply(connection.read_response())
            except self.connection_errors:
                connection.disconnect()
                raise
            except ResponseError as exc:
                self._not_told()
                self._refused(exc, connection)
                raise Empty from exc
            self._told()
            self._take(streams)
        finally:
            self._in_poll = None
            self._flush_brpop_reauth()
        if problems:
            self._complain(problems)
        if not streams:
            raise Empty
        if self._closing:
            self.holdings.give_back(
                [tag_of(stream, entry) for stream, entries in streams for entry, _ in entries]
            )
            raise Empty
        self._queue_cycle.rotate(self._queue_of(streams[0][0]))
        self._deliver(streams)
        return True

    def _poll_error(self, type: str, **options: Any) -> None:
        if type == "BRPOP":
            self.client.connection.read_response()
        else:
            super()._poll_error(type, **options)

    def basic_get(self, queue: str, no_ack: bool = False, **options: Any) -> Any:
        """Get a message directly; None when none waits, or the queue is paused."""
        if not no_ack:
            self.holdings.queues.add(queue)
        arguments = self._reading.arguments([queue], self._expires, 1, ())
        while streams := opened(READ.run(self.plain, *arguments))[0]:
            stream, [(entry, fields)] = streams[0]
            tag = tag_of(stream, entry)
            if not no_ack:
                self._take(streams)
            try:
                message = self.Message(unpack(fields, tag), channel=self)
            except NotDue as exc:
                self._put_off(tag, queue, exc)
                continue
            except NotAMessage as exc:
                self._bury(tag, str(exc))
                continue
            if no_ack:
                self._settle([tag])
            else:
                self.qos.append(message, tag)
            return message
        return None

    # -- acknowledgements that go along with a read

    def _told(self) -> None:
        if self._telling and self._upkeep is not None:
            self._upkeep.holdings.told(self._telling)
        self._telling = []

    def _not_told(self) -> None:
        if self._telling and self._upkeep is not None:
            self._upkeep.holdings.not_told(self._telling)
        self._telling = []

    # -- what goes wrong

    def _refused(self, exc: ResponseError, connection: Any) -> None:
        """A missing script or group is put right by the next read; a server that changes its part needs a
        new connection; anything else is somebody's mistake, and is told.

        Raises:
            redis.ConnectionError: the server is the wrong one now, or not ready.
        """
        self._reading.refused()
        text = f"{type(exc).__name__} {exc}"
        if isinstance(exc, redis.exceptions.NoScriptError) or "NOGROUP" in text or "UNBLOCKED" in text:
            return
        if isinstance(exc, redis.exceptions.ReadOnlyError) or any(word in text for word in _PASSING):
            connection.disconnect()
            raise redis.ConnectionError(f"the broker cannot be read from now: {exc}") from exc
        raise exc

    def _complain(self, problems: list[str]) -> None:
        if monotonic() - self._problems_at >= _QUIET_SECONDS:
            self._problems_at = monotonic()
            logger.error("streams that cannot be read: %s", "; ".join(problems))

    def _on_connection_disconnect(self, connection: Any) -> None:
        if self._in_poll is connection:
            self._not_told()
            self._reading.refused()
        super()._on_connection_disconnect(connection)

    # -- the end

    def _stop_consuming(self) -> None:
        """Take in what was asked for, give back what does not run, tell what is done."""
        if self._in_poll:
            with suppress(Empty, RedisError, OSError, KeyError):  # broken: the upkeep finds what got lost
                self._brpop_read()
        self._in_poll = None
        if self._qos is not None:
            self._qos.restore_unacked_once()
        if self._upkeep is None:
            return
        holdings = self._upkeep.holdings
        connection = getattr(self.__dict__.get("client"), "connection", None)
        if connection is not None and connection._sock is not None:
            with suppress(RedisError, OSError):  # the upkeep goes on trying
                holdings.flush()
        holdings.channels.discard(self)
        holdings.hurry.set()
        holdings.wake.set()
