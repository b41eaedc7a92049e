"""The audit trail: what people did is written down, or not done."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection

from errands.ops.access import Person
from errands.ops.host import App
from errands.ops.probes import record_errors
from errands.store import writes


@contextmanager
def audited(
    app: App, person: Person, action: str, target: str, reason: str | None, details: dict[str, Any]
) -> Iterator[Connection]:
    """The deed is done inside the transaction that writes it down: if it fails, nothing is written.

    Raises:
        RecordUnavailable: the database does not answer.
    """
    with record_errors(), app.database.writing() as connection:
        writes.add_audit(
            connection, audit_id=app.new_id(), actor=person.id, action=action, target=target, reason=reason,
            details=details,
        )  # fmt: skip
        yield connection
