"""What the transport promises, on every server that it runs on and in both protocols that these speak."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kombu import Connection, Exchange, Producer, Queue

from errands.broker import leases, pause, queues
from errands.broker.streams.channel import Channel
from errands.broker.transport import Transport
from processes import until
from streams import QUEUE, Broker, drain, nothing_comes


class Newest(Transport):
    """The transport as it is, speaking RESP3; it waits less long than usual."""

    brpop_timeout = 0.2


class _OldChannel(Channel):
    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        return {**super()._connparams(asynchronous), "protocol": 2}


class Older(Newest):
    """The same, speaking RESP2."""

    Channel = _OldChannel


_KINDS = {
    f"{server}-{transport.__name__.lower()}": (f"{server}_url", transport)
    for server in ("valkey", "redis")
    for transport in (Newest, Older)
}


@pytest.fixture(params=list(_KINDS.values()), ids=list(_KINDS))
def kind(request: pytest.FixtureRequest) -> tuple[str, Any]:
    fixture, transport = request.param
    return request.getfixturevalue(fixture), transport


@pytest.fixture
def broker(kind: tuple[str, Any], key_prefix: str) -> Iterator[Broker]:
    made = Broker(kind[0], key_prefix)
    yield made
    made.close()


@pytest.fixture
def connection(broker: Broker, kind: tuple[str, Any]) -> Connection:
    return broker.connect(kind[1])


def in_future(seconds: float) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).isoformat()


def test_messages_come_in_order(broker: Broker, connection: Connection) -> None:
    broker.send(*range(250), connection=connection)
    assert broker.receive(connection, 250) == list(range(250))
    until(lambda: broker.depth() == queues.QueueDepth(0, None), what="all are acknowledged")


def test_a_waiting_reader_is_given_what_comes(broker: Broker, connection: Connection) -> None:
    with broker.consuming(connection) as found:
        nothing_comes(connection, found)
        broker.send("late", connection=connection)
        (message,) = drain(connection, found, 1)
        assert message.payload == "late"
        message.ack()


def test_urgent_messages_come_first(broker: Broker, connection: Connection) -> None:
    for body, priority in (("low", 1), ("none", None), ("zero", 0), ("normal", 5), ("high", 9)):
        broker.send(body, connection=connection, priority=priority)
    assert broker.receive(connection, 5) == ["high", "none", "zero", "normal", "low"]


def test_what_is_not_urgent_gets_its_turn(broker: Broker, connection: Connection) -> None:
    broker.send(*["high"] * 32, connection=connection, priority=9)
    broker.send(*["normal"] * 8, connection=connection, priority=5)
    broker.send(*["low"] * 8, connection=connection, priority=1)
    first = broker.receive(connection, 16, prefetch=1)
    assert first.count("low") == 2
    assert first.count("normal") == 2


def test_queues_take_turns(broker: Broker, connection: Connection) -> None:
    broker.send(*["a"] * 10, queue="a", connection=connection)
    broker.send(*["b"] * 10, queue="b", connection=connection)
    first = broker.receive(connection, 6, "a", "b", prefetch=1)
    assert sorted(first) == ["a", "a", "a", "b", "b", "b"]


def test_no_more_than_the_limit_is_taken(broker: Broker, connection: Connection) -> None:
    broker.send(*range(10), connection=connection)
    with broker.consuming(connection, prefetch=3) as found:
        drain(connection, found, 3)
        assert broker.depth().held == 3
        assert broker.depth().depth == 7
        found[0].ack()
        found.clear()
        assert [message.payload for message in drain(connection, found, 1)] == [3]


def test_one_at_a_time_where_celery_looks_before_each(broker: Broker, connection: Connection) -> None:
    """`worker_disable_prefetch` puts a check of its own in place of the channel's."""
    broker.send(*range(5), connection=connection)
    with broker.consuming(connection) as found:
        qos = next(channel for channel in connection.transport.channels if channel._consumers).qos
        qos.can_consume = lambda: not found
        drain(connection, found, 1)
        nothing_comes(connection, found[1:])
        assert broker.depth().held == 1


def test_a_rejected_message_comes_back_first_and_says_so(broker: Broker, connection: Connection) -> None:
    broker.send("first", "second", connection=connection)
    with broker.consuming(connection, prefetch=1) as found:
        (message,) = drain(connection, found, 1)
        assert not message.delivery_info.get("redelivered")
        found.clear()
        message.requeue()
        (again,) = drain(connection, found, 1)
        assert again.payload == "first"
        assert again.delivery_info["redelivered"] is True
        assert "x-delivery-count" not in again.headers  # nobody died of it
        found.clear()
        again.reject()
        assert [m.payload for m in drain(connection, found, 1)] == ["second"]


