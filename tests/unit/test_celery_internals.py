"""What we rely on inside of Celery. One fails when Celery has changed: see the module that it names."""

from __future__ import annotations

import inspect
from contextvars import Context, copy_context
from typing import Any

from celery import Task, _state
from celery.app import trace
from celery.backends.redis import RedisBackend
from celery.utils.saferepr import saferepr
from celery.utils.threads import LocalStack
from celery.worker.consumer import Consumer
from celery.worker.request import Request
from kombu.asynchronous import Hub

from errands.worker import celery_repr
from errands.worker.celery_stacks import share_stack
from errands.worker.pool.hub import descriptor


def test_stacks_keep_what_they_hold_in_an_attribute_of_their_local() -> None:
    """errands.worker.celery_stacks"""
    stack = LocalStack()
    share_stack(stack)
    stack.push(1)
    beside = copy_context()
    beside.run(stack.push, 2)
    assert (stack.top, stack.stack, len(stack)) == (
        2,
        [1, 2],
        2,
    )  # what began here sees, and shares, the stack
    elsewhere = Context()
    assert elsewhere.run(lambda: (stack.top, stack.stack)) == (None, [])
    elsewhere.run(stack.push, 3)
    assert stack.pop() == 2
    assert stack.pop() == 1
    assert (stack.top, stack.pop()) == (None, None)
    assert elsewhere.run(lambda: stack.top) == 3
    assert isinstance(_state._task_stack._local, type(stack._local))


def test_the_tracer_tells_the_end_after_storing_the_result() -> None:
    """errands.worker.settling: `after_return` for all ends but retries, `on_retry` for those."""
    source = inspect.getsource(trace.build_tracer)
    assert source.index("mark_as_done") < source.index("task_after_return(\n")
    assert trace.RETRY in trace.IGNORE_STATES
    assert "task.on_retry(" in inspect.getsource(trace.TraceInfo.handle_retry)
    assert "self.task.after_return(" in inspect.getsource(Request.on_timeout)


def test_the_consumer_has_the_doors_we_stand_in() -> None:
    """errands.worker.consumer"""
    for name in (
        "create_task_handler", "on_unknown_message", "on_unknown_task", "on_invalid_task", "on_decode_error",
    ):  # fmt: skip
        assert callable(getattr(Consumer, name))


def test_a_task_is_told_when_it_is_bound_before_retries_wrap_it() -> None:
    """errands.task.Task.on_bound"""
    from celery.app.base import Celery

    source = inspect.getsource(Celery._task_from_fun)
    assert source.index("task.bind(self)") < source.index("add_autoretry_behaviour(")
    assert "cls.on_bound(app)" in inspect.getsource(Task.bind)


def test_a_channel_reads_its_queue_by_a_client_of_its_own() -> None:
    """errands.broker.lists"""
    from kombu.transport import redis as stock

    assert "self._get_client()" in inspect.getsource(stock.Channel.__init__)
    source = inspect.getsource(stock.Channel._brpop_read)
    assert "self.client.parse_response(" in source
    assert "'BRPOP'" in source


def test_waiting_subscribes_by_itself() -> None:
    """errands.broker.results"""
    assert "consume_from" in inspect.getsource(RedisBackend.on_task_call)
    from celery.backends.asynchronous import AsyncBackendMixin

    assert "consume_from" in inspect.getsource(AsyncBackendMixin._add_pending_result)


def test_sending_past_celery_says_all_that_celery_says() -> None:
    """errands.sending: new options, headers or steps of Celery's are to be looked at."""
    from celery.app import task as task_module
    from celery.app.amqp import AMQP
    from celery.app.base import Celery

    from errands.sending.plan import _DECLARED
    from errands.sending.terms import _OURS

    declared = inspect.getclosurevars(task_module.extract_exec_options).nonlocals["attrs"]
    assert set(_DECLARED) == {*declared, "ignore_result"}
    known = {*_OURS, "self", "task_id", "name", "args", "kwargs", "options"}
    written = set(inspect.signature(AMQP.as_task_v2).parameters)
    assert written - known == {"create_sent_event", "callbacks", "errbacks", "now", "timezone"}
    sent = set(inspect.signature(Celery.send_task).parameters)
    assert sent - known == {"connection", "router", "publisher"}


