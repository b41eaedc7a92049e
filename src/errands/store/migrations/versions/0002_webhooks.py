"""Webhook endpoints and their deliveries.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "errands_webhook_endpoints",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("url", sa.Text, nullable=False, unique=True),
        sa.Column("secrets", sa.Text, nullable=False),
        sa.Column("events", sa.Text, nullable=False),
        sa.Column("active", sa.Boolean, nullable=False),
        sa.Column("disabled_reason", sa.Text),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("created_by", sa.Text),
    )
    op.create_table(
        "errands_webhook_deliveries",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("endpoint_id", sa.Text, sa.ForeignKey("errands_webhook_endpoints.id", ondelete="SET NULL")),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("url", sa.Text, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("status_code", sa.Integer),
        sa.Column("error", sa.Text),
        sa.Column("duration_ms", sa.Integer, nullable=False),
        sa.Column("at", _time, nullable=False),
        sa.Column("next_try_at", _time),
        sa.Column("delivered_at", _time),
    )
    op.create_index(
        "errands_webhook_deliveries_endpoint", "errands_webhook_deliveries", ["endpoint_id", "at"]
    )
    op.create_index("errands_webhook_deliveries_run", "errands_webhook_deliveries", ["run_id"])
    op.create_index("errands_webhook_deliveries_at", "errands_webhook_deliveries", ["at"])


def downgrade() -> None:
    op.drop_table("errands_webhook_deliveries")
    op.drop_table("errands_webhook_endpoints")
