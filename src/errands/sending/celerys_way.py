"""What does not go straight to our broker: Celery sends it, or it stays in this process.

Celery sends where another broker, an exchange, a serializer or a compression is asked for, or where somebody
has put something around Celery's own sending. In inline mode runs are run at once; tests may catch them.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime
from typing import TYPE_CHECKING, Any

import celery
import celery.exceptions
import kombu.exceptions
import redis
import uuid_utils
from amqp.exceptions import MessageNacked
from celery.result import AsyncResult
from celery.utils.time import maybe_make_aware

from errands.broker.message import Payload, text_of
from errands.core import clock
from errands.core.errors import ActionRefused
from errands.core.events import Event, Kind
from errands.core.options import moment_of
from errands.core.secrets import Keyring
from errands.core.signing import Signer
from errands.sending import claims, deadlines, refusals, rules, unique
from errands.sending.membership import NotDirect, batch_of_call, collected
from errands.sending.terms import told
from errands.settings import Settings
from errands.task import Task
from errands.worker.celery_stacks import present_task
from errands.worker.host import RunLog
from errands.worker.inline_claims import Claims
from errands.worker.starting import envelope_of

logger = logging.getLogger("errands")

# For RabbitMQ's word that it has a message; kombu asks twice.
_CONFIRM_SECONDS = 2.0
_owner: ContextVar[str | None] = ContextVar("errands_owner", default=None)


class CelerysWay(celery.Celery):
    """Celery, with ids that sort by time, owners, and events that tell of what was sent."""

    settings: Settings
    keyring: Keyring
    signer: Signer | None
    _capture: list[dict[str, Any]] | None = None
    _captured_claims: Claims | None = None

    if TYPE_CHECKING:

        @property
        def live(self) -> RunLog: ...

        @property
        def batches(self) -> Any: ...

        def adopt_payload(self, task: Any, run_id: str, by: str) -> None: ...

    # -- what every run carries

    @contextmanager
    def acting_as(self, owner: str | None) -> Iterator[None]:
        """Runs sent inside the block belong to `owner`."""
        token = _owner.set(owner)
        try:
            yield
        finally:
            _owner.reset(token)

    def act_as(self, owner: str | None) -> None:
        """Runs sent from now on in this context (a web request, say) belong to `owner`."""
        _owner.set(owner)

    @property
    def current_worker_task(self) -> Any:
        """The task at work that sends, if one does: see `celery.Celery.current_worker_task`."""
        return present_task()

    @staticmethod
    def new_id() -> str:
        """A new run id: UUIDv7 (RFC 9562), so that ids sort by time."""
        return str(uuid_utils.uuid7())

    def marks(
        self, given: Any, task_id: str | None, owner: str | None, parent: Any, now: float,
        deadline: float | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """The header `errands`: whose the run is, when it was sent, and how often it was sent on.

        Args:
            given: the same header, where it is there already.
            parent: the task that sends, if one does.
            deadline: seconds that a new run has from now.
        """
        known = dict(given or {})
        mine = envelope_of(parent.request) if parent is not None else {}
        owner = owner or known.get("owner") or _owner.get() or mine.get("owner")
        if owner is not None:
            known["owner"] = str(owner)
        if (subject := known.get("subject") or mine.get("subject")) is not None:
            known["subject"] = (
                subject  # what follows a run is about the same person, unless it says otherwise
            )
        goes_on = parent is not None and task_id is not None and parent.request.id == task_id
        if goes_on and not known.get("copy"):
            # A retry, a snooze, a replacement: the same run goes on, and older messages of it are stale.
            known["hop"] = int(mine.get("hop", 0)) + 1
        elif deadline is not None:
            known.setdefault(deadlines.FIELD, round(now + deadline, 3))
        known["queued_at"] = round(now, 3)
        return known

    def envelope(
        self, given: Any, task_id: str | None, owner: str | None, deadline: float | None = None
    ) -> dict[str, Any]:
        """The message's headers, `marks` among them."""
        headers: dict[str, Any] = dict(given or {})
        parent, now = self.current_worker_task, clock.timestamp()
        headers["errands"] = self.marks(headers.get("errands"), task_id, owner, parent, now, deadline)
        return headers

    # -- Celery sends it

    def producer_or_acquire(self, producer: Any = None) -> Any:
        """As Celery's, through which it sends all tasks; with signing keys, a producer that signs."""
        acquired = super().producer_or_acquire(producer)
        if self.signer is None:
            return acquired
        from errands.sending.signed import signing

        return signing(acquired, self.signer)

    def apply_by_celery(
        self, task: Task[..., Any], payload: Payload, task_id: str | None, owner: str | None, options: Any
    ) -> AsyncResult:
        """Have a checked call of `task` sent by Celery, or run, or caught."""
        args, kwargs = payload.args, payload.kwargs
        if task.arguments.secrets:
            options.setdefault("argsrepr", text_of(args, payload.args_json))
            options.setdefault("kwargsrepr", text_of(kwargs, payload.kwargs_json))
        seconds = deadlines.seconds_of(task.name, task, options)
        options["headers"] = self.envelope(options.get("headers"), task_id, owner, seconds)
        if (subject := task.arguments.subject_of(args, kwargs)) is not None:
            options["headers"]["errands"]["subject"] = subject
        if self.settings.inline or self.is_capturing:
            return self.send_task(task.name, args, kwargs, task_id=task_id, task_type=task, **options)
        return celery.Task.apply_async(task, args, kwargs, task_id=task_id, **options)

    def send_by_celery(
        self,
        name: str,
        args: Any,
        kwargs: Any,
        *,
        task_id: str | None,
        countdown: float | None = None,
        eta: datetime | str | None = None,
        **options: Any,
    ) -> AsyncResult:
        """Have Celery send a run, and tell of it."""
        headers = options.pop("headers", None)
        seconds = deadlines.seconds_of(name, self.tasks.get(name), options)
        options.pop("deadline", None)
        if "errands" not in (headers or {}):
            headers = self.envelope(headers, task_id, None, seconds)
        if (over := headers["errands"].get(deadlines.FIELD)) is not None and options.get("expires") is None:
            options["expires"] = deadlines.moment(over)
        if tenant := rules.tenant(self.tasks.get(name), args or (), kwargs or {}):
            headers["errands"]["fair"] = tenant
        goes_on = "hop" in headers["errands"]
        task = options.get("task_type") or self.tasks.get(name)
        rule = None if goes_on else unique.rule_of(task, options)
        handed_out = options.pop("unique", None) == unique.HANDED_OUT
        if countdown is None and eta is None:
            countdown = unique.wait_of(rule)
        task_id = self._join_batch(name, headers["errands"], task_id, options)
        if "batch" in headers["errands"]:
            rule = None
        claimed, due = False, _due(countdown, eta)
        if self._capture is not None:
            task_id = task_id or self.new_id()
            if rule and (first := claims.claim(self, rule, task, args, kwargs, task_id, due)):
                return self._duplicate(name, task_id, first)
            return self._captured(
                name, args, kwargs, task_id, countdown=countdown, eta=eta, headers=headers, **options
            )
        try:
            if task_id is not None and not goes_on and self.live.known(task_id):
                logger.info("%s[%s] is known already and is not sent again", name, task_id)
                return self.AsyncResult(task_id)
            task_id = task_id or self.new_id()
            if rule is not None:
                first = claims.claim(self, rule, task, args, kwargs, task_id, due, handed_out=handed_out)
                if first is not None:
                    self.adopt_payload(task, task_id, first)
                    return self._duplicate(name, task_id, first)
                claimed = True
            if self.settings.inline:
                return self._run_inline(name, args, kwargs, task_id, headers, options)
            options.setdefault("confirm_timeout", _CONFIRM_SECONDS)
            result = celery.Celery.send_task(
                self, name, args, kwargs, countdown=countdown, eta=eta, task_id=task_id, headers=headers,
                **options,
            )  # fmt: skip
        except Exception as exc:
            if claimed and not self.settings.inline:
                claims.tell_unsent(self, str(task_id), name, exc)
            if isinstance(exc, kombu.exceptions.OperationalError | redis.RedisError | MessageNacked):
                raise refusals.of_celery(exc, name, self.settings.broker_url) from exc
            raise
        if not goes_on and not name.startswith("celery."):
            try:
                self._record_queued(task_id, name, args, kwargs, due, headers, options)
            except redis.RedisError:
                # The message is out; the worker's own record of its start will make up for this one.
                logger.warning("%s[%s] was sent, but could not be recorded as queued", name, task_id)
        return result

    def _duplicate(self, name: str, task_id: str, first: str) -> AsyncResult:
        logger.info("%s[%s] is the same work as %s", name, task_id, first)
        result = (
            claims.eager_result(self.live.get(first)) if self._stays_inline() else self.AsyncResult(first)
        )
        result.duplicate = True
        return result

    def _stays_inline(self) -> bool:
        return self.settings.inline and not self.is_capturing

    def _record_queued(
        self, run_id: str, name: str, args: Any, kwargs: Any, due: float | None, headers: Any, options: Any
    ) -> None:
        task = self.tasks.get(name)
        parent = self.current_worker_task
        batch = headers["errands"].get("batch")
        queue = options.get("queue") or (task.rules.queue if isinstance(task, Task) else None)
        self.live.record(
            Event(
                kind=Kind.QUEUED,
                run_id=run_id,
                at=clock.timestamp(),
                task=name,
                queue=getattr(queue, "name", queue) or self.conf.task_default_queue,
                owner=headers["errands"].get("owner"),
                subject=headers["errands"].get("subject"),
                parent_id=options.get("parent_id") or (parent.request.id if parent else None),
                root_id=options.get("root_id") or (parent.request.root_id if parent else None) or run_id,
                args=list(args or ()),
                kwargs=dict(kwargs or {}),
                eta=due,
                expires=moment_of(options.get("expires"), clock.timestamp()),
                options=told(options.get("priority"), headers["errands"].get("fair")),
                max_attempts=task.rules.policy.times + 1 if isinstance(task, Task) else None,
            ),
            rules="" if batch is None else json.dumps({"batch": batch}),
        )

    def _join_batch(
        self, name: str, errands: dict[str, Any], task_id: str | None, options: dict[str, Any]
    ) -> str | None:
        """Note which batch the call joins, if any."""
        if collected.get() is not None:
            raise NotDirect(name)
        batch = batch_of_call(name, errands, self.current_worker_task, options.get("parent_id"), task_id)
        if batch is None:
            return task_id
        task_id = task_id or self.new_id()
        if self.batches.over(batch.id):
            raise ActionRefused(f"{name}[{task_id}] was not sent: its batch has ended")
        if self.is_capturing:
            self.batches.join(task_id, batch.id)
        errands["batch"] = batch.id
        if batch.root_id:
            options["parent_id"] = options.get("parent_id") or batch.id
            options["root_id"] = options.get("root_id") or batch.root_id
        return task_id

    # -- it stays here

    def _run_inline(
        self,
        name: str,
        args: Any,
        kwargs: Any,
        task_id: str,
        headers: dict[str, Any],
        options: dict[str, Any],
    ) -> AsyncResult:
        """Run it here and now, in the caller's process."""
        if name not in self.tasks:
            raise celery.exceptions.NotRegistered(name)
        self._record_queued(task_id, name, args, kwargs, None, headers, options)
        follow_ups = {key: options[key] for key in ("link", "link_error") if options.get(key)}
        result = self.tasks[name].apply(args, kwargs, task_id=task_id, headers=headers, **follow_ups)
        result.duplicate = False
        return result

    @property
    def is_capturing(self) -> bool:
        """Whether sending is held back just now."""
        return self._capture is not None

    @contextmanager
    def capturing(self) -> Iterator[list[dict[str, Any]]]:
        """Nothing is sent inside the block; the list holds what would have been."""
        before, self._capture = (self._capture, self._captured_claims), []
        self._captured_claims = claims.of_capture(self, self._capture)
        try:
            yield self._capture
        finally:
            self._capture, self._captured_claims = before

    def _captured(
        self, name: str, args: Any, kwargs: Any, task_id: str | None, **options: Any
    ) -> AsyncResult:
        assert self._capture is not None  # noqa: S101 — the caller looked
        task_id = task_id or self.new_id()
        if all(item["id"] != task_id for item in self._capture):
            self._capture.append(
                {
                    "id": task_id,
                    "task": name,
                    "args": tuple(args or ()),
                    "kwargs": dict(kwargs or {}),
                    **options,
                }
            )
        return self.AsyncResult(task_id)


def _due(countdown: float | None, eta: datetime | str | None) -> float | None:
    if countdown is not None:
        return clock.timestamp() + countdown
    if eta is None:
        return None
    moment = datetime.fromisoformat(eta) if isinstance(eta, str) else eta
    return float(maybe_make_aware(moment).timestamp())
