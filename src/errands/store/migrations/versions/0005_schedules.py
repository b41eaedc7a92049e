"""Schedules that people make and change, and what became of each due time.

Revision ID: 0005
Revises: 0004
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "errands_schedules",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("task", sa.Text),
        sa.Column("args", sa.Text),
        sa.Column("kwargs", sa.Text),
        sa.Column("options", sa.Text),
        sa.Column("cron", sa.Text),
        sa.Column("tz", sa.Text),
        sa.Column("every", sa.Float),
        sa.Column("at", _time),
        sa.Column("catch_up", sa.Text),
        sa.Column("overlap", sa.Text),
        sa.Column("jitter", sa.Float),
        sa.Column("only_if", sa.Text),
        sa.Column("patience", sa.Float),
        sa.Column("paused", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("resumed_at", _time),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("updated_at", _time, nullable=False),
        sa.Column("updated_by", sa.Text),
    )
    op.create_table(
        "errands_schedule_times",
        sa.Column("schedule", sa.Text, primary_key=True),
        sa.Column("due", _time, primary_key=True),
        sa.Column("rule", sa.Text, nullable=False),
        sa.Column("outcome", sa.Text, nullable=False),
        sa.Column("at", _time, nullable=False),
        sa.Column("late", sa.Float, nullable=False),
        sa.Column("run_id", sa.Text),
        sa.Column("reason", sa.Text),
    )
    op.create_index("errands_schedule_times_run", "errands_schedule_times", ["run_id"])
