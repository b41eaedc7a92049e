"""The webhook kit's tables, beside the library's own in the same database."""

from __future__ import annotations

from sqlalchemy import Boolean, Column, ForeignKey, Index, Integer, Table, Text

from errands import metadata
from errands.store.types import Json, PlainText, UtcDateTime

endpoints = Table(
    "errands_webhook_endpoints",
    metadata,
    Column("id", Text, primary_key=True),
    # Unique: a run names its endpoint by the address.
    Column("url", Text, nullable=False, unique=True),
    Column("secrets", Text, nullable=False),  # a list, the newest first; sealed
    Column("events", Json, nullable=False),  # a list of names; `course.*` and `*` stand for many
    Column("active", Boolean, nullable=False),
    Column("disabled_reason", PlainText),
    Column("created_at", UtcDateTime, nullable=False),
    Column("created_by", Text),
)

# One row for each attempt.
deliveries = Table(
    "errands_webhook_deliveries",
    metadata,
    Column("id", Text, primary_key=True),
    Column("run_id", Text, nullable=False),
    Column("endpoint_id", Text, ForeignKey(endpoints.c.id, ondelete="SET NULL")),
    Column("event", Text, nullable=False),
    Column("url", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("status_code", Integer),  # NULL: no answer came
    Column("error", PlainText),
    Column("duration_ms", Integer, nullable=False),
    Column("at", UtcDateTime, nullable=False),
    Column("next_try_at", UtcDateTime),  # about; NULL: none follows
    Column("delivered_at", UtcDateTime),
)
Index("errands_webhook_deliveries_endpoint", deliveries.c.endpoint_id, deliveries.c.at)
Index("errands_webhook_deliveries_run", deliveries.c.run_id)
Index("errands_webhook_deliveries_at", deliveries.c.at)
