"""What RabbitMQ says to a message, the caller hears."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from kombu import Connection, Queue

from errands import Errands, Settings
from errands.core.errors import BrokerUnavailable

NARROW = {"x-max-length": 1, "x-overflow": "reject-publish"}


@pytest.fixture
def app(tmp_path: Path, rabbitmq_url: str, valkey_url: str, key_prefix: str) -> Iterator[Errands]:
    settings = Settings(
        home=tmp_path,
        broker_url=rabbitmq_url,
        valkey_url=valkey_url,
        result_url=valkey_url,
        key_prefix=key_prefix,
    )
    app = Errands("ours", settings=settings, set_as_current=False)
    name = key_prefix.replace(":", "-")
    app.conf.task_queues = [Queue(name, queue_arguments=NARROW)]
    app.conf.task_default_queue = name

    @app.task(name="add")
    def add() -> None: ...

    yield app
    with Connection(rabbitmq_url) as connection:
        connection.default_channel.queue_delete(name)
    app.close()


def test_a_message_that_a_full_queue_refuses_is_an_error(app: Errands) -> None:
    add = app.tasks["add"]
    first = add.delay()
    with pytest.raises(BrokerUnavailable, match=r"add was not sent: the broker at .* refused it"):
        add.delay()
    with app.connection_for_read() as connection:
        queue = app.amqp.queues[app.conf.task_default_queue]
        message = queue(connection.default_channel).get(no_ack=True)
        assert message is not None
        assert message.headers["id"] == first.id
