"""Events added up to rows, in memory.

- A run never goes back: an event that comes late fills in what is missing and moves nothing.
- Reading an event twice changes nothing the second time, and counts nothing.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from errands.core.events import Kind
from errands.core.secrets import mask
from errands.core.states import FINAL, State
from errands.store.ledger_event import LedgerEvent, text
from errands.store.row import UNSET, Attempt, Moment, Run
from errands.store.types import plain

# Upper bounds in seconds. From a mail (a tenth) to a nightly report (an hour).
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, float("inf"))
LOST = Kind.LOST.value  # the outcome of an attempt whose worker died: another one began while it was open
SNOOZED = Kind.SNOOZED.value
DEAD_LETTER = Kind.DEAD_LETTER.value
UNKNOWN_TASK = "unknown"

# Plain texts: what a row holds is compared with them thousands of times a second.
_QUEUED, _RUNNING, _RETRYING = State.QUEUED.value, State.RUNNING.value, State.RETRYING.value
_SUCCEEDED, _CHECKPOINT = State.SUCCEEDED.value, Kind.CHECKPOINT
_LOG, _LETTER, _SNOOZED_KIND, _RETRYING_KIND = Kind.LOG, Kind.DEAD_LETTER, Kind.SNOOZED, Kind.RETRYING
_NAME = {kind: kind.value for kind in Kind}
_FINAL = frozenset(state.value for state in FINAL)
# Ended by an attempt: the start of a later attempt tells that somebody has taken the run up again.
_ENDED_BY_ATTEMPT = frozenset({State.SUCCEEDED.value, State.FAILED.value, State.DISCARDED.value})


def moment(seconds: float) -> datetime:
    """A moment as PostgreSQL's driver takes it."""
    return datetime.fromtimestamp(seconds, UTC)


