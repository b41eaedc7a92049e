"""What the transport relies on inside of kombu. One fails when kombu has changed: see the module it names."""

from __future__ import annotations

import inspect
from types import SimpleNamespace

from kombu import Connection
from kombu.transport import redis as stock
from kombu.transport import virtual

from errands.broker.transport import Transport


def test_the_poller_asks_the_channel_to_read() -> None:
    """errands.broker.streams.consuming"""
    poller = stock.MultiChannelPoller
    assert "channel._brpop_start()" in inspect.getsource(poller._register_BRPOP)
    assert "channel._in_poll" in inspect.getsource(poller._register_BRPOP)
    assert "chan.handlers[type]()" in inspect.getsource(poller.on_readable)
    assert "'BRPOP': self._brpop_read" in inspect.getsource(stock.Channel.__init__)
    assert "_brpop_sent_at" in inspect.getsource(poller.maybe_check_brpop_health)
    disconnect = inspect.getsource(stock.Channel._connparams)
    assert "channel._on_connection_disconnect(self)" in disconnect


def test_a_channel_gives_out_its_clients_in_one_place() -> None:
    """errands.broker.streams.channel: `conn_or_acquire`, `_disconnect_pools`, `_after_fork`"""
    assert "self._create_client()" in inspect.getsource(stock.Channel.conn_or_acquire)
    assert "self._disconnect_pools()" in inspect.getsource(stock.Channel._after_fork)
    assert "channel.conn_or_acquire()" in inspect.getsource(stock.PublishBatch.__init__)
    assert "_sentinel_manager" in inspect.getsource(stock.SentinelChannel._sentinel_managed_pool)


def test_a_batch_is_handed_to_put() -> None:
    """errands.broker.streams.channel: `_put`"""
    assert "_publish_batch=self" in inspect.getsource(stock.PublishBatch.publish)
    assert "getattr(self.pipeline, name)(*args)" in inspect.getsource(stock.PublishBatch.publish)


def test_the_prefetch_limit_is_kept_as_we_know_it() -> None:
    """errands.broker.streams.qos"""
    qos = virtual.QoS(SimpleNamespace(do_restore=False))
    qos.append(SimpleNamespace(), "tag")
    assert list(qos._delivered) == ["tag"]
    qos._quick_ack("tag")
    assert qos._dirty == {"tag"}
    qos._flush()
    assert not qos._delivered
    assert callable(qos._on_collect.cancel)


def test_celery_looks_at_the_channel_before_each_message() -> None:
    """errands.broker.streams.delivering: `_credit`"""
    from celery.worker.consumer import tasks

    assert "channel_qos.can_consume = MethodType" in inspect.getsource(tasks.Tasks.start)


def test_the_next_address_is_chosen_by_its_scheme() -> None:
    """errands.broker.transport: `Alternates`"""
    connection = Connection("redis://a:1/0;redis://b:2/0", transport=Transport)
    assert type(connection.transport) is Transport
    connection.maybe_switch_next()
    assert connection.hostname == "b"
    assert type(connection.transport) is Transport
    connection.maybe_switch_next()
    assert connection.hostname == "a"
