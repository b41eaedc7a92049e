"""What calls of one task with the same options have in common, and how a message is made of it."""

from __future__ import annotations

import math
import os
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import celery
from celery.utils.functional import maybe_list
from celery.utils.nodenames import anon_nodename
from celery.utils.time import maybe_make_aware

from errands.broker.message import NOTHING_FOLLOWS, Message, Payload, text_of
from errands.sending import deadlines, unique
from errands.task import Task

if TYPE_CHECKING:
    from errands.sending.plan import Plan

# The options that are ours to say in a message. Any other one is Celery's and kombu's business.
_OURS = frozenset((
    "countdown", "eta", "expires", "queue", "routing_key", "priority", "headers", "link", "link_error",
    "chord", "chain", "group_id", "group_index", "retries", "root_id", "parent_id", "shadow", "time_limit",
    "soft_time_limit", "ignore_result", "argsrepr", "kwargsrepr", "stamped_headers", "replaced_task_nesting",
    "reply_to", "origin", "retry", "retry_policy", "route_name", "task_type", "result_cls", "add_to_parent",
    "producer", "serializer", "unique", "deadline",
))  # fmt: skip
_SLOW_START = {"max_retries": 3, "interval_start": 0.0, "interval_step": 0.2, "interval_max": 0.2}
_LONGEST = 300.0  # seconds


class When(NamedTuple):
    """Times of one call, as the message and the event tell them."""

    due: float | None
    eta: str | None
    expires: str | None
    expiration: str | None
    wait: float | None = None  # seconds from now, where the caller said a countdown
    ends: float | None = None  # when it expires, in seconds since 1970


_NOW = When(None, None, None, None)


class Terms:
    """Read once for each task, or for each call with options.

    Args:
        plan: how the app sends.
        name, task: what is called; a task that is not known here is None.
        options: as given to `apply_async`, over what the task declares.
        where: its queue.
        priority: of its messages.
    """

    def __init__(
        self, plan: Plan, name: str, task: Any, options: dict[str, Any], queue: str, priority: int | None
    ) -> None:
        get = options.get
        self.name, self.task = name, task
        self.queue, self.priority = queue, priority
        self.root_id, self.parent_id = get("root_id"), get("parent_id")
        self.ignore_result = get("ignore_result")
        self.result_cls = get("result_cls")
        self.add_to_parent = get("add_to_parent", True)
        self.max_attempts = task.rules.policy.times + 1 if isinstance(task, Task) else None
        self.unique = unique.rule_of(task, options)
        self.handed_out = get("unique") == unique.HANDED_OUT
        self.is_fair = isinstance(task, Task) and task.rules.fair_by is not None
        self.has_subject = isinstance(task, Task) and bool(task.function and task.arguments.subject)
        self.is_run = not name.startswith("celery.")
        self._patience = get("retry_policy") if get("retry") is not False else None
        self._countdown, self._eta, self._expires = get("countdown"), get("eta"), get("expires")
        if not (self._countdown or self._eta):
            self._countdown = unique.wait_of(self.unique)
        self.deadline = deadlines.seconds_of(name, task, options)
        self._timed = bool(self._countdown or self._eta or self._expires is not None)
        self._argsrepr, self._kwargsrepr = get("argsrepr"), get("kwargsrepr")
        self._shadowed_by = task if task is not None and not get("shadow") and _has_shadow(task) else None
        self._origin, self._reply_to = get("origin"), get("reply_to")
        self._options = options
        self._signer = plan.signer
        given = get("headers") or {}
        stamps = get("stamped_headers")
        self.given_errands = given.get("errands")
        self._more = {key: value for key, value in given.items() if key != "errands"}
        self._plain = not self._more and not stamps
        self._headers = {
            "lang": "py", "task": name, "id": None, "shadow": get("shadow"), "eta": None, "expires": None,
            "group": get("group_id"), "group_index": get("group_index"), "retries": get("retries", 0),
            "timelimit": [get("time_limit"), get("soft_time_limit")], "root_id": None, "parent_id": None,
            "argsrepr": None, "kwargsrepr": None, "origin": None, "ignore_result": self.ignore_result,
            "replaced_task_nesting": get("replaced_task_nesting", 0), "stamped_headers": stamps,
            "stamps": {name: options[name] for name in stamps or ()},
        }  # fmt: skip
        self._properties: dict[str, Any] = {"delivery_mode": plan.delivery_mode, "priority": priority or 0}
        follows = {
            "callbacks": maybe_list(get("link")), "errbacks": maybe_list(get("link_error")),
            "chain": get("chain"), "chord": get("chord"),
        }  # fmt: skip
        self._follows = follows if any(follows.values()) else NOTHING_FOLLOWS

    @property
    def patience(self) -> float | None:
        """Seconds to go on trying where the caller gave a policy of retries; None where not."""
        policy = self._patience
        return None if policy is None else _seconds_of({**_SLOW_START, **policy})

    def when(self, now: float, deadline: float | None = None) -> When:
        """The times of a call that is made now, and is over at `deadline`."""
        if not self._timed and deadline is None:
            return _NOW
        due, eta = None, None
        if self._countdown:
            due = now + self._countdown
            eta = datetime.fromtimestamp(due, UTC).isoformat()
        elif self._eta:
            eta = self._eta if isinstance(self._eta, str) else self._eta.isoformat()
            due = _moment(self._eta).timestamp()
        left = math.inf
        if isinstance(self._expires, int | float):
            left, expires = self._expires, deadlines.moment(now + self._expires)
        elif self._expires is not None:
            left = _moment(self._expires).timestamp() - now
            expires = self._expires if isinstance(self._expires, str) else self._expires.isoformat()
        if deadline is not None and deadline - now < left:
            left, expires = deadline - now, deadlines.moment(deadline)
        if left == math.inf:
            return When(due, eta, None, None, self._countdown)
        return When(due, eta, expires, str(int(max(left, 0) * 1000)), self._countdown, now + left)

    def message(
        self, run_id: str, payload: Payload, errands: dict[str, Any], when: When, root_id: str,
        parent_id: str | None, reply_to: str,
    ) -> Message:  # fmt: skip
        """The message of one call."""
        headers = self._headers.copy()
        headers["id"] = run_id
        headers["root_id"] = root_id
        headers["parent_id"] = parent_id
        args_text, kwargs_text = self._argsrepr, self._kwargsrepr
        headers["argsrepr"] = text_of(payload.args, payload.args_json) if args_text is None else args_text
        headers["kwargsrepr"] = (
            text_of(payload.kwargs, payload.kwargs_json) if kwargs_text is None else kwargs_text
        )
        headers["origin"] = self._origin or _origin()
        if self._shadowed_by is not None:
            headers["shadow"] = self._shadowed_by.shadow_name(payload.args, payload.kwargs, self._options)
        headers["errands"] = errands
        properties = self._properties.copy()
        properties["correlation_id"] = run_id
        properties["reply_to"] = self._reply_to or reply_to
        if when is not _NOW:
            headers["eta"], headers["expires"] = when.eta, when.expires
            if when.expiration is not None:
                properties["expiration"] = when.expiration
        if self._more:
            headers.update(self._more)
        return Message(headers, properties, payload, self._follows, self._plain, self._signer)