def test_a_message_given_back_keeps_its_priority(broker: Broker, connection: Connection) -> None:
    broker.send("low", connection=connection, priority=1)
    with broker.consuming(connection, prefetch=1) as found:
        (message,) = drain(connection, found, 1)
        message.requeue()
    broker.send("high", connection=connection, priority=9)
    assert broker.receive(connection, 2) == ["high", "low"]


def test_closing_gives_back_what_was_taken(broker: Broker, connection: Connection) -> None:
    broker.send(*range(5), connection=connection)
    with broker.consuming(connection) as found:
        drain(connection, found, 5)
        found[0].ack()
    assert broker.depth().depth == 4
    assert broker.depth().held == 0
    assert broker.receive(connection, 4) == [1, 2, 3, 4]


def test_a_delayed_message_comes_when_it_is_due(broker: Broker, connection: Connection) -> None:
    broker.send("later", connection=connection, headers={"id": "run-1", "eta": in_future(3600)}, priority=9)
    broker.send("now", connection=connection, headers={"id": "run-2", "eta": in_future(-1)})
    assert (broker.depth().depth, broker.depth().delayed) == (1, 1)
    with broker.consuming(connection) as found:
        assert [message.payload for message in drain(connection, found, 1)] == ["now"]
        found.clear()
        broker.client.zadd(broker.keys.delayed(QUEUE), {"run-1": 1})
        (message,) = drain(connection, found, 1)
        assert message.payload == "later"
        # The clock of this machine says otherwise; the server's counts, and Celery must not wait again.
        assert datetime.fromisoformat(message.headers["eta"]) <= datetime.now(UTC)
        message.ack()
    assert broker.client.hlen(broker.keys.delayed_messages(QUEUE)) == 0


def test_a_delayed_message_is_not_late(broker: Broker, connection: Connection) -> None:
    due = time.time() + 1.2
    broker.send("soon", connection=connection, headers={"id": "run-1", "eta": in_future(1.2)})
    with broker.consuming(connection) as found:
        drain(connection, found, 1)
    assert time.time() >= due - 0.05


def test_a_run_is_taken_out_of_the_delayed_ones(broker: Broker, connection: Connection) -> None:
    for at in (100, 200, 300):
        broker.send(at, connection=connection, headers={"id": "run-1", "eta": in_future(at)})
    broker.send("other", connection=connection, headers={"id": "run-2", "eta": in_future(100)})
    assert broker.depth().delayed == 4
    assert queues.remove_delayed(broker.client, broker.keys, QUEUE, "run-1") == 3
    assert broker.client.zrange(broker.keys.delayed(QUEUE), 0, -1) == [b"run-2"]
    assert broker.client.hkeys(broker.keys.delayed_messages(QUEUE)) == [b"run-2"]


def test_a_dead_workers_messages_come_to_others(broker: Broker, connection: Connection) -> None:
    broker.send("one", "two", connection=connection)
    assert len(broker.held_by("dead")) == 2
    broker.allow_rescue()
    with broker.consuming(connection) as found:
        drain(connection, found, 2)
        assert [message.payload for message in found] == ["one", "two"]
        assert {message.headers["x-delivery-count"] for message in found} == {1}
        assert all(message.delivery_info["redelivered"] for message in found)
        consumers: Any = broker.client.xinfo_consumers(broker.keys.stream(QUEUE, "normal"), "workers")
        names = {row["name"] for row in consumers}
        assert b"dead" not in names


def test_a_live_workers_messages_stay_with_it(broker: Broker, connection: Connection) -> None:
    broker.send("one", "two", connection=connection)
    broker.held_by("alive")
    broker.client.set(broker.keys.lease("alive"), 1, ex=60)
    with broker.consuming(connection) as found:
        broker.allow_rescue()
        broker.upkeep().round(sweep=True)
        nothing_comes(connection, found)
    assert broker.depth().held == 2


def test_after_an_interruption_leases_are_given_time(broker: Broker, connection: Connection) -> None:
    """A server that was frozen or away comes back with all leases run out."""
    broker.send("one", connection=connection)
    broker.held_by("not heard of")
    with broker.consuming(connection) as found:
        upkeep = broker.upkeep()
        long_ago = int(time.time() * 1000) - 3_600_000
        broker.client.hset(broker.keys.sweep, mapping={"last": long_ago, "since": long_ago - 60_000})
        upkeep.round(sweep=True)
        nothing_comes(connection, found)
        assert broker.depth().held == 1
        broker.allow_rescue()
        upkeep.round(sweep=True)
        drain(connection, found, 1)


