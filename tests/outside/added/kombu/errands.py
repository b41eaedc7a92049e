"""What kombu's Redis tests are about, where they look inside of stock's transport: asked from outside.

- Priorities in Celery's and RabbitMQ's order, 9 first; in `test_redis.py` 0 is first.
- Queues that expire unused, by whatever keys they are kept in; `test_redis.py` looks at stock's lists.
- A message held by a connection that closes; `test_redis.py` looks at stock's hash of such messages.
"""

import os
import time
from uuid import uuid4

import kombu
import pytest
import redis
from t.integration.common import BasePriority


@pytest.fixture(params=[None, {"global_keyprefix": "_prefixed_"}])
def connection(request):
    url = f"redis://{os.environ['REDIS_HOST']}:{os.environ['REDIS_6379_TCP']}"
    return kombu.Connection(url, transport_options=request.param)


@pytest.fixture
def client():
    with redis.Redis(os.environ["REDIS_HOST"], int(os.environ["REDIS_6379_TCP"])) as found:
        yield found


@pytest.fixture
def name():
    return f"q-{uuid4().hex}"


def keys_of(client, name):
    """All keys that hold messages of a queue; what kombu notes of bindings stays for a while."""
    return [key for key in client.scan_iter(f"*{name}*") if b"_kombu.binding" not in key]


def until(condition, seconds=15):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.02)


class test_ErrandsPriority(BasePriority):
    # Unlike the suite's class for Redis, its base class wants one `drain_events()` to deliver all that waits.
    PRIORITY_ORDER = "asc"

    def test_published_in_a_batch(self, connection, name):
        queue = kombu.Queue(name, routing_key=name, max_priority=10)
        with connection as conn, conn.channel() as channel:
            producer = kombu.Producer(channel, serializer="json")
            with producer.batch():
                for word, priority in (("first", 3), ("second", 9), ("third", 3)):
                    producer.publish(word, routing_key=name, declare=[queue], priority=priority)

            got = [queue(channel).get(no_ack=True).payload for _ in range(3)]

        assert got == ["second", "first", "third"]


class test_ErrandsQueueExpiration:
    EXPIRES = 2.0

    def put(self, channel, queue, priority=None):
        kombu.Producer(channel, serializer="json").publish(
            "a", routing_key=queue.name, declare=[queue], priority=priority
        )

    def test_all_its_keys_expire_and_go(self, connection, client, name):
        queue = kombu.Queue(name, routing_key=name, expires=self.EXPIRES, max_priority=10)
        with connection as conn, conn.channel() as channel:
            for priority in (0, 3, 6, 9):
                self.put(channel, queue, priority)

        keys = keys_of(client, name)
        assert len(keys) >= 2
        assert all(0 < client.pttl(key) <= self.EXPIRES * 1000 for key in keys)
        until(lambda: not keys_of(client, name))

    @pytest.mark.parametrize("use", ["put", "get"])
    def test_use_begins_the_time_anew(self, connection, client, name, use):
        queue = kombu.Queue(name, routing_key=name, expires=60)
        with connection as conn, conn.channel() as channel:
            self.put(channel, queue)
            self.put(channel, queue)
            for key in keys_of(client, name):
                client.pexpire(key, 30_000)
            if use == "put":
                self.put(channel, queue)
            else:
                queue(channel).get(no_ack=True)

            assert max(client.pttl(key) for key in keys_of(client, name)) > 50_000


class test_ErrandsGivenBack:
    def test_when_its_connection_closes(self, connection, name):
        queue = kombu.Queue(name, routing_key=name)
        with connection.clone() as conn, conn.channel() as channel:
            kombu.Producer(channel, serializer="json").publish("a", routing_key=name, declare=[queue])
            held = queue(channel).get()
            assert queue(channel).get() is None

        with connection.clone() as conn, conn.channel() as channel:
            again = queue(channel).get(no_ack=True)

            assert again.payload == held.payload
            assert again.headers["redelivered"] is True
            assert queue(channel).get(no_ack=True) is None
