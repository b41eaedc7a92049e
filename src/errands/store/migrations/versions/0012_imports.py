"""What became of each import and export.

Revision ID: 0012
Revises: 0011
"""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "errands_imports",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("asked_by", sa.Text),
        sa.Column("source", sa.Text),
        sa.Column("sha256", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("counts", sa.Text, nullable=False),
        sa.Column("result", sa.Text),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("updated_at", _time, nullable=False),
    )
    op.create_index("errands_imports_created", "errands_imports", ["created_at"])
    op.create_table(
        "errands_import_refusals",
        sa.Column(
            "import_id", sa.Text, sa.ForeignKey("errands_imports.id", ondelete="CASCADE"), primary_key=True
        ),
        sa.Column("row", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("reasons", sa.Text, nullable=False),
    )
    op.create_table(
        "errands_exports",
        sa.Column("fingerprint", sa.Text, primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("run_id", sa.Text, nullable=False),
        sa.Column("file", sa.Text, nullable=False),
        sa.Column("format", sa.Text, nullable=False),
        sa.Column("rows", sa.Integer, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("created_at", _time, nullable=False),
    )
    op.create_index("errands_exports_created", "errands_exports", ["created_at"])


def downgrade() -> None:
    op.drop_table("errands_exports")
    op.drop_table("errands_import_refusals")
    op.drop_table("errands_imports")