def test_a_clock_set_back_is_an_interruption(broker: Broker, connection: Connection) -> None:
    broker.send("one", connection=connection)
    broker.held_by("not heard of")
    with broker.consuming(connection):
        ahead = int(time.time() * 1000) + 3_600_000
        broker.client.hset(broker.keys.sweep, mapping={"last": ahead, "since": ahead - 60_000})
        broker.upkeep().round(sweep=True)
        since = int(broker.client.hget(broker.keys.sweep, "since") or 0)
        assert abs(since - time.time() * 1000) < 60_000
        assert broker.depth().held == 1


def test_what_killed_too_many_workers_is_a_dead_letter(broker: Broker, kind: tuple[str, Any]) -> None:
    told: list[tuple[str, bytes, str]] = []
    connection = broker.connect(kind[1], max_deliveries=2, on_dead_letter=lambda *letter: told.append(letter))
    broker.send("poison", connection=connection, headers={"id": "run-1"})
    with broker.consuming(connection) as found:
        for rescued in range(3):
            (message,) = drain(connection, found, 1)
            assert message.headers.get("x-delivery-count", 0) == rescued
            broker.die_with(found.pop())
        until(lambda: told, what="the dead letter is told")
    ((queue, raw, reason),) = told
    assert queue == QUEUE
    assert b'"run-1"' in raw
    assert reason == "rescued 3 times from workers that died"
    assert broker.depth() == queues.QueueDepth(0, None, dead=1)


def test_what_was_lost_on_its_way_here_goes_back(broker: Broker, connection: Connection) -> None:
    """The server says that we hold it, and no reply ever brought it."""
    broker.send("lost", connection=connection)
    with broker.consuming(connection) as found:
        stream = broker.keys.stream(QUEUE, "normal")
        drain(connection, found, 1)
        held = found.pop()
        broker.send("lost too", connection=connection)
        (entry,) = broker.held_by(leases.reader())
        # Noted by the server six seconds ago.
        broker.client.execute_command("XCLAIM", stream, "workers", leases.reader(), 0, entry, "IDLE", 6000)
        broker.upkeep().round(sweep=True)
        (message,) = drain(connection, found, 1)
        assert message.payload == "lost too"
        assert message.delivery_info["redelivered"]
        held.ack()


def test_what_is_no_message_is_a_dead_letter(broker: Broker, kind: tuple[str, Any]) -> None:
    told: list[tuple[str, bytes, str]] = []
    connection = broker.connect(kind[1], on_dead_letter=lambda *letter: told.append(letter))
    stream = broker.keys.stream(QUEUE, "normal")
    broker.client.xadd(stream, {"m": "not JSON"})
    broker.client.xadd(stream, {"m": '{"body": "eA==", "properties": {"delivery_info": 3}}'})
    broker.client.xadd(
        stream, {"m": '{"body": "xxxxx", "properties": {"delivery_info": {}, "body_encoding": "base64"}}'}
    )
    broker.client.xadd(stream, {"other": "fields"})
    broker.send("good", connection=connection)
    assert broker.receive(connection, 1) == ["good"]
    with broker.consuming(connection):
        until(lambda: len(told) == 4, what="four dead letters are told")
    assert {raw[:8] for _, raw, _ in told} == {b"not JSON", b'{"body":', b"other fi"}
    assert all(reason.startswith("the entry in the queue is no message: ") for _, _, reason in told)
    assert broker.depth() == queues.QueueDepth(0, None, dead=4)


def test_a_paused_queue_is_not_read(broker: Broker, connection: Connection) -> None:
    pause.pause(broker.client, broker.keys, "a")
    assert pause.paused(broker.client, broker.keys) == {"a"}
    broker.send("waits", queue="a", connection=connection)
    broker.send("comes", queue="b", connection=connection)
    with broker.consuming(connection, "a", "b") as found:
        assert [message.payload for message in drain(connection, found, 1)] == ["comes"]
        found.clear()
        nothing_comes(connection, found)
        pause.pause(broker.client, broker.keys, "b")
        nothing_comes(connection, found)  # with all of them paused
        pause.resume(broker.client, broker.keys, "a")
        assert [message.payload for message in drain(connection, found, 1)] == ["waits"]


def test_depth_tells_queues_apart(broker: Broker, connection: Connection) -> None:
    broker.send(1, 2, queue="a", connection=connection)
    broker.send(3, queue="b", connection=connection, priority=9)
    found = queues.depths(broker.client, broker.keys, ["a", "b", "c"])
    assert [found[name].depth for name in "abc"] == [2, 1, 0]
    assert found["a"].oldest_s is not None
    assert 0 <= found["a"].oldest_s < 60
    assert found["c"] == queues.QueueDepth(0, None)
    assert connection.default_channel.queue_declare("a", passive=True).message_count == 2


