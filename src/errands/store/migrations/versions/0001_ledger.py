"""The ledger, the outbox, dead letters, counters, the audit trail.

Revision ID: 0001
Revises: none
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "errands_runs",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("task", sa.Text),
        sa.Column("queue", sa.Text),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("parent_id", sa.Text),
        sa.Column("root_id", sa.Text),
        sa.Column("args", sa.Text),
        sa.Column("kwargs", sa.Text),
        sa.Column("message", sa.Text),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("max_attempts", sa.Integer),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("queued_at", _time),
        sa.Column("eta", _time),
        sa.Column("started_at", _time),
        sa.Column("finished_at", _time),
        sa.Column("expires_at", _time),
        sa.Column("reopened_at", _time),
        sa.Column("updated_at", _time, nullable=False),
        sa.Column("duration", sa.Float),
        sa.Column("worker", sa.Text),
        sa.Column("result", sa.Text),
        sa.Column("error_type", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("error_traceback", sa.Text),
        sa.Column("progress", sa.Text),
    )
    op.create_index("errands_runs_created", "errands_runs", [sa.text("created_at DESC"), sa.text("id DESC")])
    op.create_index("errands_runs_state_created", "errands_runs", ["state", "created_at"])
    op.create_index("errands_runs_task_created", "errands_runs", ["task", "created_at"])
    op.create_index("errands_runs_owner_created", "errands_runs", ["owner", "created_at"])
    op.create_index("errands_runs_finished", "errands_runs", ["finished_at"])
    op.create_index("errands_runs_parent", "errands_runs", ["parent_id"])
    op.create_index("errands_runs_root", "errands_runs", ["root_id"])
    op.create_table(
        "errands_attempts",
        sa.Column("run_id", sa.Text, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True),
        sa.Column("started_at", _time),
        sa.Column("finished_at", _time),
        sa.Column("outcome", sa.Text),
        sa.Column("worker", sa.Text),
        sa.Column("duration", sa.Float),
        sa.Column("error_type", sa.Text),
        sa.Column("error_message", sa.Text),
        sa.Column("error_traceback", sa.Text),
        sa.Column("retry_at", _time),
    )
    op.create_table(
        "errands_outbox",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("args", sa.Text, nullable=False),
        sa.Column("kwargs", sa.Text, nullable=False),
        sa.Column("options", sa.Text, nullable=False),
        sa.Column("owner", sa.Text),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("eta", _time),
        sa.Column("tries", sa.Integer, nullable=False),
        sa.Column("retry_at", _time),
        sa.Column("last_error", sa.Text),
    )
    op.create_index("errands_outbox_created", "errands_outbox", ["created_at"])
    op.create_table(
        "errands_dead_letters",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text),
        sa.Column("task", sa.Text),
        sa.Column("queue", sa.Text),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("message", sa.Text),
        sa.Column("at", _time, nullable=False),
        sa.Column("replayed_at", _time),
    )
    op.create_index("errands_dead_letters_at", "errands_dead_letters", ["at"])
    op.create_table(
        "errands_counters",
        sa.Column("task", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "errands_durations",
        sa.Column("task", sa.Text, primary_key=True),
        sa.Column("le", sa.Float, primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.Column("sum", sa.Float, nullable=False),
    )
    op.create_table(
        "errands_audit",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("at", _time, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("target", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("details", sa.Text),
    )
    op.create_index("errands_audit_at", "errands_audit", ["at"])
    op.create_index("errands_audit_target", "errands_audit", ["target"])
    op.create_table(
        "errands_position",
        sa.Column("stream", sa.Text, primary_key=True),
        sa.Column("entry_id", sa.Text, nullable=False),
        sa.Column("doubtful_until", sa.Text, nullable=False),
    )


def downgrade() -> None:
    for name in ("position", "audit", "durations", "counters", "dead_letters", "outbox", "attempts", "runs"):
        op.drop_table(f"errands_{name}")
