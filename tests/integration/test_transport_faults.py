"""Connections that break, servers that are away, full or frozen, and processes that fork."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from celery.worker import state as worker_state
from kombu import Connection, Consumer, Queue

from errands.broker import leases, queues
from errands.broker.streams import upkeep as upkeeps
from errands.broker.transport import Transport
from errands.doors.local.valkey import EmbeddedValkey
from processes import until
from streams import QUEUE, Broker, drain, nothing_comes


class Quick(Transport):
    """Waits less long than usual."""

    brpop_timeout = 0.2


@pytest.fixture
def server(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A server of the test's own, to do harm to."""
    with EmbeddedValkey(tmp_path / "server") as made:
        yield made


@pytest.fixture
def broker(server: EmbeddedValkey, key_prefix: str) -> Iterator[Broker]:
    made = Broker(server.url, key_prefix)
    yield made
    made.close()


def cut_connections(broker: Broker) -> None:
    """All but the one that says it."""
    own = broker.client.client_id()
    for row in broker.client.client_list():
        if int(row["id"]) != own:
            broker.client.client_kill_filter(_id=row["id"])


class Running:
    """A request that runs, as Celery's worker knows it."""

    def __init__(self, message: Any) -> None:
        self.message = message


def test_a_cut_connection_gives_back_all_but_what_runs(broker: Broker) -> None:
    connection = broker.connect(Quick)
    broker.send(*range(5), connection=connection)
    with broker.consuming(connection) as found:
        drain(connection, found, 5)
        runs = Running(found[2])
        worker_state.active_requests.add(runs)
        cut_connections(broker)
        with pytest.raises(connection.connection_errors):
            drain(connection, found, 6)
        connection.collect(socket_timeout=5)  # as Celery does
    until(lambda: broker.depth().depth == 4, what="the rest is given back")
    assert broker.depth().held == 1
    assert broker.receive(broker.connect(Quick), 4) == [0, 1, 3, 4]
    # Its channel is gone; its acknowledgement is not.
    runs.message.ack()
    until(lambda: broker.depth() == queues.QueueDepth(0, None), what="the one that ran is acknowledged")
    worker_state.active_requests.discard(runs)


def test_closing_twice_a_channel_that_is_dead_does_no_harm(broker: Broker) -> None:
    connection = broker.connect(Quick)
    broker.send("one", connection=connection)
    with broker.consuming(connection) as found:
        drain(connection, found, 1)
        channel = found[0].channel
        cut_connections(broker)
        channel.qos.restore_unacked_once()
        channel.close()
        channel.close()
        channel.qos.restore_unacked_once()
    until(lambda: broker.depth().depth == 1)


def test_acknowledgements_wait_for_a_server_that_is_away(
    broker: Broker, server: EmbeddedValkey, caplog: pytest.LogCaptureFixture
) -> None:
    connection = broker.connect(Quick)
    broker.send(*range(3), connection=connection)
    with caplog.at_level("INFO", "errands.transport"), broker.consuming(connection) as found:
        drain(connection, found, 3)
        server.kill()
        for message in found:
            message.ack()
        until(lambda: "upkeep of queues failed" in caplog.text)
        server.start()
        until(lambda: "upkeep of queues works again" in caplog.text)
        until(lambda: broker.depth() == queues.QueueDepth(0, None), what="all are acknowledged")
    assert caplog.text.count("upkeep of queues failed") == 1


def test_a_frozen_server_makes_no_rescue(broker: Broker) -> None:
    """Its clock goes on: when it moves again all leases have run out, that of a live worker as well."""
    connection = broker.connect(Quick)
    broker.send("one", "two", connection=connection)
    with broker.consuming(connection, prefetch=1) as found:
        drain(connection, found, 1)
        broker.held_by("another live worker")
        broker.client.set(broker.keys.lease("another live worker"), 1, ex=60)
        # Frozen for an hour, as the server sees it: no lease is left, and nobody has swept.
        hour_ago = int(broker.client.time()[0] - 3600) * 1000
        broker.client.hset(broker.keys.sweep, mapping={"last": hour_ago, "since": hour_ago - 3_600_000})
        broker.client.delete(broker.keys.lease("another live worker"), broker.keys.lease(leases.reader()))
        broker.upkeep().round(sweep=True, renew=True)
        assert broker.depth().held == 2
        assert broker.client.exists(broker.keys.lease(leases.reader()))


def test_a_full_server_is_read_and_acknowledged(broker: Broker) -> None:
    connection = broker.connect(Quick)
    broker.send(*range(3), connection=connection)
    broker.client.config_set("maxmemory", 1_000_000)
    try:
        with pytest.raises(redis.ResponseError, match="maxmemory"):
            broker.send("one too many", connection=connection)
        assert broker.receive(connection, 3) == [0, 1, 2]
        until(lambda: broker.depth() == queues.QueueDepth(0, None), what="all are acknowledged")
    finally:
        broker.client.config_set("maxmemory", 0)


