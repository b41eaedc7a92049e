"""What people do to runs and queues: for admins only, and in the audit trail or not done."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from errands.broker.runs import Verdict
from errands.core import clock
from errands.core.errors import ActionRefused, BrokerUnavailable, InvalidArguments, RunNotFound, SecretError
from errands.core.events import Event, Kind
from errands.core.states import State, celery_status
from errands.ops import probes, queues
from errands.ops.access import Person, require_admin
from errands.ops.errors import QueueNotFound
from errands.ops.host import App
from errands.ops.run_view import RunView
from errands.ops.views import Ops
from errands.store import outbox, reads, writes

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

        Workers ask before they start a run, so this holds for messages in any queue and in any worker's
        memory. An attempt that is under way is ended by `terminate` only (in a worker with child processes);
        without it, it works on to its end, and what it brings is not recorded.

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
        with self._audited(person, "retry", run_id, reason, {"attempt": run.attempt + 1}):
            hop = self._reopen(run, message)
        return self._send_again(run, message, hop)

    def replay(self, person: Person, letter_id: str, *, reason: str | None = None) -> dict[str, Any]:
        """Send the run of a dead letter again, once what was wrong is mended.

        Args:
            person: who does it.
            letter_id: the dead letter's id.
            reason: for the audit trail.

        Raises:
            RunNotFound: there is no such dead letter.
            ActionRefused: it was sent again already; or it holds no message that could be sent.
            And what `retry` raises.
        """
        require_admin(person, "replay dead letters")
        if not letter_id.isprintable():
            raise RunNotFound("there is no dead letter with this id")
        with probes.record_errors(), self._app.database.reading() as connection:
            letter = reads.dead_letter(connection, letter_id)
        if letter is None:
            raise RunNotFound("there is no dead letter with this id")
        message = _message_in(letter.message or {})
        if message is None or not letter.run_id or not letter.task:
            raise ActionRefused("this dead letter holds no message that could be sent again")
        if letter.task not in self._app.tasks:
            raise ActionRefused(f"no task is registered under the name {letter.task!r}")
        try:
            run = self._ops.find(letter.run_id)
        except RunNotFound:  # older than the record
            run = RunView(id=letter.run_id, state=State.FAILED, task=letter.task, queue=letter.queue)
        details = {"task_id": letter.run_id}
        with self._audited(person, "replay", letter_id, reason, details) as connection:
            if not writes.mark_replayed(connection, letter_id):
                raise ActionRefused("this dead letter was sent again already")
            hop = self._reopen(run, message)
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
        self._record(event, hop=hop)
        return hop

    def _send_again(self, run: RunView, message: Message, hop: int) -> dict[str, Any]:
        args, kwargs = message
        task = self._app.tasks.get(run.task)
        if run.state is State.REVOKED:
            self._let_workers_forget(run.id)
        self._forget_result(run.id)
        # Without "hop" the sending would take the run for one that is known already, and drop it.
        envelope: dict[str, Any] = {"hop": hop, "queued_at": round(clock.timestamp(), 3)}
        if run.owner is not None:
            envelope["owner"] = run.owner
        headers = {"errands": envelope}
        try:
            with self._app.acting_as(run.owner), probes.broker_errors():
                if task is not None:
                    task.apply_async(args, kwargs, task_id=run.id, headers=headers)
                else:
                    self._app.send_task(
                        str(run.task), args, kwargs, task_id=run.id, headers=headers, queue=run.queue
                    )
        except BrokerUnavailable as exc:
            self._record_unsent(run, exc)
            raise
        return _answer(run.id, State.QUEUED, run.attempt + 1)

    def _record(self, event: Event, hop: int = -1) -> None:
        with probes.broker_errors():
            reply = self._app.live.record(event, hop=hop)
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
        """The deed is done inside the transaction that writes it down: if it fails, nothing is written."""
        with probes.record_errors(), self._app.database.writing() as connection:
            writes.add_audit(
                connection, audit_id=self._app.new_id(), actor=person.id, action=action, target=target,
                reason=reason, details=details,
            )  # fmt: skip
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


def _message_in(kept: dict[str, Any]) -> Message | None:
    """The arguments in a dead letter: as a worker wrote them, or in the body of an undelivered message."""
    if "args" in kept:
        return kept["args"], kept.get("kwargs") or {}
    if kept.get("truncated") or kept.get("content_type") != "application/json":
        return None
    try:
        args, kwargs, _embedded = json.loads(base64.b64decode(kept["body"]))
    except (KeyError, ValueError, TypeError):
        return None
    return (args, kwargs) if isinstance(args, list) and isinstance(kwargs, dict) else None
