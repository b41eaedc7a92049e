"""The recipients of a run, as people see them; and sending again to those who were refused."""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from errands.core.deliveries import REFUSED, Delivery, DeliveryState, masked
from errands.core.errors import ActionRefused
from errands.core.secrets import mask
from errands.ops.access import Person
from errands.ops.actions import Actions
from errands.ops.errors import RecordUnavailable
from errands.ops.run_view import iso
from errands.store import deliveries, letters

State = DeliveryState
MOST = 1000  # rows in one page


class DeliveryOps(Actions):
    """Questions and deeds about the recipients of an app's runs: for who owns the run, and for admins."""

    def page(
        self, person: Person, run_id: str, *, after: int = -1, limit: int = 100,
        state: DeliveryState | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """What became of whom.

        Args:
            person: who asks. Addresses are shown to the owner, and to admins with the role "personal-data";
                to others masked.
            run_id: whose recipients.
            after: the position behind which the page begins.
            limit: rows at most, 1 to 1,000.
            state: only those.

        Returns:
            task_id; totals: how many recipients, and how many in each state; deliveries: of each position,
            recipient, state, reason, provider_id, tries, at, retry_at; next: where the next page begins, or
            None. A run that has not begun has no recipients yet.

        Raises:
            RunNotFound: there is no such run, or it is somebody else's.
            RecordUnavailable: a server does not answer.
        """
        run = self._ops.seen(person, run_id)
        open_to = person.sees_personal_data or (run.owner is not None and run.owner == person.id)
        limit = max(1, min(limit, MOST))
        # Nobody is at it any more, and nobody was left to say so.
        told_as = {State.SENDING: State.UNKNOWN} if run.state.final else {}
        wanted = {state, *(kept for kept, told in told_as.items() if told is state)} if state else set()
        try:
            with self._app.database.reading() as connection:
                rows = deliveries.page(connection, run_id, after, limit + 1, wanted)
                totals = deliveries.totals(connection, run_id).as_dict()
        except SQLAlchemyError as exc:
            raise RecordUnavailable("the database does not answer, or has no tables yet") from exc
        for kept, told in told_as.items():
            totals[told] += totals[kept]
            totals[kept] = 0
        return {
            "task_id": run_id,
            "totals": totals,
            "deliveries": [
                _as_dict(row, told_as.get(row.state, row.state), in_full=open_to) for row in rows[:limit]
            ],
            "next": rows[limit - 1].position if len(rows) > limit else None,
        }

    def resend_failed(
        self, person: Person, run_id: str, *, unknown: bool = False, reason: str | None = None
    ) -> dict[str, Any]:
        """Send once more to those who bounced or failed, and to those who still wait though the run has
        ended: the same run, one attempt further.

        Args:
            person: who does it.
            run_id: the run.
            unknown: to those of whom nobody knows as well. They may get it twice.
            reason: for the audit trail.

        Returns:
            task_id, status, state, attempt; recipients: how many are sent to again.

        Raises:
            RunNotFound: there is no such run, or it is somebody else's.
            ActionRefused: the run has not ended, or nobody failed.
            BrokerUnavailable, RecordUnavailable: a server does not answer.
        """
        self._ops.seen(person, run_id)
        run = self._ops.find(run_id)
        if not run.state.final:
            raise ActionRefused(f"the run is {run.state}: wait until it has ended, or revoke it")
        message = self._ops.message(run)
        if message is None:
            raise ActionRefused("nobody kept the run's arguments, so it cannot be sent again")
        states = REFUSED | {DeliveryState.UNKNOWN} if unknown else REFUSED
        details: dict[str, Any] = {"unknown": unknown, "attempt": run.attempt + 1}
        with self._audited(person, "resend_failed", run_id, reason, details) as connection:
            deliveries.requeue(connection, run_id, states)
            again = deliveries.totals(connection, run_id)
            # Who still waits when a run has ended never had a turn. The next attempt tells as unknown whom
            # the last one was sending to: whether that is over, nobody knows here.
            if not again["queued"] + again["deferred"] + (again["sending"] if unknown else 0):
                raise ActionRefused("nobody failed, so there is nobody to send to again")
            hop = self._reopen(run, message)
            letters.mark_run_replayed(connection, run_id)
        return self._send_again(run, message, hop) | {"recipients": again["queued"] + again["deferred"]}


def _as_dict(row: Delivery, state: DeliveryState, *, in_full: bool) -> dict[str, Any]:
    reason = mask(row.reason)
    if reason and row.address and not in_full:
        reason = reason.replace(row.address, masked(row.address))
    return {
        "position": row.position,
        "recipient": row.address if in_full else masked(row.address),
        "state": state.value,
        "reason": reason,
        "provider_id": row.provider_id,
        "tries": row.tries,
        "at": iso(row.at),
        "retry_at": iso(row.retry_at),
    }