class Fold:
    """Give it the rows that exist, then `add` events in the order of the stream; then write what it has.

    Args:
        runs: those that exist, by id; heavy columns need not be loaded.
        attempts: those that exist, by run id and number.
        moment: makes a moment in the database's form of seconds since 1970.
    """

    def __init__(
        self,
        runs: dict[str, Run],
        attempts: dict[tuple[str, int], Attempt],
        moment: Callable[[float], Moment] = moment,
    ) -> None:
        self.runs = runs
        self.attempts = attempts
        self.checkpoints: dict[str, tuple[str, datetime] | None] = {}
        self.dead_letters: dict[str, dict[str, Any]] = {}
        self.counts: dict[tuple[str, str], int] = {}
        self.buckets: dict[tuple[str, float], tuple[int, float]] = {}
        self._moment = moment

    def add(self, entry_id: str, event: LedgerEvent, *, doubtful: bool = False) -> None:
        """Add one event. `doubtful`: it may have been added before, in another batch."""
        kind = event.kind
        if kind is _LOG:
            return
        if kind is _LETTER:
            self._bury(entry_id, event)
            return
        if kind is _CHECKPOINT:
            if (told := text(event.checkpoint)) is not None:
                self.checkpoints[event.run_id] = told, moment(event.at)
            return
        at = self._moment(event.at)
        run = self.runs.get(event.run_id)
        if run is None:
            run = self.runs[event.run_id] = _new_run(event, at)
        elif doubtful and run.reopened_at is not None and at <= run.reopened_at:
            return
        _HANDLERS[kind](self, run, event, at, doubtful)
        _fill(run, event)
        if run.expires_at is None and event.expires is not None:
            run.expires_at = self._moment(event.expires)
        if event.args is not UNSET and run.message is None:
            _keep_message(run, event)
        if at > run.updated_at:
            run.updated_at = at
        if at < run.created_at:
            run.created_at = at

    def _bury(self, entry_id: str, event: LedgerEvent) -> None:
        self.dead_letters[entry_id] = {
            "id": entry_id,
            "run_id": event.run_id,
            "task": event.task,
            "queue": event.queue,
            "reason": event.note or "no reason given",
            "message": json.loads(text(event.message) or "null"),
            "at": moment(event.at),
        }

    def _queued(self, run: Run, event: LedgerEvent, at: Moment, doubtful: bool) -> None:
        if run.queued_at is not None:
            if event.note is not None:
                self._sent_again(run, event, at, doubtful)
            return
        state = event.queued_as.value
        run.queued_at = at
        if run.attempt == 0 and run.state == _QUEUED:
            run.state = state
            run.eta = self._optional(event.eta)
        self._count(run, event, state)

    def _replaced(self, run: Run, event: LedgerEvent, at: Moment, doubtful: bool) -> None:
        """A later request gave the waiting run its arguments, and may have put it off."""
        if run.state in _FINAL or (doubtful and at < run.updated_at):
            return
        _keep_message(run, event)
        if event.eta is not None and run.state != _RUNNING:
            run.eta = self._optional(event.eta)

    def _sent_again(self, run: Run, event: LedgerEvent, at: Moment, doubtful: bool) -> None:
        """The broker had lost the run, and with it whoever was at it."""
        if run.state in _FINAL or (event.attempt or 0) < run.attempt or (doubtful and at <= run.updated_at):
            return
        self._lose(run, run.attempt, at, event.note)
        run.state, run.eta = event.queued_as.value, self._optional(event.eta)

    def _started(self, run: Run, event: LedgerEvent, at: Moment, doubtful: bool) -> None:
        number = event.attempt or run.attempt or 1
        attempt = self._attempt(event.run_id, number)
        started, outcome, reopened = attempt.started_at, attempt.outcome, run.reopened_at
        if doubtful and started is not None and at <= started:
            return
        again = outcome == SNOOZED or (
            outcome is not None and reopened is not None and (started is None or started < reopened)
        )
        over = run.state in _FINAL and not (run.state in _ENDED_BY_ATTEMPT and number > run.attempt)
        if over or (outcome is not None and not again):
            if started is None:
                attempt.started_at = at
                self._count(run, event, _RUNNING)
            attempt.worker = attempt.worker or event.worker
            run.started_at = run.started_at or at
            run.worker = run.worker or event.worker
            return
        attempt.started_at, attempt.worker = at, event.worker
        if again:
            attempt.finished_at = attempt.outcome = attempt.duration = attempt.retry_at = None
            attempt.error_type = attempt.error_message = attempt.error_traceback = None
        self._count(run, event, _RUNNING)
        before = run.attempt
        if number < before and not again:
            return
        if number != before:
            self._lose(run, before, at)
            run.progress = None
        run.state, run.attempt, run.started_at, run.worker = _RUNNING, number, at, event.worker
        run.finished_at = run.duration = run.eta = None

    def _limited(self, run: Run, event: LedgerEvent, at: Moment, doubtful: bool) -> None:
        """It waits for a limit. Where it was at work, its worker has died, or it would not be here."""
        if run.state == _RUNNING and event.attempt == run.attempt:
            self._lose(run, run.attempt, at)
            run.state = _RETRYING

    def _progress(self, run: Run, event: LedgerEvent, at: Moment, doubtful: bool) -> None:
        late = run.state in _FINAL or (event.attempt or run.attempt) < run.attempt
        if late or (doubtful and at <= run.updated_at):
            return
        run.progress = text(event.progress)

    def _put_off(self, run: Run, event: LedgerEvent, at: Moment, doubtful: bool) -> None:
        """An attempt failed or was snoozed, and another follows."""
        number = event.attempt or run.attempt or 1
        known = self.attempts.get((event.run_id, number))
        if event.kind is Kind.LOST and known is not None and known.outcome is not None:
            return
        if not self._close(run, number, event, at, doubtful):
            return
        self._count(run, event, _NAME[event.kind])
        if run.state not in _FINAL and number >= run.attempt:
            run.state, run.attempt, run.worker = _RETRYING, number, event.worker
            run.eta = self._optional(event.eta)
            if event.kind is not Kind.SNOOZED:
                _tell_error(run, event)

    def _ended(self, run: Run, event: LedgerEvent, at: Moment, doubtful: bool) -> None:
        before, state = run.attempt, _NAME[event.kind]
        by_attempt = state in _ENDED_BY_ATTEMPT
        number = event.attempt or before or (1 if by_attempt else 0)
        closed = False
        if by_attempt or (event.run_id, number) in self.attempts:
            closed = self._close(run, number, event, at, doubtful)
        if run.state in _FINAL and not (by_attempt and closed and number > before):
            return
        if doubtful and by_attempt and not closed:
            return
        run.state, run.attempt, run.finished_at = state, max(number, before), at
        run.duration, run.eta, run.result = event.duration, None, text(event.result)
        run.worker = event.worker or run.worker
        if event.progress is not UNSET:
            run.progress = text(event.progress)
        _tell_error(run, event)
        self._count(run, event, state)

    def _reopened(self, run: Run, event: LedgerEvent, at: Moment, doubtful: bool) -> None:
        first_heard = run.queued_at is None and run.attempt == 0
        if run.state not in _FINAL and not first_heard:
            return
        if run.state == _SUCCEEDED:
            self.checkpoints[run.id] = None  # all is to be done once more
        run.state, run.attempt, run.reopened_at = _QUEUED, max(run.attempt, event.attempt or 0), at
        run.finished_at = run.duration = run.result = run.progress = None
        run.error_type = run.error_message = run.error_traceback = None
        run.eta = self._optional(event.eta)
        if event.max_attempts is not None:
            run.max_attempts = event.max_attempts
        # The old deadline has passed, or soon will; only one that was given anew counts.
        run.expires_at = self._optional(event.expires)
        self._count(run, event, _QUEUED)

    def _close(self, run: Run, number: int, event: LedgerEvent, at: Moment, doubtful: bool) -> bool:
        """Write the outcome of an attempt. False where it has one already."""
        attempt = self._attempt(event.run_id, number)
        started = attempt.started_at
        if attempt.outcome not in (None, LOST) or (doubtful and started is not None and at < started):
            return False
        kind = event.kind
        attempt.outcome, attempt.finished_at, attempt.duration = _NAME[kind], at, event.duration
        put_off = kind is _RETRYING_KIND or kind is _SNOOZED_KIND
        attempt.retry_at = self._optional(event.eta) if put_off else None
        _tell_error(attempt, event)
        attempt.worker = attempt.worker or event.worker
        if event.duration is not None:
            key = (run.task or event.task or UNKNOWN_TASK, BUCKETS[bisect_left(BUCKETS, event.duration)])
            count, total = self.buckets.get(key, (0, 0.0))
            self.buckets[key] = count + 1, total + event.duration
        return True

    def _lose(self, run: Run, number: int, at: Moment, why: str | None = None) -> None:
        attempt = self.attempts.get((run.id, number))
        if attempt is not None and attempt.outcome is None:
            attempt.outcome, attempt.finished_at, attempt.error_type = LOST, at, "WorkerLost"
            attempt.error_message = why or "the worker died or was cut off; another one took the run over"
            attempt.error_traceback = None

    def _attempt(self, run_id: str, number: int) -> Attempt:
        found = self.attempts.get((run_id, number))
        if found is None:
            found = self.attempts[run_id, number] = Attempt(run_id, number)
        return found

    def _count(self, run: Run, event: LedgerEvent, state: str) -> None:
        key = (run.task or event.task or UNKNOWN_TASK, state)
        self.counts[key] = self.counts.get(key, 0) + 1

    def _optional(self, seconds: float | None) -> Moment:
        return None if seconds is None else self._moment(seconds)


