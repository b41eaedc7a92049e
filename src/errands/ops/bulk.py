"""One deed on many runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from errands.core.errors import ActionRefused, RunNotFound
from errands.core.states import OPEN
from errands.ops import probes
from errands.ops.access import Person, require_admin
from errands.ops.actions import Actions
from errands.ops.host import App
from errands.store import reads
from errands.store.rows import RunFilter

_MOST = 1000  # runs in one call, so that nobody waits for minutes


class BulkActions:
    """Deeds on all runs that match. Each run is audited by itself."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._actions = Actions(app)

    def revoke(
        self, person: Person, which: RunFilter, *, terminate: bool = False, reason: str | None = None,
        limit: int = _MOST,
    ) -> dict[str, Any]:  # fmt: skip
        """Revoke the runs that match and have not ended, the newest first.

        They are found in the ledger, which may be a moment behind: what was sent just now is found by a
            second
        call.

        Args:
            person: who does it.
            which: of which task, queue, owner, …; at least one must be named. States that are final are left
                out.
            terminate, reason: as with `Actions.revoke`.
            limit: how many at most, up to 1,000.

        Returns:
            `revoked`: their ids; `ended`: how many ended by themselves meanwhile; `more`: whether others
            match.

        Raises:
            NotAllowed: `person` is no admin.
            ActionRefused: nothing is named.
            BrokerUnavailable, RecordUnavailable: a server does not answer; what was revoked until then is.
        """
        require_admin(person, "revoke runs")
        if replace(which, states=()) == RunFilter():
            raise ActionRefused("this would revoke every run: name a task, a queue, an owner or times")
        states = OPEN.intersection(which.states) if which.states else OPEN
        if not states:
            return {"revoked": [], "ended": 0, "more": False}
        limit = max(1, min(limit, _MOST))
        with probes.record_errors(), self._app.database.reading() as connection:
            found = reads.runs(connection, replace(which, states=states), limit + 1)
        revoked: list[str] = []
        for run in found[:limit]:
            try:
                self._actions.revoke(person, run.id, terminate=terminate, reason=reason)
            except (ActionRefused, RunNotFound):  # it has moved on since the ledger heard of it
                continue
            revoked.append(run.id)
        return {
            "revoked": revoked, "ended": len(found[:limit]) - len(revoked), "more": len(found) > limit
        }  # fmt: skip
