"""How a run is sent: checked, sealed, made a message, and committed with the event that tells of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import celery
import redis
from celery import signals
from celery.result import AsyncResult

from errands.broker.message import Payload, any_payload
from errands.broker.runs import LiveRuns, Reply, Verdict
from errands.core import clock
from errands.core.errors import ActionRefused, InvalidArguments
from errands.core.events import Event, Kind
from errands.core.options import checked
from errands.sending import deadlines, refusals, rules
from errands.sending.calls import Call, somebody_listens, tell_after, tell_before
from errands.sending.membership import batch_of_call, collected
from errands.sending.payloads import Offloading
from errands.sending.plan import Plan
from errands.sending.result import SentResult
from errands.sending.terms import Terms, is_ours, told
from errands.task import Task

logger = logging.getLogger("errands")

# Whoever put something around Celery's own sending (Sentry does) is to be called.
_CELERYS = celery.Task.apply_async
# Of a run that goes on counting its attempts, though the server knows nothing of them.
SENT_AGAIN = "the broker had lost it, and it was sent again"
# Nobody waits for a worker that sends what follows a run; callers do.
_FOLLOW_UP_SECONDS = 30.0
# A bulk that is under way waits out a server that stands still for a moment (to save its data, say).
_BULK_SECONDS = 5.0
_CALLER_SECONDS = 0.23  # the rest of a quarter goes to the last try


class Context(NamedTuple):
    """Who sends: by which plan, past Celery (None: not so), out of which task, and where answers would go."""

    direct: Plan | None
    parent: Any
    reply_to: str


Later = Callable[[], AsyncResult]


class OneCall(Offloading):
    """An app that sends single calls."""

    _plan: Plan | None = None

    if TYPE_CHECKING:
        _live_runs: LiveRuns

    # -- one call

    def send_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: datetime | str | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> AsyncResult:
        """Send a run by the task's name, as Celery does; its arguments are checked by the worker.

        A run whose id is known already is not sent again: a stable id makes a follow-up safe to repeat.

        Raises:
            PayloadTooLarge: the arguments weigh more than `Settings.payload_max`.
            InvalidArguments: of a task that is known here and has secrets, which are sealed here.
            BrokerUnavailable: the broker did not take the message; the text says what that means.
            celery.exceptions.QueueNotFound: there is no such queue.
        """
        ready = self._named(name, args, kwargs, task_id, {"countdown": countdown, "eta": eta, **options})
        return self._send(ready) if isinstance(ready, Call) else ready()

    async def asend_task(
        self,
        name: str,
        args: Any = None,
        kwargs: Any = None,
        countdown: float | None = None,
        eta: datetime | str | None = None,
        task_id: str | None = None,
        **options: Any,
    ) -> AsyncResult:
        """`send_task` for asyncio code: the loop goes on while the broker answers."""
        ready = self._named(name, args, kwargs, task_id, {"countdown": countdown, "eta": eta, **options})
        if not isinstance(ready, Call):
            return await asyncio.to_thread(ready)
        await self._acommit([ready])
        return self._linked(ready, self._result(ready))

    def send_call(
        self, task: Task[..., Any], args: Any, kwargs: Any, task_id: str | None, owner: str | None,
        options: dict[str, Any],
    ) -> AsyncResult:  # fmt: skip
        """Send a call of `task`: what `Task.apply_async` does."""
        ready = self._ready(self.context(), task, args, kwargs, task_id, owner, options)
        return self._send(ready) if isinstance(ready, Call) else ready()

    async def asend_call(
        self, task: Task[..., Any], args: Any, kwargs: Any, task_id: str | None, owner: str | None,
        options: dict[str, Any],
    ) -> AsyncResult:  # fmt: skip
        """`send_call` for asyncio code. Where Celery has to send it, a thread does."""
        call = self.context(), task, args, kwargs, task_id, owner, options
        ready = await asyncio.to_thread(self._ready, *call) if task.rules.offload else self._ready(*call)
        if not isinstance(ready, Call):
            return await asyncio.to_thread(ready)
        await self._acommit([ready])
        return self._linked(ready, self._result(ready))

    # -- from a call to what is committed

    @property
    def plan(self) -> Plan:
        """How this app sends; looked at again when the configuration changes."""
        plan = self._plan
        if plan is None or not plan.holds():
            self.finalize(auto=True)
            plan = self._plan = Plan(self)
        return plan

    def seal(self, task: Task[..., Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """`kwargs` of `task` with its secrets sealed."""
        return task.arguments.seal(kwargs, self.keyring)

    def rules_of_reopening(self, task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
        """What the rules of `task` ask of a run that a person sends again, as JSON."""
        return rules.of_reopening(task, any_payload(args, kwargs))

    def context(self) -> Context:
        """Who sends, and how; the same for all calls that are made in one go."""
        direct = None
        if self._capture is None and not self.settings.inline:
            plan = self.plan
            if plan.direct and not plan.eager and celery.Task.apply_async is _CELERYS:
                direct = plan
        return Context(direct, self.current_worker_task, self.thread_oid)

    def _named(
        self, name: str, args: Any, kwargs: Any, task_id: str | None, options: dict[str, Any]
    ) -> Call | Later:
        """As `_ready`, of a task that is called by its name."""
        # A task that is known here says where it waits, also when it is sent by its name.
        applied = options.pop("task_type", None)  # a call that `Task.apply_async` has checked
        task = applied or self.tasks.get(name)
        if applied is None and getattr(task, "function", None) is not None and task.arguments.secrets:
            args, kwargs = self.prepare(task, args or (), kwargs or {})  # nobody else could seal them
        options = checked(name, options)
        payload = partial(any_payload, args, kwargs) if applied else partial(self.by_name, name, args, kwargs)
        call = self._call(self.context(), name, task, payload, task_id, None, options)
        if call is not None:
            return call
        return partial(self.send_by_celery, name, args, kwargs, task_id=task_id, task_type=task, **options)

    def _ready(
        self, context: Context, task: Task[..., Any], args: Any, kwargs: Any, task_id: str | None,
        owner: str | None, options: dict[str, Any],
    ) -> Call | Later:  # fmt: skip
        """A checked call, or, where Celery has to send it, the function that has it do so."""
        args, kwargs = args or (), kwargs or {}
        if options:
            options = checked(task.name, options)
        try:
            payload = self.checked(task, args, kwargs)
        except InvalidArguments:
            if not options.get("parent_id") or context.parent is None:
                raise
            # A chain goes on, inside the tracer of the run before: its result was not known when the call
            # was written. A misfit must fail the run it belongs to, so the worker finds it there.
            payload = any_payload(args, kwargs)
        if payload.size > self.settings.payload_max and task.rules.offload:
            task_id = task_id or self.new_id()
            payload = self.offloaded(task, payload, task_id)
        call = self._call(context, task.name, task, lambda: payload, task_id, owner, options)
        if call is not None:
            return call
        return partial(self.apply_by_celery, task, payload, task_id, owner, options)

    def _call(
        self, context: Context, name: str, task: Any, payload: Callable[[], Payload], task_id: str | None,
        owner: str | None, options: dict[str, Any],
    ) -> Call | None:  # fmt: skip
        """A call that may go past Celery and kombu; None where it may not."""
        if context.direct is None:
            return None
        content = payload()
        terms = self._terms(context.direct, name, task, content, options, context.parent)
        return None if terms is None else self._made(context, terms, content, task_id, owner)

    def _terms(
        self, plan: Plan, name: str, task: Any, payload: Payload, options: dict[str, Any], parent: Any
    ) -> Terms | None:
        simple = not options
        if simple and (known := plan.terms.get(name)) is not None:
            return cast("Terms", known)
        if task is not None:
            options = {**plan.declared(task), **options}
        if not is_ours(options, self.pool):
            return None
        routed_as, queue = str(options.get("route_name") or name), options.get("queue")
        where = plan.where(routed_as, task, queue, payload.args, payload.kwargs, options)
        if where is None:
            return None
        priority = options.get("priority")
        if priority is None:
            priority = where.options.get("priority")
        inherits = plan.inherits_priority and parent is not None
        if inherits and priority is None and not (options.get("root_id") and options.get("parent_id")):
            priority = (parent.request.delivery_info or {}).get("priority")
        terms = Terms(plan, name, task, options, where.queue, priority)
        if simple and not inherits and plan.same_for_all_calls:
            plan.terms[name] = terms
        return terms

    def _made(
        self, context: Context, terms: Terms, payload: Payload, task_id: str | None, owner: str | None
    ) -> Call:
        parent = context.parent
        now = clock.timestamp()
        errands = self.marks(terms.given_errands, task_id, owner, parent, now, terms.deadline)
        run_id = task_id or self.new_id()
        root_id, parent_id = terms.root_id, terms.parent_id
        batch = batch_of_call(terms.name, errands, parent, parent_id, task_id)
        if batch is not None:
            errands["batch"] = batch.id
            root_id, parent_id = root_id or batch.root_id, parent_id or batch.id
        if parent is not None:
            root_id = root_id or parent.request.root_id or parent.request.id
            parent_id = parent_id or parent.request.id
        root_id = root_id or run_id
        when = terms.when(now, errands.get(deadlines.FIELD))
        message = terms.message(run_id, payload, errands, when, root_id, parent_id, context.reply_to)
        if signals.before_task_publish.receivers:
            tell_before(terms, message, self.amqp.queues[terms.queue])
        event = None
        goes_on = "hop" in errands
        attempts = errands.pop("attempts", None)
        if terms.has_subject and (subject := terms.task.arguments.subject_of(payload.args, payload.kwargs)):
            errands["subject"] = subject
        if terms.is_fair and (tenant := rules.tenant(terms.task, payload.args, payload.kwargs)):
            errands["fair"] = tenant
        if terms.is_run and not goes_on:
            errands["told"] = True  # with the message: the start of its attempts need not tell it again
            event = Event(
                kind=Kind.QUEUED, run_id=run_id, at=now, task=terms.name, queue=terms.queue,
                owner=errands.get("owner"), subject=errands.get("subject"), parent_id=parent_id,
                root_id=root_id, args=list(payload.args), kwargs=payload.kwargs, eta=when.due,
                max_attempts=terms.max_attempts,
                options=told(terms.priority, errands.get("fair")), expires=when.ends,
                attempt=attempts, note=None if attempts is None else SENT_AGAIN,
            )  # fmt: skip
        written = message.encode(terms.queue)
        operation = self._live_runs.putting(
            event, run_id=run_id, queue=terms.queue, priority=terms.priority, message=written,
            due=when.due, wait=when.wait, tenant=errands.get("fair", ""),
            # A stable id makes a follow-up safe to repeat: it is accepted once.
            unless_known=task_id is not None and event is not None,
            rules="" if event is None else rules.of_call(terms, payload, event, batch),
        )  # fmt: skip
        kept = message if somebody_listens() else None
        return Call(terms, run_id, operation, parent, goes_on, len(written), kept)

    # -- committing

    def _send(self, call: Call) -> AsyncResult:
        answered = self._start([call])
        result = self._result(call)  # while the server is at work
        answered()
        if call.duplicate:
            result = self._result(call)
        return self._linked(call, result)

    def _commit(self, calls: list[Call], before: int = 0) -> Sequence[Reply]:
        return self._start(calls, before)()

    def _start(self, calls: list[Call], before: int = 0) -> Callable[[], Sequence[Reply]]:
        """Send `calls` to the broker; what is returned waits for its answer."""
        waiting = collected.get()
        if waiting is not None:
            waiting += calls
            return tuple
        operations = [call.operation for call in calls]
        answered = self._live_runs.start(operations, patience=_patience(calls[0], before))
        return partial(self._finish, calls, before, answered)

    def _finish(
        self, calls: list[Call], before: int, answered: Callable[[], Sequence[Reply]]
    ) -> Sequence[Reply]:
        try:
            replies = answered()
        except redis.RedisError as exc:
            raise refusals.of_broker(exc, calls, before, self.settings.broker_url) from exc
        for task, run_id, first in _committed(calls, replies):
            self.adopt_payload(task, run_id, first)
        return replies

    async def _acommit(self, calls: list[Call], before: int = 0) -> None:
        try:
            replies = await self._live_runs.acommit(
                [call.operation for call in calls], patience=_patience(calls[0], before)
            )
        except redis.RedisError as exc:
            raise refusals.of_broker(exc, calls, before, self.settings.broker_url) from exc
        for duplicate in _committed(calls, replies):
            await asyncio.to_thread(self.adopt_payload, *duplicate)

    def _result(self, call: Call) -> AsyncResult:
        terms = call.terms
        result = (terms.result_cls or self.AsyncResult)(call.run_id)
        result.ignored, result.duplicate = terms.ignore_result, call.duplicate
        return cast("AsyncResult", result)

    def _linked(self, call: Call, result: AsyncResult) -> AsyncResult:
        """`result`, as a child of the run that sent it."""
        if call.parent is not None and call.terms.add_to_parent:
            call.parent.add_trail(result)
        return result

    @cached_property
    def AsyncResult(self) -> Any:
        """The class of results: see `celery.Celery.AsyncResult`."""
        return self.subclass_with_self(SentResult, reverse="AsyncResult")


def _patience(call: Call, before: int) -> float:
    """Seconds to go on trying while the broker is away. `before`: calls of this bulk that it has accepted."""
    if call.terms.patience is not None:
        return max(call.terms.patience, _CALLER_SECONDS)
    if before:
        return _BULK_SECONDS
    follows = call.parent is not None and (call.goes_on or call.terms.parent_id)
    return _FOLLOW_UP_SECONDS if follows else _CALLER_SECONDS


def _committed(calls: list[Call], replies: Sequence[Reply]) -> list[tuple[Any, str, str]]:
    """Take the server's answer. Returns the duplicates: the task, the id of the request, that of the run."""
    duplicates = []
    for call, reply in zip(calls, replies, strict=True):
        if reply.verdict is Verdict.DUPLICATE:
            logger.info("%s[%s] is the same work as %s", call.terms.name, call.run_id, reply.about)
            if call.terms.task.rules.offload:
                duplicates.append((call.terms.task, call.run_id, reply.about))
            call.run_id, call.duplicate = reply.about, True
        elif reply.verdict is Verdict.KNOWN:
            logger.info("%s[%s] is known already and is not sent again", call.terms.name, call.run_id)
        elif reply.verdict is Verdict.REFUSED:
            raise ActionRefused(f"{call.terms.name}[{call.run_id}] was not sent: {reply.about}")
        elif call.message is not None:
            tell_after(call)
    return duplicates