def test_a_producer_of_the_apps_own_pool_is_known_by_its_connection() -> None:
    """errands.sending.terms: groups hand one on to each of their members."""
    from celery import Celery

    app = Celery("pool", broker="memory://", set_as_current=False)
    with app.producer_pool.acquire(block=True) as producer:
        assert producer.connection._pool is app.pool


def test_a_result_asks_for_its_backend_by_one_attribute() -> None:
    """errands.sending.result"""
    from celery.result import AsyncResult

    assert "self.backend" in inspect.getsource(AsyncResult.__del__)
    names = set(inspect.signature(AsyncResult.__init__).parameters)
    assert names == {"self", "id", "backend", "task_name", "app", "parent"}


def test_what_was_configured_later_lies_on_top() -> None:
    """errands.sending.plan: it looks whether `changes` is still the same."""
    from celery import Celery

    app = Celery("changes", set_as_current=False)
    before = dict(app.conf.changes)
    app.conf.task_compression = "zlib"
    assert app.conf.changes != before
    app.conf.update(task_compression=None)
    assert app.conf.changes["task_compression"] is None


def _message(**headers: object) -> Any:
    from kombu import Message

    return Message(
        body='[[1, 2], {"a": 3}, {"callbacks": null, "errbacks": null, "chain": null, "chord": null}]',
        content_type="application/json",
        content_encoding="utf-8",
        headers={"task": "t", "id": "1", "root_id": "1", "argsrepr": "(1, 2)", "kwargsrepr": "{}", **headers},
        properties={"reply_to": "r", "correlation_id": "1", "priority": 3},
        delivery_info={"exchange": "", "routing_key": "q", "redelivered": True},
    )


def test_a_lean_request_is_celerys_request() -> None:
    """errands.worker.request: it sets what Celery's `__init__` sets, under the same names."""
    from celery.app.task import Context

    from errands import Errands
    from errands.worker.request import Request as Ours

    app = Errands("lean", set_as_current=False)

    @app.task(name="t")
    def task(x: int, y: int, a: int) -> None: ...

    app.finalize()
    for headers in ({}, {"timelimit": [9, 8], "ignore_result": True, "shadow": "s", "errands": {"hop": 2}}):
        message = _message(**headers)
        ack, reject = object(), object()
        celerys = Request(
            message, on_ack=ack, on_reject=reject, hostname="h", app=app, connection_errors=(OSError,),
            task=app.tasks["t"],
        )  # fmt: skip
        ours = Ours.lean(
            message, message.headers, message.payload, task=app.tasks["t"], hostname="h", eventer=None,
            connection_errors=(OSError,), on_ack=ack, on_reject=reject,
        )  # fmt: skip
        hidden = ("__weakref__", "__dict__", "__payload", "time_limits")  # which is a property of ours
        names = {name for name in Request.__slots__ if name not in hidden}
        names = {*names, "_Request__payload", *vars(celerys)} - {"time_limits"}
        unset = object()
        # Found out by us, and by the tracer's Context in Celery's own way: those that the sender added.
        added = ours._request_dict.pop("headers")
        assert added == Context(celerys._request_dict).headers
        different = [name for name in names if getattr(ours, name, unset) != getattr(celerys, name, unset)]
        assert different == []
        assert tuple(ours._limits) == tuple(celerys.time_limits)
        assert ours.info() == celerys.info()
        assert ours._payload == celerys._payload


def test_the_tracer_takes_decoded_arguments_when_no_content_type_is_told() -> None:
    """errands.worker.request"""
    for function in (trace.fast_trace_task, trace.trace_task_ret):
        assert "args, kwargs, embed = body" in inspect.getsource(function)


