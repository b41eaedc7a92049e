"""What people do to runs and queues: for admins only, and in the audit trail or not done."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from errands.broker.runs import Verdict
from errands.broker.streams import moment
from errands.core import clock
from errands.core.errors import ActionRefused, BrokerUnavailable, InvalidArguments, SecretError
from errands.core.events import Event, Kind
from errands.core.states import State, celery_status
from errands.ops import batches, probes, queues
from errands.ops.access import Person, require_admin
from errands.ops.audit import audited
from errands.ops.errors import QueueNotFound
from errands.ops.host import App
from errands.ops.run_view import RunView
from errands.ops.schedules import marks_of_run
from errands.ops.views import Ops
from errands.store import letters, outbox

logger = logging.getLogger("errands.ops")

_REOPEN = "errands_reopen"  # the command in worker/remote.py
_REOPEN_SECONDS = 1.0

Message = tuple[list[Any], dict[str, Any]]


class Actions:
    """Deeds on an app's runs."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._ops = Ops(app)

    def revoke(
        self, person: Person, run_id: str, *, terminate: bool = False, reason: str | None = None
    ) -> dict[str, Any]:
        """Let the run not start, or, where it has started, not start again.

        Workers ask before they start a run, but for one that they are given in the moment of its sending,
        which this lets pass first (`broker/streams/moment.py`): it holds for messages in any queue and in any
        worker's memory. An attempt that is under way ends at its next `run.progress`, `run.check` or row of
        `run.resume`; one that uses none of them works on to its end, and what it brings is not recorded.
        `terminate` ends it at once.

        Args:
            person: who does it.
            run_id: the run's or, in Celery's words, the task's id.
            terminate: end the process that works on it.
            reason: for the audit trail.

        Raises:
            NotAllowed: `person` is no admin.
            RunNotFound: there is no such run.
            ActionRefused: it has ended already.
            BrokerUnavailable, RecordUnavailable: a server does not answer; nothing was done.
        """
        require_admin(person, "revoke runs")
        run = self._ops.find(run_id)
        if run.state.final:
            raise ActionRefused(f"the run has ended already: it is {run.state}")
        if batches.is_batch(run):
            return self._revoke_batch(person, run, reason)
        if run.state is State.QUEUED:
            moment.let_pass(run.queued_at.timestamp() if run.queued_at else None)
        event = Event(
            kind=Kind.REVOKED, run_id=run_id, at=clock.timestamp(), task=run.task, queue=run.queue,
            owner=run.owner, note=f"revoked by {person.id}" + (f": {reason}" if reason else ""),
        )  # fmt: skip
        with self._audited(person, "revoke", run_id, reason, {"terminate": terminate}):
            self._record(event)
        with probes.record_errors():
            outbox.remove(self._app.database, [run_id])
        self._take_out(run_id, run.queue)
        self._tell_celery(run_id, terminate)
        return _answer(run_id, State.REVOKED, run.attempt) | {"terminate": terminate}

    def _revoke_batch(self, person: Person, run: RunView, reason: str | None) -> dict[str, Any]:
        with self._audited(person, "revoke", run.id, reason, {"batch": True}):
            batches.revoke(self._app, run.id, f"revoked by {person.id}" + (f": {reason}" if reason else ""))
        with probes.record_errors():
            members = batches.revoke_members(self._app, run.id)
        return _answer(run.id, State.REVOKED, run.attempt) | {"terminate": False, "members": members}

    def retry(self, person: Person, run_id: str, *, reason: str | None = None) -> dict[str, Any]:
        """Send a run that has ended once more: the same id, the same arguments, one attempt further.

        Its policy counts from the start again. Follow-ups that Celery hung on the first message (a chain's
        next link, a chord's body) are not part of it.

        Args:
            person: who does it.
            run_id: the run's id.
            reason: for the audit trail.

        Raises:
            NotAllowed: `person` is no admin.
            RunNotFound: there is no such run.
            ActionRefused: it has not ended; or its arguments are not known, or do not fit the task any more.
            BrokerUnavailable, RecordUnavailable: a server does not answer.
        """
        require_admin(person, "retry runs")
        run = self._ops.find(run_id)
        message = self._ops.message(run)
        if message is None:
            raise ActionRefused("nobody kept the run's arguments, so it cannot be sent again")
        with self._audited(person, "retry", run_id, reason, {"attempt": run.attempt + 1}) as connection:
            hop = self._reopen(run, message)
            letters.mark_run_replayed(connection, run_id)
        return self._send_again(run, message, hop)

    def pause(self, person: Person, queue: str, *, reason: str | None = None) -> dict[str, Any]:
        """Let no worker read a queue, until `resume`. Messages go on coming in; what workers have taken they
        finish.

        Args:
            person: who does it.
            queue: its name.
            reason: for the audit trail.

        Raises:
            NotAllowed: `person` is no admin.
            QueueNotFound: the app has no such queue.
            ActionRefused: this broker's queues cannot be paused.
            BrokerUnavailable, RecordUnavailable: a server does not answer; nothing was done.
        """
        return self._set_paused(person, queue, "pause", reason)

    def resume(self, person: Person, queue: str, *, reason: str | None = None) -> dict[str, Any]:
        """Let workers read a queue again: they do within a second. Arguments and errors as with `pause`."""
        return self._set_paused(person, queue, "resume", reason)

    def _set_paused(self, person: Person, queue: str, action: str, reason: str | None) -> dict[str, Any]:
        require_admin(person, f"{action} queues")
        if queue not in self._app.queue_names:
            raise QueueNotFound(f"there is no queue {queue[:80]!r}")
        with self._audited(person, action, queue, reason, {}):
            queues.set_paused(self._app, queue, action == "pause")
        return {"name": queue, "paused": action == "pause"}

    def _reopen(self, run: RunView, message: Message) -> int:
        """Record that the run goes on. Returns how often its message was sent on, the next time included."""
        if not run.state.final:
            raise ActionRefused(f"the run is {run.state}: only one that has ended can be tried again")
        if batches.is_batch(run):
            raise ActionRefused("a batch is not a task: retry the members that failed")
        if run.task is None:
            raise ActionRefused("nobody knows which task the run was of, so it cannot be sent again")
        args, kwargs = message
        task = self._app.tasks.get(run.task)
        if task is not None:
            try:
                self._app.prepare(task, args, kwargs)
            except (InvalidArguments, SecretError) as exc:
                raise ActionRefused(f"its arguments do not fit the task any more: {exc}") from exc
        with probes.broker_errors():
            live = self._app.live.get(run.id)
        hop = live.hop + 1 if live else 1
        event = Event(
            kind=Kind.REOPENED, run_id=run.id, at=clock.timestamp(), task=run.task, queue=run.queue,
            owner=run.owner, attempt=run.attempt,
        )  # fmt: skip
        rules = "" if task is None else self._app.rules_of_reopening(task, args, kwargs)
        self._record(event, hop=hop, rules=rules)
        return hop

    def _send_again(self, run: RunView, message: Message, hop: int) -> dict[str, Any]:
        args, kwargs = message
        task = self._app.tasks.get(run.task)
        if run.state in {State.REVOKED, State.EXPIRED}:  # Celery's worker notes both as revoked
            self._let_workers_forget(run.id)
        self._forget_result(run.id)
        # Without "hop" the sending would take the run for one that is known already, and drop it.
        envelope: dict[str, Any] = {"hop": hop, "queued_at": round(clock.timestamp(), 3)}
        envelope |= marks_of_run(self._app, run.id)
        if run.owner is not None:
            envelope["owner"] = run.owner
        headers = {"errands": envelope}
        family = {"parent_id": run.parent_id, "root_id": run.root_id}
        try:
            with self._app.acting_as(run.owner), probes.broker_errors():
                if task is not None:
                    priority = run.priority if run.priority != "normal" else None  # None: as the task says
                    # Where the call named a queue: there again, while the app has it.
                    there = {"queue": run.queue} if run.queue in self._app.queue_names else {}
                    task.apply_async(
                        args, kwargs, task_id=run.id, headers=headers, priority=priority, **family, **there
                    )
                else:
                    options = {"queue": run.queue, **family}
                    self._app.send_task(
                        str(run.task), args, kwargs, task_id=run.id, headers=headers, **options
                    )
        except BrokerUnavailable as exc:
            self._record_unsent(run, exc)
            raise
        return _answer(run.id, State.QUEUED, run.attempt + 1)

    def _record(self, event: Event, hop: int = -1, rules: str = "") -> None:
        with probes.broker_errors():
            reply = self._app.live.record(event, hop=hop, rules=rules)
        if reply.verdict is Verdict.DUPLICATE:
            raise ActionRefused(
                f"another run does the same work by now: {reply.about}. Wait until it has ended, or revoke it"
            )
        if reply.verdict is not Verdict.OK:
            raise ActionRefused("the run has just moved on; look again")

    def _record_unsent(self, run: RunView, why: BrokerUnavailable) -> None:
        error = {"type": type(why).__name__, "message": f"it could not be sent again: {why}"}
        event = Event(kind=Kind.FAILED, run_id=run.id, at=clock.timestamp(), task=run.task, error=error)
        try:
            self._record(event)
        except (BrokerUnavailable, ActionRefused):
            logger.exception("%s[%s] was reopened, but could not be sent", run.task, run.id)

    @contextmanager
    def _audited(
        self, person: Person, action: str, target: str, reason: str | None, details: dict[str, Any]
    ) -> Iterator[Connection]:
        with audited(self._app, person, action, target, reason, details) as connection:
            yield connection

    def _take_out(self, run_id: str, queue: str | None) -> None:
        """A message that is due in a year would otherwise lie there for a year."""
        try:
            queues.remove_delayed(self._app, queue or self._app.conf.task_default_queue, run_id)
        except BrokerUnavailable:  # it will be refused when it is due
            logger.warning("the delayed message of %s could not be taken out", run_id, exc_info=True)

    def _tell_celery(self, run_id: str, terminate: bool) -> None:
        """For plain Celery workers, which do not ask; for code that waits for the result; to terminate."""
        try:
            self._app.control.revoke(run_id, terminate=terminate)
            self._app.backend.mark_as_revoked(run_id, reason="revoked")
        except Exception:  # the run is revoked already, whatever Celery's own means do
            logger.warning("Celery could not be told that %s is revoked", run_id, exc_info=True)

    def _let_workers_forget(self, run_id: str) -> None:
        """Celery's workers throw away whatever carries the id of a run that they were told is revoked."""
        if self._app.settings.inline:
            return
        try:
            self._app.control.broadcast(
                _REOPEN, arguments={"task_id": run_id}, reply=True, timeout=_REOPEN_SECONDS,
                limit=len(probes.live_workers(self._app)) or None,
            )  # fmt: skip
        except Exception:
            logger.warning("workers could not be told that %s may run again", run_id, exc_info=True)

    def _forget_result(self, run_id: str) -> None:
        try:
            self._app.backend.forget(run_id)  # a success would never be overwritten
        except Exception:
            logger.warning("the old result of %s could not be removed", run_id, exc_info=True)


def _answer(run_id: str, state: State, attempt: int) -> dict[str, Any]:
    return {"task_id": run_id, "status": celery_status(state), "state": state.value, "attempt": attempt}
