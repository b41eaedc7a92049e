"""What we rely on inside of Celery. One fails when Celery has changed: see the module that it names."""

from __future__ import annotations

import inspect

from celery import Task, _state
from celery.app import trace
from celery.backends.redis import RedisBackend
from celery.utils.threads import LocalStack
from celery.worker.consumer import Consumer
from celery.worker.request import Request


def test_stacks_ask_a_function_for_their_key() -> None:
    """errands.worker.celery_stacks"""
    stack = LocalStack()
    key = ["a"]
    stack.__ident_func__ = lambda: key[0]
    stack.push(1)
    key[0] = "b"
    assert stack.top is None
    key[0] = "a"
    assert stack.top == 1
    assert hasattr(_state._task_stack, "__ident_func__")


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
