"""How long a webhook endpoint has failed, when its old secret ends, and what waits for its turn there.

Revision ID: 0011
Revises: 0010
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_time = sa.DateTime(timezone=True)


def upgrade() -> None:
    for column in (
        sa.Column("previous_until", _time),
        sa.Column("ordered", sa.Boolean),
        sa.Column("failing_since", _time),
        sa.Column("failures", sa.Integer),
    ):
        op.add_column("errands_webhook_endpoints", column)
    op.add_column("errands_webhook_deliveries", sa.Column("message_id", sa.Text))
    op.add_column("errands_webhook_deliveries", sa.Column("body", sa.Text))
    op.create_index("errands_webhook_deliveries_message", "errands_webhook_deliveries", ["message_id"])
    op.create_table(
        "errands_webhook_line",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column(
            "endpoint_id",
            sa.Text,
            sa.ForeignKey("errands_webhook_endpoints.id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("position", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_try_at", _time),
        sa.Column("run_id", sa.Text),
    )
    op.create_index("errands_webhook_line_endpoint", "errands_webhook_line", ["endpoint_id", "position"])


def downgrade() -> None:
    op.drop_table("errands_webhook_line")
    op.drop_index("errands_webhook_deliveries_message", "errands_webhook_deliveries")
    op.drop_column("errands_webhook_deliveries", "body")
    op.drop_column("errands_webhook_deliveries", "message_id")
    for name in ("failures", "failing_since", "ordered", "previous_until"):
        op.drop_column("errands_webhook_endpoints", name)
