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
    Column("previous_until", UtcDateTime),  # when the second secret ends; NULL: with the next rotation
    Column("ordered", Boolean),  # NULL: no
    Column("failing_since", UtcDateTime),  # the first failure after the last success
    Column("failures", Integer),  # attempts that failed since then
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
    Column("message_id", Text),  # the webhook-id; the same at every attempt and replay
    Column("body", Text),  # what was sent: in one row of a message, for a replay
)
Index("errands_webhook_deliveries_endpoint", deliveries.c.endpoint_id, deliveries.c.at)
Index("errands_webhook_deliveries_run", deliveries.c.run_id)
Index("errands_webhook_deliveries_at", deliveries.c.at)
Index("errands_webhook_deliveries_message", deliveries.c.message_id)

# What waits for its turn at an endpoint that wants its events in order.
line = Table(
    "errands_webhook_line",
    metadata,
    Column("id", Text, primary_key=True),  # the webhook-id
    Column("endpoint_id", Text, ForeignKey(endpoints.c.id, ondelete="CASCADE"), nullable=False),
    Column("position", Text, nullable=False),  # the id of the run that brought it; these sort by time
    Column("event", Text, nullable=False),
    Column("body", Text, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("next_try_at", UtcDateTime),  # NULL: as soon as it is its turn
    Column("run_id", Text),  # that made the last attempt
)
Index("errands_webhook_line_endpoint", line.c.endpoint_id, line.c.position)
