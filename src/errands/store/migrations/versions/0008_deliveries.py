"""A row for each recipient of a mail or message, and who wants none.

Revision ID: 0008
Revises: 0007
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "errands_deliveries",
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("position", sa.Integer, primary_key=True),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("topic", sa.Text, nullable=False),
        sa.Column("address", sa.Text),
        sa.Column("person", sa.Text),
        sa.Column("data", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("provider_id", sa.Text),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("token", sa.Text),
        sa.Column("at", _time, nullable=False),
        sa.Column("retry_at", _time),
    )
    op.create_index("errands_deliveries_state", "errands_deliveries", ["run_id", "state", "position"])
    op.create_index("errands_deliveries_address", "errands_deliveries", ["address", "run_id"])
    op.create_index("errands_deliveries_person", "errands_deliveries", ["person"])
    op.create_table(
        "errands_opt_outs",
        sa.Column("channel", sa.Text, primary_key=True),
        sa.Column("address", sa.Text, primary_key=True),
        sa.Column("topic", sa.Text, primary_key=True),
        sa.Column("at", _time, nullable=False),
        sa.Column("source", sa.Text),
    )


def downgrade() -> None:
    op.drop_table("errands_opt_outs")
    op.drop_table("errands_deliveries")
