"""Runs that wait in the outbox for their transaction, and are sent in bulk after it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import kombu.exceptions
import redis
from celery.utils.time import maybe_make_aware

from errands.broker.message import any_payload
from errands.broker.runs import Verdict
from errands.core import clock
from errands.core.batches import BATCH_TASK, filling
from errands.core.errors import ActionRefused, BrokerUnavailable, Discard, InvalidArguments, SecretError
from errands.core.options import checked
from errands.sending import claims, deadlines, refusals, unique
from errands.sending.batches import Batching
from errands.sending.calls import Call, read_call, tell_after
from errands.sending.membership import member_on_commit
from errands.sending.one import Context
from errands.sending.scheduled import ScheduledCalls
from errands.task import Task

if TYPE_CHECKING:
    from errands.store.engine import Database

logger = logging.getLogger("errands")

# These tell of the broker and not of the row: the rows behind it would fail the same way.
AWAY = (BrokerUnavailable, kombu.exceptions.OperationalError, redis.RedisError)
_CHUNK = 500  # rows in one commit
_SILENT = "errands_silent"  # in a session's info: when the broker did not answer
_ONE_WAIT = 5.0  # seconds for which that is enough


class Sending(Batching, ScheduledCalls):
    """The half of `Errands` through which all runs are sent."""

    if TYPE_CHECKING:

        @property
        def database(self) -> Database: ...

    def send_on_commit(
        self, session: Any, name: str, args: Any, kwargs: Any, *, task_id: str | None, owner: str | None,
        **options: Any,
    ) -> str:  # fmt: skip
        """Write the run into the outbox, in the session's transaction; send it after the commit."""
        from errands.store import outbox  # with SQLAlchemy, which is here already where there is a session

        if task_id is None:
            first = self._there_already(outbox.session_of(session), name, args, kwargs, options)
            if first is not None:
                return first
        run_id = task_id or self.new_id()
        marks = self.envelope(None, None, owner)["errands"]
        owner = marks.get("owner")
        options, eta = _absolute(checked(name, {**options, **member_on_commit(name)}))
        if "subject" in marks:  # it may be sent by another process, which knows nothing of the run at hand
            options["headers"] = _with_marks(options.get("headers"), {"subject": marks["subject"]})
        args, kwargs = self.offload_with(session, self.tasks.get(name), args, kwargs, run_id)
        outbox.add(
            session, self.publish_committed, run_id=run_id, task=name, args=list(args), kwargs=dict(kwargs),
            options=options, owner=owner, eta=eta,
        )  # fmt: skip
        return run_id

    def _there_already(
        self, session: Any, name: str, args: Any, kwargs: Any, options: dict[str, Any]
    ) -> str | None:
        """The run that stands for a call already, where that is known at once: then no row is needed.

        A second request that changes the first one's run is no business of others before its commit.
        """
        task = self.tasks.get(name)
        rule = unique.rule_of(task, options)
        if rule is None or rule.replaces or filling.get() is not None:
            return None
        if 0 <= clock.timestamp() - session.info.get(_SILENT, float("-inf")) < _ONE_WAIT:
            return None
        try:
            return claims.look(self, rule, task, args, kwargs)
        except redis.RedisError as exc:
            session.info[_SILENT] = clock.timestamp()  # one wait is enough for a transaction
            logger.info("whether %s is there already shows when it is sent: %s", name, exc)
            return None

    def send_many_on_commit(
        self, session: Any, task: Task[..., Any], calls: Iterable[Any], owner: str | None,
        options: dict[str, Any],
    ) -> list[str]:  # fmt: skip
        """Write many runs into the outbox: what `Task.delay_many_on_commit` does."""
        from errands.store import outbox

        def added() -> Iterator[str]:
            for index, given in enumerate(calls):
                try:
                    args, kwargs, own = read_call(task.name, given)
                    own = {"task_id": None, "owner": owner, **options, **own}
                    yield task.apply_on_commit(session, args, kwargs, **own)
                except (InvalidArguments, SecretError) as exc:
                    raise refusals.of_call(exc, index, 0) from exc

        return list(outbox.in_chunks(session, added()))

    def publish_committed(self, run_ids: Sequence[str]) -> None:
        """Send what a commit left in the outbox. What cannot be sent now stays for the relay.

        Raises:
            Exception: what is wrong with a row that cannot be sent for its own fault.
        """
        from sqlalchemy.exc import DBAPIError

        from errands.store import outbox

        for start in range(0, len(run_ids), _CHUNK):
            try:
                rows = outbox.rows(self.database, run_ids[start : start + _CHUNK])
                refused = self.publish_outbox(rows)
                self._sent(rows, refused)
            except (*AWAY, DBAPIError) as exc:
                # The transaction is committed: whoever made it has nothing to do with what follows.
                logger.warning(
                    "%s runs stay in the outbox, the relay will send them: %s", len(run_ids) - start, exc
                )
                return
            for error in refused.values():
                raise error

    def publish_outbox(self, rows: Sequence[Any]) -> dict[str, Exception]:
        """Send rows of the outbox, in one commit where they go to our broker. Sent twice, a row is one run.

        Returns:
            What is wrong with those that cannot be sent, by their ids.

        Raises:
            BrokerUnavailable, kombu.exceptions.OperationalError, redis.RedisError: the broker is away. Some
                rows may have been sent; sending all of them again is safe.
        """
        refused: dict[str, Exception] = {}
        calls: list[Call] = []
        context = self.context()
        for row in (row for row in rows if row.task != BATCH_TASK):
            try:
                call = self._of_row(context, row)
            except AWAY:
                raise
            except Exception as exc:  # noqa: BLE001 - one bad row must not hold up those behind it
                refused[row.id] = exc
            else:
                calls += [call] if call is not None else []
        if calls:
            refused |= self._commit_rows(calls)
        return refused | self._open_committed(rows)

    def _open_committed(self, rows: Sequence[Any]) -> dict[str, Exception]:
        """Open the batches among `rows`, whose members were sent. Returns what is wrong, by their ids."""
        from errands.store import outbox

        refused: dict[str, Exception] = {}
        sent = {row.id for row in rows}
        for row in (row for row in rows if row.task == BATCH_TASK):
            if outbox.members_waiting(self.database, row.id, sent):
                refused[row.id] = ActionRefused("members of this batch are still in the outbox")
            else:
                self.open_committed(row, self._expected(row))
        return refused

    def _expected(self, row: Any) -> int:
        """How many members of a batch the server is to know; 0 where it was told of them just now."""
        if clock.now() - row.created_at < timedelta(seconds=self.settings.outbox_after):
            return 0
        from errands.store import batches

        with self.database.reading() as connection:
            return batches.members(connection, row.id).total

    def _commit_rows(self, calls: list[Call]) -> dict[str, Exception]:
        """Commit `calls`. Returns what is wrong with those that the server did not take, by their ids."""
        try:
            replies = self._live_runs.commit([call.operation for call in calls])
        except redis.RedisError as exc:
            raise refusals.of_broker(exc, calls, 0, self.settings.broker_url) from exc
        refused: dict[str, Exception] = {}
        others: list[str] = []
        for call, reply in zip(calls, replies, strict=True):
            if reply.verdict is Verdict.DUPLICATE:
                logger.info("%s[%s] is the same work as %s", call.terms.name, call.run_id, reply.about)
                others.append(call.run_id)
                self.adopt_payload(call.terms.task, call.run_id, reply.about)
                self._end_waiting(call.run_id, reply.about)
            elif reply.verdict is Verdict.REFUSED:
                refused[call.run_id] = ActionRefused(f"it was not sent: {reply.about}")
            else:
                tell_after(call)
        if others:  # they have ended, with this
            from errands.store import outbox

            outbox.remove(self.database, others)
        return refused

    def _sent(self, rows: Sequence[Any], refused: dict[str, Exception]) -> None:
        from errands.store import outbox

        sent = [row.id for row in rows if row.id not in refused]
        if not sent:
            return
        if self.settings.inline or self.is_capturing:  # nothing can be lost, and no ledger tells of the end
            outbox.remove(self.database, sent)
        else:
            outbox.mark_sent(self.database, sent)

    def _of_row(self, context: Context, row: Any) -> Call | None:
        """The call that a row asks for; None where Celery has sent it."""
        errands: dict[str, Any] = {"queued_at": round(clock.timestamp(), 3)}
        if row.owner is not None:
            errands["owner"] = row.owner
        options = {"unique": unique.HANDED_OUT, **(row.options or {})}
        options["headers"] = _with_marks(options.get("headers"), errands)
        errands = options["headers"]["errands"]
        if (batch := options.pop("batch", None)) is not None:
            errands["batch"] = batch
        if row.eta is not None:
            options["eta"] = row.eta
        if isinstance(options.get("expires"), str):
            options["expires"] = datetime.fromisoformat(options["expires"])
        if row.sent_at is not None:  # the broker has lost it
            errands["attempts"] = row.attempt
            options["retries"] = row.failed
        task = self.tasks.get(row.task)
        if (seconds := deadlines.seconds_of(row.task, task, options)) is not None:
            errands[deadlines.FIELD] = row.created_at.timestamp() + seconds
        if getattr(task, "function", None) is not None:
            ready = self._ready(context, task, row.args, row.kwargs, row.id, None, options)
        else:
            payload = partial(any_payload, row.args, row.kwargs)
            call = self._call(context, row.task, task, payload, row.id, None, options)
            by_name = partial(self.send_task, row.task, row.args, row.kwargs, task_id=row.id, **options)
            ready = call or by_name
        if isinstance(ready, Call):
            return ready
        result = ready()
        if getattr(result, "duplicate", False):
            self._end_waiting(row.id, result.id)
        return None

    def _end_waiting(self, run_id: str, first: str) -> None:
        """Who waits for the result of a run that another one stands for is told so."""
        if self.is_capturing:
            return
        try:
            self.backend.store_result(run_id, Discard(f"duplicate of {first}"), "FAILURE")
        except Exception:  # the run has ended already; its state tells the same
            logger.warning("Celery could not be told that %s is a duplicate", run_id, exc_info=True)


def _with_marks(headers: Any, marks: dict[str, Any]) -> dict[str, Any]:
    """The headers that a caller gave, with ours among them."""
    given = dict(headers or {})
    return {**given, "errands": {**(given.get("errands") or {}), **marks}}


def _absolute(options: dict[str, Any]) -> tuple[dict[str, Any], datetime | None]:
    """Options as JSON, and when the run is due: seconds count from the call, however late it is sent."""
    options, now, eta = dict(options), clock.now(), None
    countdown, due, expires = options.pop("countdown", None), options.pop("eta", None), options.get("expires")
    if countdown is not None:
        eta = now + timedelta(seconds=float(countdown))
    elif due is not None:
        moment: datetime = maybe_make_aware(datetime.fromisoformat(due) if isinstance(due, str) else due)
        eta = moment.astimezone(UTC)
    if isinstance(expires, int | float):
        options["expires"] = (now + timedelta(seconds=expires)).isoformat()
    elif isinstance(expires, datetime):
        options["expires"] = maybe_make_aware(expires).astimezone(UTC).isoformat()
    return options, eta
