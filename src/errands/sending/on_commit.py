"""Runs that wait in the outbox for their transaction, and are sent in bulk after it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import kombu.exceptions
import redis

from errands.broker.message import any_payload
from errands.core import clock
from errands.core.errors import BrokerUnavailable
from errands.sending.calls import Call
from errands.sending.many import ManyCalls
from errands.sending.one import Context

if TYPE_CHECKING:
    from errands.store.engine import Database

logger = logging.getLogger("errands")

# These tell of the broker and not of the row: the rows behind it would fail the same way.
AWAY = (BrokerUnavailable, kombu.exceptions.OperationalError, redis.RedisError)
_CHUNK = 500  # rows in one commit


class Sending(ManyCalls):
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

        run_id = task_id or self.new_id()
        owner = self.envelope(None, None, owner)["errands"].get("owner")
        outbox.add(
            session, self.publish_committed, run_id=run_id, task=name, args=list(args), kwargs=dict(kwargs),
            options=options, owner=owner,
        )  # fmt: skip
        return run_id

    def publish_committed(self, run_ids: Sequence[str]) -> None:
        """Send what a commit left in the outbox. What cannot be sent now stays for the relay.

        Raises:
            Exception: what is wrong with a row that cannot be sent for its own fault.
        """
        from errands.store import outbox

        for start in range(0, len(run_ids), _CHUNK):
            rows = outbox.rows(self.database, run_ids[start : start + _CHUNK])
            try:
                refused = self.publish_outbox(rows)
            except AWAY as exc:
                logger.warning(
                    "%s runs stay in the outbox, the relay will send them: %s", len(run_ids) - start, exc
                )
                return
            outbox.remove(self.database, [row.id for row in rows if row.id not in refused])
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
        for row in rows:
            try:
                call = self._of_row(context, row)
            except AWAY:
                raise
            except Exception as exc:  # noqa: BLE001 - one bad row must not hold up those behind it
                refused[row.id] = exc
            else:
                calls += [call] if call is not None else []
        if calls:
            self._commit(calls)
        return refused

    def _of_row(self, context: Context, row: Any) -> Call | None:
        """The call that a row asks for; None where Celery has sent it."""
        errands = {"queued_at": round(clock.timestamp(), 3)}
        if row.owner is not None:
            errands["owner"] = row.owner
        options = {**(row.options or {}), "headers": {"errands": errands}}
        task = self.tasks.get(row.task)
        if getattr(task, "function", None) is not None:
            ready = self._ready(context, task, row.args, row.kwargs, row.id, None, options)
        else:
            payload = partial(any_payload, row.args, row.kwargs)
            call = self._call(context, row.task, task, payload, row.id, None, options)
            by_name = partial(self.send_task, row.task, row.args, row.kwargs, task_id=row.id, **options)
            ready = call or by_name
        if isinstance(ready, Call):
            return ready
        ready()
        return None
