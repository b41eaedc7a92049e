"""Who refers to which stored file.

Revision ID: 0010
Revises: 0009
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "errands_files",
        sa.Column("key", sa.Text, primary_key=True),
        sa.Column("owner", sa.Text),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("stored_at", _time),
        sa.Column("touched_at", _time, nullable=False),
        sa.Column("deleting", sa.Boolean, nullable=False),
    )
    op.create_index("errands_files_owner", "errands_files", ["owner"])
    op.create_table(
        "errands_file_references",
        sa.Column("key", sa.Text, sa.ForeignKey("errands_files.key"), primary_key=True),
        sa.Column("referrer", sa.Text, primary_key=True),
        sa.Column("at", _time, nullable=False),
    )
    op.create_index("errands_file_references_referrer", "errands_file_references", ["referrer"])


def downgrade() -> None:
    op.drop_table("errands_file_references")
    op.drop_table("errands_files")
