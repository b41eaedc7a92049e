"""What stands between a run and its start: the limits of its task, and where it waits for them."""

from __future__ import annotations

import functools
import logging
import threading
from collections import defaultdict, deque
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from billiard.einfo import ExceptionInfo
from celery.app.trace import TraceInfo, trace_ok_t
from celery.exceptions import Ignore, Reject
from celery.states import IGNORED

from errands.broker.runs import Reply
from errands.broker.streams.layout import split_tag
from errands.core import clock, limits
from errands.core.events import Event, Kind
from errands.core.limits import Bound, Claim, claims

logger = logging.getLogger("errands.run")

_encode = msgspec.json.Encoder().encode
_MICRO = 1_000_000


def asked_by(task: Any, request: Any) -> list[Claim]:
    """What the run at hand asks of the limits of its task, in the order in which it waits for them.

    Nothing where it counts more than its limit ever lets start: it fails then, and has not counted.
    """
    args, kwargs = request.args or (), request.kwargs or {}
    found = claims(
        task.name, task.rules.of_rates_and_slots, lambda path: task.arguments.value(path, args, kwargs)
    )
    if any(claim.cost > claim.bound.most for claim in found):
        return []
    return found


def refuse_excess(task: Any, request: Any) -> None:
    """Refuse a run that counts more than its limit ever lets start, as the caller of a call is refused.

    Raises:
        InvalidArguments: it says how to split the call.
    """
    args, kwargs = request.args or (), request.kwargs or {}
    limits.refuse_excess(task.name, task.rules.limits, lambda path: task.arguments.value(path, args, kwargs))


def as_rules(task: Any, asked: list[Claim]) -> str:
    """What the start of an attempt is under, as `lua/limits.lua` reads it; "" for nothing."""
    if not asked:
        return ""
    rules: dict[str, Any] = {"rules": _listed(asked)}
    if not task.app.limits_can_wait:
        rules["apart"] = 1
    return _encode(rules).decode()


