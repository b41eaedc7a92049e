"""Whom a run is about, by which all that is kept of a person is found.

Revision ID: 0007
Revises: 0006
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("errands_runs", sa.Column("subject", sa.Text))
    op.create_index("errands_runs_subject", "errands_runs", ["subject"])
