"""How many entries the event stream ever had, and how many were dropped before the ledger had them.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("errands_position", sa.Column("entries", sa.BigInteger))
    op.add_column("errands_position", sa.Column("missing", sa.BigInteger, nullable=False, server_default="0"))
    op.add_column("errands_position", sa.Column("missing_at", sa.DateTime(timezone=True)))