def _new_run(event: LedgerEvent, at: Moment) -> Run:
    return Run(
        event.run_id, event.task, event.queue, _QUEUED, event.owner, event.parent_id, event.root_id, None,
        None, None, 0, event.max_attempts, at, None, None, None, None, None, None, at, None, None,
        event.subject, None, None, None, None, None,
    )  # fmt: skip


def _fill(run: Run, event: LedgerEvent) -> None:
    """Set what is not known yet."""
    if run.task is None:
        run.task = event.task
    if run.queue is None:
        run.queue = event.queue
    if run.owner is None:
        run.owner = event.owner
    if run.subject is None:
        run.subject = event.subject
    if run.parent_id is None:
        run.parent_id = event.parent_id
    if run.root_id is None:
        run.root_id = event.root_id
    if run.max_attempts is None:
        run.max_attempts = event.max_attempts


def _keep_message(run: Run, event: LedgerEvent) -> None:
    """What was sent, sealed as it is; and what is shown of it. A sealed value holds no character that JSON
    escapes, so it is found in the text."""
    args = text(event.args)
    if args is None:
        return
    kwargs = text(event.kwargs) or "{}"
    run.message = f'{{"args":{args},"kwargs":{kwargs},"options":{text(event.options) or "{}"}}}'
    run.args, run.kwargs = mask(args), mask(kwargs)


def _tell_error(row: Run | Attempt, event: LedgerEvent) -> None:
    error = event.error
    if error is None:
        row.error_type = row.error_traceback = None
        note = event.note if event.kind is not Kind.SUCCEEDED else None
        row.error_message = note and plain(note)
        return
    row.error_type = plain(error.get("type"))
    row.error_message = plain(error.get("message", event.note))
    row.error_traceback = plain(error.get("traceback"))


_HANDLERS: dict[Kind, Callable[[Fold, Run, LedgerEvent, Moment, bool], None]] = {
    Kind.QUEUED: Fold._queued,
    Kind.REPLACED: Fold._replaced,
    Kind.LIMITED: Fold._limited,
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
