"""Queues that stay in the lists of kombu's own transport."""

from __future__ import annotations

import time

import redis
from kombu import Connection, Consumer, Producer, Queue

from errands import Errands, Settings
from errands.broker.list_depths import list_depths
from errands.broker.queues import QueueDepth
from errands.broker.transport import celery_broker
from errands.core.events import Event, Kind
from streams import drain


def test_an_entry_that_is_no_message_is_a_dead_letter(
    valkey_url: str, valkey: redis.Redis, key_prefix: str
) -> None:
    app = Errands("lists", settings=Settings(broker_url=f"stock+{valkey_url}", key_prefix=key_prefix))
    app.set_current()
    url, transport = celery_broker(f"stock+{valkey_url}")
    with Connection(url, transport=transport) as connection:
        found: list[object] = []
        channel = connection.channel()
        valkey.lpush("letters", "nonsense")
        Producer(channel).publish("good", routing_key="letters", serializer="json")
        with Consumer(channel, [Queue("letters")], on_message=found.append):
            drain(connection, found, 1)
    entries = [Event.from_json(fields[b"e"]) for _, fields in valkey.xrange(app.keys.events)]
    (letter,) = [event for event in entries if event.kind is Kind.DEAD_LETTER]
    assert letter.queue == "letters"
    assert letter.note is not None
    assert letter.note.startswith("the entry in the queue is no message: ")


def test_depth_counts_all_priorities(valkey_url: str, valkey: redis.Redis) -> None:
    with Connection(valkey_url) as connection:
        producer = Producer(connection.channel(), routing_key="letters", serializer="json")
        for priority in (0, 3, 9):
            headers = {"errands": {"queued_at": time.time() - 60}} if priority == 3 else {}
            producer.publish("x", priority=priority, headers=headers)
    found = list_depths(valkey, ["letters", "none"])
    assert found["none"] == QueueDepth(0, None)
    assert found["letters"].depth == 3
    assert found["letters"].oldest_s is not None
    assert 59 < found["letters"].oldest_s < 120