def test_purge_leaves_what_workers_have(broker: Broker, connection: Connection) -> None:
    broker.send(*range(5), connection=connection)
    broker.send("later", connection=connection, headers={"id": "x", "eta": in_future(600)})
    with broker.consuming(connection, prefetch=2) as found:
        drain(connection, found, 2)
        assert connection.default_channel.queue_purge(QUEUE) == 4
        assert broker.depth() == queues.QueueDepth(0, None, held=2)
        for message in found:
            message.ack()
    until(lambda: broker.depth().held == 0)


def test_without_acknowledgements_nothing_is_left(broker: Broker, connection: Connection) -> None:
    broker.send(*range(3), connection=connection)
    with broker.consuming(connection, no_ack=True) as found:
        drain(connection, found, 3)
        until(lambda: broker.depth() == queues.QueueDepth(0, None))
    assert broker.depth() == queues.QueueDepth(0, None)


def test_messages_are_got_one_by_one(broker: Broker, connection: Connection) -> None:
    channel = connection.channel()
    queue = Queue(QUEUE, channel=channel)
    assert queue.get() is None
    broker.send("one", "two", "three", connection=connection)
    assert queue.get(no_ack=True).payload == "one"
    message = queue.get()
    assert message.payload == "two"
    assert broker.depth().held == 1
    message.requeue()
    again = queue.get()
    assert (again.payload, again.delivery_info["redelivered"]) == ("two", True)
    again.ack()
    channel.close()
    assert broker.receive(connection, 1) == ["three"]


def test_a_batch_goes_in_one_pipeline(broker: Broker, connection: Connection) -> None:
    producer = Producer(connection.channel())
    with producer.batch(max_size=100):
        for n in range(150):
            producer.publish(n, routing_key=QUEUE, serializer="json")
        producer.publish("d", routing_key=QUEUE, serializer="json", headers={"id": "r", "eta": in_future(60)})
    assert broker.depth().depth == 150
    assert broker.depth().delayed == 1


def test_a_queue_expires_unused(broker: Broker, connection: Connection) -> None:
    queue = Queue(
        "reply", Exchange("replies"), routing_key="reply", expires=30.0, channel=connection.channel()
    )
    queue.declare()
    broker.send("answer", queue="reply", connection=queue.channel.connection.client)
    Producer(queue.channel).publish("answer", exchange="replies", routing_key="reply", serializer="json")
    stream = broker.keys.stream("reply", "normal")
    assert 0 < broker.client.pttl(stream) <= 30_000
    assert queue.get(no_ack=True).payload == "answer"
    left = [
        key
        for key in broker.client.scan_iter(f"{broker.keys.prefix}q:reply:*")
        if broker.client.pttl(key) < 0
    ]
    assert left == []
    queue.delete()
    assert broker.client.exists(stream) == 0


def test_scripts_and_groups_that_are_gone_come_back(broker: Broker, connection: Connection) -> None:
    with broker.consuming(connection) as found:
        for body in ("one", "two"):
            nothing_comes(connection, found)
            broker.client.script_flush()
            for key in broker.client.scan_iter(f"{broker.keys.prefix}q:*"):
                broker.client.delete(key)
            broker.send(body, connection=connection)
            assert [message.payload for message in drain(connection, found, 1)] == [body]
            found.pop().ack()


def test_a_key_of_another_kind_does_not_stop_the_others(
    broker: Broker, connection: Connection, caplog: pytest.LogCaptureFixture
) -> None:
    broker.client.set(broker.keys.stream("a", "high"), "not a stream")
    broker.send("fine", queue="a", connection=connection)
    assert broker.receive(connection, 1, "a") == ["fine"]
    assert "streams that cannot be read" in caplog.text


def test_global_prefix_comes_before_ours(broker: Broker, kind: tuple[str, Any]) -> None:
    connection = broker.connect(kind[1], global_keyprefix="g-")
    broker.send("one", connection=connection)
    assert broker.client.xlen(f"g-{broker.keys.stream(QUEUE, 'normal')}") == 1
    broker.send("later", connection=connection, headers={"id": "x", "eta": in_future(600)})
    producer = Producer(connection.channel())
    with producer.batch(max_size=10):
        producer.publish("two", routing_key=QUEUE, serializer="json")
        producer.publish("d", routing_key=QUEUE, serializer="json", headers={"id": "y", "eta": in_future(60)})
    assert broker.client.zcard(f"g-{broker.keys.delayed(QUEUE)}") == 2
    assert broker.receive(connection, 2) == ["one", "two"]
    assert list(broker.client.scan_iter(f"{broker.keys.prefix}*")) == []