def test_what_cannot_be_given_back_yet_is_given_back_later(broker: Broker) -> None:
    connection = broker.connect(Quick)
    broker.send("one", connection=connection)
    with broker.consuming(connection) as found:
        (message,) = drain(connection, found, 1)
        found.clear()
        broker.client.config_set("maxmemory", 1_000_000)
        message.requeue()
        nothing_comes(connection, found)
        assert broker.depth().held == 1
        broker.client.config_set("maxmemory", 0)
        assert [again.payload for again in drain(connection, found, 1)] == ["one"]


def test_a_fork_is_a_worker_of_its_own(broker: Broker) -> None:
    """A child must not use its parent's connections, nor answer for what its parent holds."""
    parent = broker.connect(Quick)
    broker.send("parent's", connection=parent)
    with broker.consuming(parent) as found:
        drain(parent, found, 1)
        reader, (out, into) = leases.reader(), os.pipe()
        child = os.fork()
        if child == 0:
            status = 1
            try:
                assert upkeeps._all == {}
                assert leases.reader() != reader
                own = Broker(broker.url, broker.keys.prefix)
                own.send("child's")
                received = own.receive(own.connect(Quick), 1)
                own.close()
                os.write(into, str(received).encode())
                status = 0
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        assert status == 0
        assert os.read(out, 100) == b'["child\'s"]'
        found.pop().ack()
        broker.send("parent's again", connection=parent)
        assert [message.payload for message in drain(parent, found, 1)] == ["parent's again"]
        found[0].ack()
    until(lambda: broker.depth() == queues.QueueDepth(0, None))


def test_the_lease_goes_when_nothing_is_read_or_held(broker: Broker) -> None:
    connection = broker.connect(Quick)
    lease = broker.keys.lease(leases.reader())
    broker.send("one", connection=connection)
    with broker.consuming(connection) as found:
        drain(connection, found, 1)
        assert 0 < broker.client.pttl(lease) <= leases.SECONDS * 1000
        found[0].ack()
    until(lambda: not broker.client.exists(lease), what="the lease is let go")
    assert broker.upkeeps() == []
    # And everything begins anew.
    broker.send("two", connection=connection)
    with broker.consuming(connection) as found:
        drain(connection, found, 1)
        assert broker.client.exists(lease)


def test_a_failing_consumer_leaves_nothing_lying_about(broker: Broker) -> None:
    """The messages of the same read that it never saw go back."""
    connection = broker.connect(Quick)
    broker.send(*range(5), connection=connection)

    def fail(message: Any) -> None:
        raise RuntimeError("the consumer fails")

    with connection.channel() as channel, Consumer(channel, [Queue(QUEUE)], on_message=fail):
        with pytest.raises(RuntimeError):
            connection.drain_events(timeout=5)
        until(lambda: broker.depth().depth == 4, what="those are back that it never saw")
        assert broker.depth().held == 1  # the other is its to settle, until the channel closes
    assert broker.depth().depth == 5


def test_dead_letters_are_told_again_when_their_teller_died(broker: Broker) -> None:
    told: list[Any] = []
    broker.client.xadd(broker.keys.dead(QUEUE), {"m": "raw", "reason": "why", "n": 3, "at": "1.5"})
    broker.client.xgroup_create(broker.keys.dead(QUEUE), "tellers", "0")
    broker.client.xreadgroup("tellers", "died", {broker.keys.dead(QUEUE): ">"})
    connection = broker.connect(Quick, on_dead_letter=lambda *letter: told.append(letter))
    with broker.consuming(connection):
        broker.upkeep().round(sweep=True)
        assert told == []  # somebody may be about to tell it
        (row,) = broker.client.xpending_range(broker.keys.dead(QUEUE), "tellers", "-", "+", 1)
        broker.client.execute_command(
            "XCLAIM", broker.keys.dead(QUEUE), "tellers", "died", 0, row["message_id"], "IDLE", 61_000
        )
        until(lambda: told == [(QUEUE, b"raw", "why")])
    pending: Any = broker.client.xpending(broker.keys.dead(QUEUE), "tellers")
    until(
        lambda: not broker.client.xpending(broker.keys.dead(QUEUE), "tellers")["pending"], what=str(pending)
    )


def test_a_hook_that_fails_does_not_end_the_upkeep(broker: Broker, caplog: pytest.LogCaptureFixture) -> None:
    def fail(*letter: Any) -> None:
        raise RuntimeError("the ledger is away")

    connection = broker.connect(Quick, on_dead_letter=fail)
    broker.client.xadd(broker.keys.stream(QUEUE, "normal"), {"m": "nonsense"})
    with broker.consuming(connection) as found:
        nothing_comes(connection, found)
        until(lambda: "could not be told" in caplog.text)
        broker.send("good", connection=connection)
        drain(connection, found, 1)
    assert broker.client.xpending(broker.keys.dead(QUEUE), "tellers")["pending"] == 1


def test_connections_are_closed(broker: Broker) -> None:
    before = len(broker.client.client_list())
    for _ in range(3):
        with Connection(
            broker.url, transport=Quick, transport_options={"key_prefix": broker.keys.prefix}
        ) as connection:
            broker.send("x", connection=connection)
            assert broker.receive(connection, 1) == ["x"]
    until(lambda: len(broker.client.client_list()) <= before + 1, what="no connection is left over")