def test_a_pool_is_called_as_ours_expects() -> None:
    """errands.worker.pool.task_pool"""
    from celery.concurrency.base import BasePool
    from celery.worker.components import Pool

    source = inspect.getsource(Pool.create)
    for word in ("semaphore=semaphore", "initargs=(w.app, w.hostname)", "soft_timeout=w.soft_time_limit"):
        assert word in source
    assert "w.pool_cls.uses_semaphore" in source
    assert "self.on_apply(target, args, kwargs," in inspect.getsource(BasePool.apply_async)
    assert "self._apply_result()" in inspect.getsource(Request.terminate)
    assert "pool.terminate_job(self.worker_pid, signal)" in inspect.getsource(Request.cancel)


def test_a_hub_can_be_told_something_from_another_thread() -> None:
    """errands.worker.pool, errands.worker.stopping: `call_soon` wakes the hub."""
    from kombu.asynchronous.hub import Hub

    assert "waker.wake()" in inspect.getsource(Hub.call_soon)


def test_a_message_of_a_closed_channel_raises_an_attribute_error() -> None:
    """errands.worker.consumer.Settle: kombu looks for the host's name of a connection that is gone."""
    from kombu.transport import redis as stock

    source = inspect.getsource(stock.Channel._connparams)
    assert "conninfo = self.connection.client" in source
    assert "conninfo.hostname" in source
    assert "self.closed = True" in inspect.getsource(stock.virtual.Channel.close)


def test_stopping_finds_what_has_not_begun() -> None:
    """errands.worker.stopping"""
    from celery.worker import state
    from kombu.asynchronous.semaphore import LaxBoundedSemaphore
    from kombu.utils.limits import TokenBucket

    assert Request._eta_timer_entry is None
    assert Request.time_start is None
    assert callable(LaxBoundedSemaphore.clear)
    assert callable(TokenBucket.clear_pending)
    assert {"reserved_requests", "scheduled_requests", "active_requests"} <= set(vars(state))
    assert "bucket.add((request, tokens))" in inspect.getsource(Consumer._limit_task)
    assert callable(Consumer.cancel_active_requests)


def test_waiting_to_connect_looks_whether_the_worker_is_to_stop() -> None:
    """errands.worker.consumer.Consumer.ensure_connected"""
    from kombu import Connection

    wanted = {"errback", "max_retries", "interval_start", "interval_step", "interval_max", "callback"}
    assert wanted <= set(inspect.signature(Connection._ensure_connection).parameters)


def test_a_redis_connection_makes_its_socket_in_one_place() -> None:
    """errands.broker.green"""
    import redis
    from redis.connection import AbstractConnection

    for kind in (redis.Connection, redis.SSLConnection, redis.UnixDomainSocketConnection):
        assert "_connect" in vars(kind)
    assert "self._connect()" in inspect.getsource(AbstractConnection.connect_check_health)


def test_the_hub_takes_another_poller_and_its_own_has_a_descriptor() -> None:
    """errands.worker.pool.hub"""
    hub = Hub()
    try:
        poller = hub.poller
        assert descriptor(poller) is not None
        hub.poller = other = object()
        assert hub.poller is other
        hub.poller = poller
    finally:
        hub.close()
    assert "poll = self.poller.poll" in inspect.getsource(Hub.create_loop)
    assert "not hasattr(self, 'loop')" in inspect.getsource(Consumer.__init__)


def test_the_tracer_asks_its_module_how_to_describe_a_result() -> None:
    """errands.worker.celery_repr"""
    assert "Rstr = saferepr(R, resultrepr_maxsize)" in inspect.getsource(trace.build_tracer)
    assert trace.saferepr is celery_repr.saferepr
    for value in (
        None,
        True,
        False,
        0,
        -7,
        1.5,
        float("inf"),
        10**30,
        "text",
        "x" * 5000,
        {"a": [1]},
        b"\x00",
    ):
        for most in (None, 10, 1024):
            assert celery_repr.saferepr(value, most) == saferepr(value, most), value
