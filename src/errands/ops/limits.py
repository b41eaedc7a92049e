"""Limits as people see and change them: for admins only, and in the audit trail or not done."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from errands.core.errors import ActionRefused, ConfigurationError
from errands.core.limits import Bound
from errands.ops.access import Person, require_admin
from errands.ops.host import App
from errands.ops.probes import broker_errors, record_errors
from errands.store import writes


class LimitOps:
    """What is asked about limits, and done to them."""

    def __init__(self, app: App) -> None:
        self._app = app

    def all(self, person: Person) -> list[dict[str, Any]]:
        """Each limit: name, declared, now, changed, by, tasks, waiting.

        Raises:
            NotAllowed: `person` is no admin.
            BrokerUnavailable: Valkey does not answer.
        """
        require_admin(person, "see limits")
        with broker_errors():
            return [{**asdict(found), "changed": found.changed} for found in self._app.limits.all()]

    def change(
        self, person: Person, name: str, to: str | int, *, reason: str | None = None
    ) -> dict[str, Any]:
        """Change a limit for all workers at once, until it is reset.

        Args:
            person: who does it.
            name: of the task, or of the limit.
            to: "50/m", or how many at once.
            reason: for the audit trail.

        Raises:
            NotAllowed: `person` is no admin.
            LimitNotFound: there is no such limit.
            ActionRefused: `to` is no limit.
            BrokerUnavailable, RecordUnavailable: a server does not answer; nothing was done.
        """
        require_admin(person, "change limits")
        try:
            bound = str(Bound.parse(to))
        except ConfigurationError as exc:
            raise ActionRefused(str(exc)) from exc
        self._do(
            person, "limit.change", name, reason, {"to": bound}, lambda: self._app.limits.change(name, to)
        )
        return {"name": name, "now": bound}

    def reset(self, person: Person, name: str, *, reason: str | None = None) -> dict[str, Any]:
        """Let what the code says hold again. Raises as `change` does."""
        require_admin(person, "change limits")
        self._do(person, "limit.reset", name, reason, {}, lambda: self._app.limits.reset(name))
        return {"name": name}

    def _do(
        self, person: Person, action: str, name: str, reason: str | None, details: dict[str, Any], deed: Any
    ) -> None:
        """The deed is done inside the transaction that writes it down: if it fails, nothing is written."""
        with record_errors(), self._app.database.writing() as connection:
            writes.add_audit(
                connection, audit_id=self._app.new_id(), actor=person.id, action=action, target=name,
                reason=reason, details=details,
            )  # fmt: skip
            with broker_errors():
                deed()
