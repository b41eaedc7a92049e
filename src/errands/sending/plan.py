"""What the configuration says about sending, looked up once and not at each call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import celery
from celery.app.amqp import AMQP
from celery.app.routes import MapRoute
from kombu.entity import Queue as BrokerQueue

from errands.defaults import route as route_by_rules

if TYPE_CHECKING:
    from errands.sending.one import OneCall

# What Celery's tasks may declare about their messages: `celery.app.task.extract_exec_options`.
_DECLARED = (
    "queue", "routing_key", "exchange", "priority", "expires", "serializer", "delivery_mode", "compression",
    "time_limit", "soft_time_limit", "immediate", "mandatory", "ignore_result",
)  # fmt: skip
_OURS = "errands.broker.transport:Transport"


class Where(NamedTuple):
    """Where a call goes: the queue, and what else the routes say of its message (a priority, say)."""

    queue: str
    options: dict[str, Any]


class Plan:
    """How an app sends, as long as its configuration stays as it is.

    Attributes:
        direct: messages are written by `errands.broker.message` and go to the broker with the event that
            tells of them. Otherwise (another broker or serializer, another server for the events, …) Celery
            sends them.
        eager: Celery is told to run tasks in the caller's process.
        same_for_all_calls: where a call goes depends on the task's name and on the options alone.
        terms: kept here by who sends: what all calls of a task without options have in common.
    """

    def __init__(self, app: OneCall) -> None:
        conf = app.conf
        self._conf, self._changes = conf, dict(conf.changes)
        self.eager = bool(conf.task_always_eager)
        self.inherits_priority = bool(conf.task_inherit_parent_priority)
        self.delivery_mode = 1 if conf.task_default_delivery_mode in (1, "transient") else 2
        self.direct = _is_direct(app)
        self.signer = app.signer
        self.terms: dict[str, Any] = {}
        self._app = app
        self._declared: dict[str, dict[str, Any]] = {}
        self.same_for_all_calls = all(
            isinstance(router, MapRoute) or router is route_by_rules for router in app.amqp.routes
        )
        self._known: dict[tuple[str, str | None], Where | None] = {}

    def holds(self) -> bool:
        """Whether the configuration is still the one that was looked at."""
        return self._app.conf is self._conf and self._conf.changes == self._changes

    def where(
        self, name: str, task: Any, queue: Any, args: Any, kwargs: Any, options: dict[str, Any]
    ) -> Where | None:
        """Where a call of `name` goes; None where it is Celery that has to find out.

        Args:
            queue: the queue that the caller names (a name or kombu's Queue), if any.
            options: all the caller's options, which routers may look at.

        Raises:
            celery.exceptions.QueueNotFound: there is no such queue.
        """
        if not self.same_for_all_calls or not (queue is None or isinstance(queue, str)):
            return self._route(name, task, dict(options), args, kwargs)
        key = (name, queue)
        if key not in self._known:
            found = self._route(name, task, {} if queue is None else {"queue": queue}, (), {})
            if len(self._known) > 10_000:  # names of queues or tasks that somebody makes up as they go
                self._known.clear()
            self._known[key] = found
        return self._known[key]

    def declared(self, task: Any) -> dict[str, Any]:
        """The options that `task` gives to each of its messages; the class of its results, if it has one."""
        found = self._declared.get(task.name)
        if found is None:
            found = {key: value for key in _DECLARED if (value := getattr(task, key, None)) is not None}
            made = type(task).AsyncResult is not celery.Task.AsyncResult
            if made or task.backend is not self._app.backend:
                found["result_cls"] = task.AsyncResult
            self._declared[task.name] = found
        return found

    def _route(self, name: str, task: Any, options: dict[str, Any], args: Any, kwargs: Any) -> Where | None:
        given = dict(options)
        routed = self._app.amqp.router.route(options, name, args, kwargs, task)
        queue = routed.pop("queue", None)
        routed.pop("routing_key", None)  # a direct queue is reached by its name
        more = {key: value for key, value in routed.items() if value is not None and given.get(key) != value}
        if not isinstance(queue, BrokerQueue) or more.keys() - {"priority"}:
            return None
        exchange = queue.exchange
        return Where(queue.name, more) if exchange is None or exchange.type == "direct" else None


def _is_direct(app: OneCall) -> bool:
    """Whether messages may go past kombu: nobody between us and the stream would have had a say."""
    conf = app.conf
    noted = getattr(type(app.backend), "on_task_call").__module__  # noqa: B009 - a method of any backend
    return (
        not app.settings.inline
        and conf.broker_transport == _OURS
        and _server(conf.broker_write_url or conf.broker_url) == _server(app.settings.valkey_url)
        and (conf.broker_transport_options or {}).get("key_prefix") == app.settings.key_prefix
        and conf.task_protocol == 2
        and conf.task_serializer == "json"
        and not conf.task_compression
        and not conf.task_send_sent_event  # Celery's dispatcher sends those
        and type(app.amqp) is AMQP
        # A backend that has to know of each call (rpc://) is told by Celery.
        and (noted == "celery.backends.base" or noted.startswith("errands."))
    )


def _server(url: str) -> str:
    """The address of a server, whether kombu or redis-py reads it."""
    return url.replace("redis+socket://", "unix://", 1)
