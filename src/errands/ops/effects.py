"""Outside effects of runs: what is known of them, and what a person found out."""

from __future__ import annotations

from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from errands.core.effects import EffectRow, Standing
from errands.core.errors import ActionRefused, RunNotFound
from errands.core.secrets import mask
from errands.ops import probes
from errands.ops.access import Person, require_admin
from errands.ops.audit import audited
from errands.ops.host import App
from errands.ops.run_view import iso
from errands.store import effects


class EffectOps:
    """Questions and deeds about an app's effects."""

    def __init__(self, app: App) -> None:
        self._app = app

    def unknown(self, person: Person, limit: int = 100) -> list[dict[str, Any]]:
        """Effects of which nobody can say whether they happened, the newest first.

        Raises:
            NotAllowed: `person` is no admin.
            RecordUnavailable: the database does not answer.
        """
        require_admin(person, "see effects")
        with probes.record_errors(), self._app.database.reading() as connection:
            return [_as_dict(row) | {"task_id": row.run_id} for row in effects.unknown(connection, limit)]

    def settle(
        self, person: Person, run_id: str, name: str, *, done: bool, result: Any = None, scope: str | None =
            None,
        reason: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Say what became of an effect that is not known to be done. The run itself is not touched: retry it
        then.

        Args:
            person: who says so.
            run_id: the run that began it last.
            name: the effect's name.
            done: it has happened, and `run.once` will give `result`; else it will be done.
            result: what the function would have returned, as JSON.
            scope: what the effect belongs to, where it is not the run itself.
            reason: for the audit trail.

        Raises:
            NotAllowed: `person` is no admin.
            RunNotFound: the run has no such effect.
            ActionRefused: it is known to be done already, or has moved on.
            RecordUnavailable: the database does not answer; nothing was done.
        """
        require_admin(person, "settle effects")
        wanted = (scope or run_id, name)
        with probes.record_errors():
            row = next((row for row in self._app.effects.of_run(run_id) if row.key == wanted), None)
        if row is None:
            raise RunNotFound("the run has no such effect")
        if row.state is Standing.DONE:
            raise ActionRefused(f"the effect {name!r} is done already")
        details = {"effect": name, "scope": row.scope, "done": done}
        with audited(self._app, person, "settle_effect", run_id, reason, details) as connection:
            if not effects.settle(connection, row, done=done, result=result):
                raise ActionRefused("the effect has just moved on; look again")
        return {"task_id": run_id, "name": name, "scope": row.scope, "state": "done" if done else "not done"}


def of_run(app: App, run_id: str) -> list[dict[str, Any]]:
    """What is known of a run's effects; nothing where the database does not answer."""
    try:
        return [_as_dict(row) for row in app.effects.of_run(run_id)]
    except SQLAlchemyError:
        return []  # the run itself was found; this comes later


def _as_dict(row: EffectRow) -> dict[str, Any]:
    return {
        "name": row.name,
        "scope": row.scope,
        "state": row.state.value,
        "attempt": row.attempt,
        "at": iso(row.at),
        "result": mask(row.result),
        "error": mask(row.error),
    }
