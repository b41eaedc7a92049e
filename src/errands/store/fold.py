"""Events added up to rows, in memory.

- A run never goes back: an event that comes late fills in what is missing and moves nothing.
- Reading an event twice changes nothing the second time, and counts nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from errands.core.events import Event, Kind
from errands.core.secrets import mask
from errands.core.states import FINAL, State
from errands.store.row import Row

# Upper bounds in seconds. From a mail (a tenth) to a nightly report (an hour).
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, float("inf"))
LOST = Kind.LOST.value  # the outcome of an attempt whose worker died: another one began while it was open
SNOOZED = Kind.SNOOZED.value
DEAD_LETTER = Kind.DEAD_LETTER.value
UNKNOWN_TASK = "unknown"

_FINAL = frozenset(state.value for state in FINAL)
# Ended by an attempt: the start of a later attempt tells that somebody has taken the run up again.
_ENDED_BY_ATTEMPT = frozenset({State.SUCCEEDED.value, State.FAILED.value, State.DISCARDED.value})
_NO_ERROR = {"error_type": None, "error_message": None, "error_traceback": None}
_LONGEST_NAME = 255


class Fold:
    """Give it the rows that exist, then `add` events in the order of the stream; then write what changed.

    `runs` is by id, `attempts` by run id and number. Heavy columns need not be loaded; of `message`, whether
    there is one is enough.
    """

    def __init__(self, runs: Mapping[str, Row], attempts: Mapping[tuple[str, int], Row]) -> None:
        self.runs = dict(runs)
        self.attempts = dict(attempts)
        self.dead_letters: dict[str, dict[str, Any]] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        self.buckets: dict[tuple[str, float], tuple[int, float]] = {}

    def add(self, entry_id: str, event: Event, *, doubtful: bool = False) -> None:
        """Add one event. `doubtful`: it may have been added before, in another batch.

        Raises:
            ValueError: it cannot have happened like that (an id of a megabyte, a time before the calendar).
        """
        if event.kind is Kind.LOG:
            return
        _check_names(event)
        at = _time(event.at)
        if event.kind is Kind.DEAD_LETTER:
            self.dead_letters[entry_id] = {
                "id": entry_id,
                "run_id": event.run_id,
                "task": event.task,
                "queue": event.queue,
                "reason": event.note or "no reason given",
                "message": event.message,
                "at": at,
                "replayed_at": None,
            }
            return
        run = self.runs.get(event.run_id)
        if run is None:
            run = self.runs[event.run_id] = _new_run(event, at)
        elif doubtful and (reopened := run.get("reopened_at")) is not None and at <= reopened:
            return
        _HANDLERS[event.kind](self, run, event, at, doubtful)
        run.fill(
            task=event.task,
            queue=event.queue,
            owner=event.owner,
            parent_id=event.parent_id,
            root_id=event.root_id,
            max_attempts=event.max_attempts,
            expires_at=_optional_time(event.expires),
        )
        if event.args is not None and not run.get("message"):
            message = {"args": event.args, "kwargs": event.kwargs or {}, "options": event.options or {}}
            run.set(message=message, args=mask(event.args), kwargs=mask(event.kwargs or {}))
        if at > run.values["updated_at"]:
            run.set(updated_at=at)
        if at < run.values["created_at"]:
            run.set(created_at=at)

    def _queued(self, run: Row, event: Event, at: datetime, doubtful: bool) -> None:
        if run.get("queued_at") is not None:
            return
        state = (event.state or State.QUEUED).value
        run.set(queued_at=at)
        if run.get("attempt") == 0 and run.get("state") == State.QUEUED:
            run.set(state=state, eta=_optional_time(event.eta))
        self._count(run, event, state)

    def _started(self, run: Row, event: Event, at: datetime, doubtful: bool) -> None:
        number = event.attempt or run.get("attempt") or 1
        attempt = self.attempts.get((event.run_id, number))
        if attempt is None:
            attempt = self._new_attempt(event.run_id, number)
        started, outcome = attempt.get("started_at"), attempt.get("outcome")
        if doubtful and started is not None and at <= started:
            return
        reopened = run.get("reopened_at")
        again = outcome == SNOOZED or (
            outcome is not None and reopened is not None and (started is None or started < reopened)
        )
        over = run.get("state") in _FINAL and not (
            run.get("state") in _ENDED_BY_ATTEMPT and number > run.get("attempt")
        )
        if over or (outcome is not None and not again):
            if started is None:
                attempt.set(started_at=at)
                self._count(run, event, State.RUNNING.value)
            attempt.fill(worker=event.worker)
            run.fill(started_at=at, worker=event.worker)
            return
        attempt.set(started_at=at, worker=event.worker)
        if again:
            attempt.set(finished_at=None, outcome=None, duration=None, retry_at=None, **_NO_ERROR)
        self._count(run, event, State.RUNNING.value)
        before = run.get("attempt")
        if number < before and not again:
            return
        if number != before:
            self._lose(run, before, at)
            run.set(progress=None)
        run.set(
            state=State.RUNNING.value,
            attempt=number,
            started_at=at,
            finished_at=None,
            duration=None,
            eta=None,
            worker=event.worker,
        )

    def _progress(self, run: Row, event: Event, at: datetime, doubtful: bool) -> None:
        attempt = run.get("attempt")
        late = run.get("state") in _FINAL or (event.attempt or attempt) < attempt
        if late or (doubtful and at <= run.get("updated_at")):
            return
        run.set(progress=event.progress)

    def _put_off(self, run: Row, event: Event, at: datetime, doubtful: bool) -> None:
        """An attempt failed or was snoozed, and another follows."""
        number = event.attempt or run.get("attempt") or 1
        known = self.attempts.get((event.run_id, number))
        if event.kind is Kind.LOST and known is not None and known.get("outcome") is not None:
            return
        if not self._close(run, number, event, at, doubtful):
            return
        self._count(run, event, event.kind.value)
        if run.get("state") not in _FINAL and number >= run.get("attempt"):
            run.set(
                state=State.RETRYING.value, attempt=number, eta=_optional_time(event.eta), worker=event.worker
            )
            if event.kind in (Kind.RETRYING, Kind.LOST):
                run.set(**_error(event))

    def _ended(self, run: Row, event: Event, at: datetime, doubtful: bool) -> None:
        before = run.get("attempt")
        by_attempt = event.kind.value in _ENDED_BY_ATTEMPT
        number = event.attempt or before or (1 if by_attempt else 0)
        closed = False
        if by_attempt or (event.run_id, number) in self.attempts:
            closed = self._close(run, number, event, at, doubtful)
        if run.get("state") in _FINAL and not (by_attempt and closed and number > before):
            return
        if doubtful and by_attempt and not closed:
            return
        run.set(
            state=event.kind.value,
            attempt=max(number, before),
            finished_at=at,
            duration=event.duration,
            eta=None,
            result=event.result,
            **_error(event),
        )
        run.set(worker=event.worker or run.get("worker"))
        self._count(run, event, event.kind.value)

    def _reopened(self, run: Row, event: Event, at: datetime, doubtful: bool) -> None:
        first_heard = run.get("queued_at") is None and run.get("attempt") == 0
        if run.get("state") not in _FINAL and not first_heard:
            return
        run.set(
            state=State.QUEUED.value,
            attempt=max(run.get("attempt"), event.attempt or 0),
            reopened_at=at,
            finished_at=None,
            duration=None,
            eta=_optional_time(event.eta),
            result=None,
            progress=None,
            **_NO_ERROR,
        )
        if event.max_attempts is not None:
            run.set(max_attempts=event.max_attempts)
        # The old deadline has passed, or soon will; only one that was given anew counts.
        run.set(expires_at=_optional_time(event.expires))
        self._count(run, event, State.QUEUED.value)

    def _close(self, run: Row, number: int, event: Event, at: datetime, doubtful: bool) -> bool:
        """Write the outcome of an attempt. False where it has one already."""
        attempt = self.attempts.get((event.run_id, number)) or self._new_attempt(event.run_id, number)
        started = attempt.get("started_at")
        if attempt.get("outcome") not in (None, LOST) or (doubtful and started is not None and at < started):
            return False
        attempt.set(
            outcome=event.kind.value,
            finished_at=at,
            duration=event.duration,
            retry_at=_optional_time(event.eta) if event.kind in (Kind.RETRYING, Kind.SNOOZED) else None,
            **_error(event),
        )
        attempt.fill(worker=event.worker)
        if event.duration is not None:
            le = next(bound for bound in BUCKETS if event.duration <= bound)
            key = (run.get("task") or event.task or UNKNOWN_TASK, le)
            count, total = self.buckets.get(key, (0, 0.0))
            self.buckets[key] = count + 1, total + event.duration
        return True

    def _lose(self, run: Row, number: int, at: datetime) -> None:
        attempt = self.attempts.get((run.values["id"], number))
        if attempt is not None and attempt.get("outcome") is None:
            attempt.set(
                outcome=LOST,
                finished_at=at,
                error_type="WorkerLost",
                error_message="the worker died or was cut off; another one took the run over",
            )

    def _new_attempt(self, run_id: str, number: int) -> Row:
        row = self.attempts[run_id, number] = Row({"run_id": run_id, "number": number}, new=True)
        return row

    def _count(self, run: Row, event: Event, state: str) -> None:
        self.counts[run.get("task") or event.task or UNKNOWN_TASK, state] += 1


def _check_names(event: Event) -> None:
    if not event.run_id:
        raise ValueError("an event without a run's id")
    names = (event.task, event.queue, event.owner, event.worker, event.parent_id, event.root_id)
    for name in (event.run_id, *names):
        if name is not None and not (isinstance(name, str) and len(name) <= _LONGEST_NAME):
            raise ValueError(f"ids and names have up to {_LONGEST_NAME} characters, not {str(name)[:80]!r}")


def _new_run(event: Event, at: datetime) -> Row:
    row = {"id": event.run_id, "state": State.QUEUED.value, "attempt": 0, "created_at": at, "updated_at": at}
    return Row(row, new=True)


def _time(seconds: float) -> datetime:
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError) as exc:
        raise ValueError(f"{seconds!r} is no time in seconds since 1970") from exc


def _optional_time(seconds: float | None) -> datetime | None:
    return None if seconds is None else _time(seconds)


def _error(event: Event) -> dict[str, str | None]:
    error = event.error or {}
    return {
        "error_type": error.get("type"),
        "error_message": error.get("message", event.note if event.kind is not Kind.SUCCEEDED else None),
        "error_traceback": error.get("traceback"),
    }


_HANDLERS: dict[Kind, Callable[[Fold, Row, Event, datetime, bool], None]] = {
    Kind.QUEUED: Fold._queued,
    Kind.STARTED: Fold._started,
    Kind.PROGRESS: Fold._progress,
    Kind.RETRYING: Fold._put_off,
    Kind.SNOOZED: Fold._put_off,
    Kind.LOST: Fold._put_off,
    Kind.SUCCEEDED: Fold._ended,
    Kind.FAILED: Fold._ended,
    Kind.DISCARDED: Fold._ended,
    Kind.REVOKED: Fold._ended,
    Kind.EXPIRED: Fold._ended,
    Kind.REOPENED: Fold._reopened,
}
