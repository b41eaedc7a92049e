"""Rows of the outbox stay until their run has ended; large arguments have a table of their own.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("errands_outbox", sa.Column("sent_at", _time))
    op.drop_index("errands_outbox_created", "errands_outbox")
    unsent = sa.text("sent_at IS NULL")
    op.create_index(
        "errands_outbox_unsent", "errands_outbox", ["created_at"],
        postgresql_where=unsent, sqlite_where=unsent,
    )  # fmt: skip
    op.create_table(
        "errands_payloads",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("task", sa.Text, nullable=False),
        sa.Column("content", sa.LargeBinary),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("created_at", _time, nullable=False),
    )
    op.create_index("errands_payloads_created", "errands_payloads", ["created_at"])
    op.create_index("errands_dead_letters_run", "errands_dead_letters", ["run_id"])
    op.create_index("errands_payloads_run", "errands_payloads", ["run_id"])