def told(priority: Any, tenant: Any) -> dict[str, Any] | None:
    """What the "queued" event says of where a message waits; None where it waits with all others."""
    if not (priority or tenant):
        return None
    known = {"priority": priority, "fair": tenant}
    return {name: value for name, value in known.items() if value}


def is_ours(options: dict[str, Any], pool: Any) -> bool:
    """Whether `options` hold nothing that only Celery and kombu know how to do.

    Args:
        pool: the app's own pool of connections: a producer out of it would send to where we send.
    """
    stamps = options.get("stamped_headers") or ()
    for key, value in options.items():
        if key not in _OURS and value is not None and value is not False and key not in stamps:
            return False
    if options.get("serializer") not in ("json", None):
        return False
    producer = options.get("producer")
    return producer is None or getattr(producer.connection, "_pool", None) is pool


def _has_shadow(task: Any) -> bool:
    return getattr(type(task), "shadow_name", None) is not celery.Task.shadow_name


def _moment(value: datetime | str) -> datetime:
    moment: datetime = maybe_make_aware(datetime.fromisoformat(value) if isinstance(value, str) else value)
    return moment


def _seconds_of(policy: dict[str, Any]) -> float:
    """How long kombu would go on trying by this policy."""
    tries, pause, total = policy["max_retries"], policy["interval_start"], 0.0
    if tries is None:
        return _LONGEST
    for _ in range(min(tries, 1000)):
        total += min(pause, policy["interval_max"])
        pause += policy["interval_step"]
    return float(min(total, _LONGEST))


_names: dict[int, str] = {}


def _origin() -> str:
    """Who sends, as Celery names it: `gen1234@host`. Looked up once in each process."""
    pid = os.getpid()
    name = _names.get(pid)
    if name is None:
        _names.clear()
        name = _names[pid] = anon_nodename()
    return name