def wait(task: Any, request: Any, hop: int, reply: Reply, asked: list[Claim]) -> None:
    """Let a run wait for the limit that refused it. Its attempt does not count, and its worker is free.

    Args:
        hop: of the message at hand.
        reply: what the server said to its start.
        asked: what the start asked for.

    Returns in inline mode alone, with the time passed.

    Raises:
        Waits: its message is done with.
        Reject: the server is away, so the message goes back.
    """
    number, most, period, ms, *lost = reply.about.split()
    blocked, bound = asked[int(number)], Bound(int(most), int(period) // _MICRO)
    note = f"waits for its limit {blocked.told(bound)}"
    told = Event(kind=Kind.LIMITED, run_id=request.id, at=clock.timestamp(), task=task.name, note=note)
    if request.is_eager:
        task.app.live.record(told)
        clock.pass_time(int(ms) / 1000)
        return
    logger.info("%s[%s] %s", task.name, request.id, note)
    try:
        if not (task.app.limits_can_wait and _wait_in_valkey(task, request, hop, reply, told)):
            _come_again(task, request, hop, told, int(ms) / 1000 or 1.0, lost=bool(lost))
    except Exception as exc:
        # Whatever it was: the message at hand is still ours, and the broker gives it out again.
        raise Reject(exc, requeue=True) from exc
    raise Waits


class Waits(BaseException):
    """The run at hand waits for a limit; its message is done with.

    It goes past Celery's tracer, which catches no such error, and is caught right outside of it: see `quiet`.
    For an `Ignore` the tracer makes two tracebacks, which takes ten times as long as all the rest.
    """


class _Ignored(ExceptionInfo):
    """What Celery is told of such a run: that its message is to be ignored."""

    type = Ignore
    exception = Ignore("it waits for a limit")
    traceback = ""

    def __init__(self) -> None:
        pass  # there is no traceback to look at


def quiet(tracer: Callable[..., Any]) -> Callable[..., Any]:
    """Celery's tracer of a task with limits."""

    @functools.wraps(tracer)
    def trace(*args: Any, **kwargs: Any) -> Any:
        try:
            return tracer(*args, **kwargs)
        except Waits:
            return trace_ok_t(_Ignored(), TraceInfo(IGNORED), 0.0, "")

    return trace


def _wait_in_valkey(task: Any, request: Any, hop: int, reply: Reply, told: Event) -> bool:
    envelope = dict((request.headers or {}).get("errands") or {})
    known, copy = "since" in envelope or "queued_at" in envelope, envelope.pop("copy", None)
    # Its place is that of when it was sent, also when it has to wait once more.
    since = envelope.setdefault("since", int(1000 * float(envelope.get("queued_at") or told.at)))
    eta, expires = _ms(request.eta), _ms(request.expires)
    waits: dict[str, Any] = {
        "rules": _listed(asked_by(task, request)), "hop": hop, "attempt": reply.attempt,
        "since": max(since, eta or 0), "told": told.to_json().decode(),
    }  # fmt: skip
    if expires:
        waits["expires"] = expires
    tag = (request.properties or {}).get("delivery_tag")
    if known and not copy and tag:
        at = {"at": split_tag(tag)}
        if task.app.move_to_wait(tag, request.id, _encode({**waits, **at}).decode()):
            return True
    headers = {**(request.headers or {}), "errands": {**envelope, "hop": hop}}
    signature = task.signature_from_request(request, retries=request.retries, headers=headers)
    return bool(task.app.send_to_wait(signature, _encode(waits).decode()))


def _come_again(task: Any, request: Any, hop: int, told: Event, wait: float, *, lost: bool) -> None:
    """Send the run on, to come again when it may fit: all that can be done with another broker than ours."""
    if lost:
        note = "its worker died; it waits for a limit now"
        task.app.live.record(
            Event(kind=Kind.LOST, run_id=request.id, at=told.at, task=task.name, note=note), hop=hop
        )
    task.app.live.record(told, hop=hop)
    task.signature_from_request(request, countdown=wait, retries=request.retries).apply_async()


def _listed(found: list[Claim]) -> list[list[Any]]:
    return [[claim.suffix, claim.cost, claim.bound.most, claim.bound.seconds * _MICRO] for claim in found]


def _ms(moment: Any) -> int | None:
    """Milliseconds since 1970 of a time in a message; None where there is none."""
    if isinstance(moment, str):
        try:
            moment = datetime.fromisoformat(moment)
        except ValueError:
            return None
    return int(moment.timestamp() * 1000) if isinstance(moment, datetime) else None


class InlineLimits:
    """`lua/limits.lua` in the memory of a process, for inline mode.

    Nothing else can go on there meanwhile, so a run that is refused is let go on at its second try: by then
    the caller has passed the time.
    """

    def __init__(self) -> None:
        self.changed: dict[str, Bound] = {}
        self._starts: defaultdict[str, deque[tuple[float, int]]] = defaultdict(deque)
        self._holders: defaultdict[str, set[str]] = defaultdict(set)
        self._granted: set[str] = set()
        self._lock = threading.Lock()

    def admit(self, run_id: str, rules: str) -> str | None:
        """As `admit` of the script."""
        now = clock.timestamp()
        asked = [
            (suffix, cost, self._bound(suffix, most, period)) for suffix, cost, most, period in _rules(rules)
        ]
        with self._lock:
            for number, (suffix, cost, bound) in enumerate(asked if run_id not in self._granted else ()):
                wait = self._wait(run_id, suffix, cost, bound, now)
                if wait is not None:
                    self._granted.add(run_id)
                    return f"{number} {bound.most} {bound.seconds * _MICRO} {wait * 1000:.0f}"
            self._granted.discard(run_id)
            for suffix, cost, bound in asked:
                if bound.seconds:
                    self._starts[suffix].append((now, cost))
                else:
                    self._holders[suffix].add(run_id)
        return None

    def take(self, suffix: str, count: int, bound: Bound) -> int:
        """As `lua/allow.lua`, with the time passed that it has to wait. Returns how much was given."""
        bound = self._bound(suffix, bound.most, bound.seconds * _MICRO)
        count = min(count, bound.most)
        with self._lock:
            wait = self._wait("", suffix, count, bound, clock.timestamp())
            clock.pass_time(wait or 0)
            self._starts[suffix].append((clock.timestamp(), count))
        return count

    def let_go(self, run_id: str) -> None:
        """The run's attempt has ended."""
        with self._lock:
            for suffix in [suffix for suffix, runs in self._holders.items() if run_id in runs]:
                self._holders[suffix].discard(run_id)

    def clear(self) -> None:
        """Forget everything but what was changed."""
        with self._lock:
            self._starts.clear()
            self._holders.clear()
            self._granted.clear()

    def _wait(self, run_id: str, suffix: str, cost: int, bound: Bound, now: float) -> float | None:
        """Seconds until it may fit; None where it fits."""
        if not bound.seconds:
            others = self._holders[suffix] - {run_id}
            return 0.0 if len(others) + cost > bound.most else None
        starts = self._starts[suffix]
        while starts and starts[0][0] + bound.seconds <= now:
            starts.popleft()
        need = sum(counted for _, counted in starts) + cost - bound.most
        for at, counted in starts:
            if need <= 0:
                return None
            need -= counted
            if need <= 0:
                return at + bound.seconds - now
        return None if need <= 0 else 0.0

    def _bound(self, suffix: str, most: int, period: int) -> Bound:
        return self.changed.get(":".join(suffix.split(":")[:2]), Bound(most, period // _MICRO))


def _rules(rules: str) -> list[Any]:
    return list(msgspec.json.decode(rules)["rules"])
