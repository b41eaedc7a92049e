"""Notifications that people read in the application, and the devices that are told.

Revision ID: 0009
Revises: 0008
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_time = sa.DateTime(timezone=True)
_unread, _read = sa.text("read_at IS NULL"), sa.text("read_at IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "errands_notifications",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("title", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("data", sa.Text),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("read_at", _time),
        sa.Column("push", sa.Text),
        sa.Column("push_left", sa.Text),
        sa.Column("push_error", sa.Text),
        sa.UniqueConstraint("user_id", "number", name="errands_notifications_number"),
    )
    for name, column, where in (
        ("errands_notifications_unread", "user_id", _unread),
        ("errands_notifications_read", "created_at", _read),
    ):
        op.create_index(name, "errands_notifications", [column], sqlite_where=where, postgresql_where=where)
    op.create_table(
        "errands_notification_boxes",
        sa.Column("user_id", sa.Text, primary_key=True),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("muted", sa.Text),
    )
    op.create_table(
        "errands_push_devices",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("user_id", sa.Text, nullable=False),
        sa.Column("kind", sa.Text, nullable=False),
        sa.Column("digest", sa.Text, nullable=False),
        sa.Column("address", sa.Text, nullable=False),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("last_ok_at", _time),
        sa.UniqueConstraint("kind", "digest", name="errands_push_devices_digest"),
    )
    op.create_index("errands_push_devices_user", "errands_push_devices", ["user_id"])


def downgrade() -> None:
    op.drop_table("errands_push_devices")
    op.drop_table("errands_notification_boxes")
    op.drop_table("errands_notifications")
