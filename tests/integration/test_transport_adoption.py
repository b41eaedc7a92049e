"""Messages that a stock producer has put into lists go on as ours do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone

import pytest
from kombu import Connection, Producer

from errands.broker.transport import Transport
from streams import QUEUE, Broker, drain, nothing_comes


class Quick(Transport):
    brpop_timeout = 0.2


@pytest.fixture
def broker(valkey_url: str, key_prefix: str) -> Iterator[Broker]:
    made = Broker(valkey_url, key_prefix)
    yield made
    made.close()


@pytest.fixture
def producer(valkey_url: str) -> Iterator[Producer]:
    with Connection(valkey_url) as connection:  # kombu's own transport
        yield Producer(connection.channel(), routing_key=QUEUE, serializer="json")


def test_a_stock_producers_messages_are_taken_over(broker: Broker, producer: Producer) -> None:
    for n in range(150):
        producer.publish(n)
    assert broker.client.llen(QUEUE) == 150
    assert broker.receive(broker.connect(Quick), 150) == list(range(150))
    assert broker.client.exists(QUEUE) == 0


def test_their_priority_is_the_one_they_say(broker: Broker, producer: Producer) -> None:
    for priority in (1, 0, 4, 9):
        producer.publish(priority, priority=priority)
    connection = broker.connect(Quick)
    with broker.consuming(connection, "elsewhere"):
        broker.upkeep().holdings.queues.add(QUEUE)
        broker.upkeep().round()
    assert broker.receive(connection, 4) == [9, 0, 4, 1]


@pytest.mark.parametrize("hours", [0, 2, -9.5])
def test_what_is_not_due_is_delayed(broker: Broker, producer: Producer, hours: float) -> None:
    zone = timezone(timedelta(hours=hours))
    due = datetime.now(zone).replace(microsecond=250_000) + timedelta(days=40)
    producer.publish("later", headers={"id": "run-1", "eta": due.isoformat()})
    producer.publish("past", headers={"id": "run-2", "eta": (due - timedelta(days=80)).isoformat()})
    connection = broker.connect(Quick)
    assert broker.receive(connection, 1) == ["past"]
    score = broker.client.zscore(broker.keys.delayed(QUEUE), "run-1")
    assert score == due.timestamp() * 1000


def test_what_cannot_be_read_is_a_dead_letter(broker: Broker) -> None:
    broker.client.lpush(QUEUE, b"\xff no message")
    connection = broker.connect(Quick)
    with broker.consuming(connection) as found:
        nothing_comes(connection, found)
        deadline = time.monotonic() + 10
        while not broker.depth().dead:
            assert time.monotonic() < deadline
            nothing_comes(connection, found)


def test_lists_are_left_alone_when_told_so(broker: Broker, producer: Producer) -> None:
    producer.publish("mine")
    broker.send("ours")
    connection = broker.connect(Quick, adopt_lists=False)
    with broker.consuming(connection) as found:
        assert [message.payload for message in drain(connection, found, 1)] == ["ours"]
        broker.upkeep().round(sweep=True)
    assert broker.client.llen(QUEUE) == 1


def test_lists_under_kombus_prefix_are_taken_over(broker: Broker, valkey_url: str) -> None:
    with Connection(valkey_url, transport_options={"global_keyprefix": "g-"}) as stock:
        Producer(stock.channel()).publish("theirs", routing_key=QUEUE, serializer="json")
    assert broker.receive(broker.connect(Quick, global_keyprefix="g-"), 1) == ["theirs"]
