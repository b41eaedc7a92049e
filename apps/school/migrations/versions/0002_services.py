"""Payments, orders, profiles, statistics, uploads; whether a user is active.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_time = sa.DateTime(timezone=True)
_money = sa.Numeric(10, 2)


def _user() -> sa.ForeignKey:
    return sa.ForeignKey("users.id", ondelete="CASCADE")


def upgrade() -> None:
    op.add_column("users", sa.Column("is_active", sa.Boolean, nullable=False, server_default=sa.true()))
    op.create_table(
        "payments",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("user_id", sa.Integer, _user(), nullable=False),
        sa.Column("course_id", sa.Integer, sa.ForeignKey("courses.id"), nullable=False),
        sa.Column("amount", _money, nullable=False),
        sa.Column("idempotency_key", sa.String(200), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("receipt", sa.String(200)),
        sa.Column("reason", sa.String(500)),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("settled_at", _time),
        sa.UniqueConstraint("user_id", "idempotency_key"),
    )
    op.create_index(op.f("ix_payments_course_id"), "payments", ["course_id"])
    op.create_index(op.f("ix_payments_created_at"), "payments", ["created_at"])
    op.create_table(
        "orders",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("user_id", sa.Integer, _user(), nullable=False),
        sa.Column("amount", _money, nullable=False),
        sa.Column("idempotency_key", sa.String(200), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("receipt", sa.String(200)),
        sa.Column("reason", sa.String(500)),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("settled_at", _time),
        sa.UniqueConstraint("user_id", "idempotency_key"),
    )
    op.create_table(
        "order_items",
        sa.Column("order_id", sa.Integer, sa.ForeignKey("orders.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("course_id", sa.Integer, sa.ForeignKey("courses.id"), primary_key=True),
    )
    op.create_index(op.f("ix_order_items_course_id"), "order_items", ["course_id"])
    op.create_table(
        "profiles",
        sa.Column("user_id", sa.Integer, _user(), primary_key=True),
        sa.Column("display_name", sa.String(200), nullable=False),
        sa.Column("about", sa.String(2000), nullable=False),
        sa.Column("created_at", _time, nullable=False),
    )
    op.create_table(
        "user_stats",
        sa.Column("user_id", sa.Integer, _user(), primary_key=True),
        sa.Column("enrollments", sa.Integer, nullable=False),
        sa.Column("courses_completed", sa.Integer, nullable=False),
        sa.Column("lessons_completed", sa.Integer, nullable=False),
        sa.Column("certificates", sa.Integer, nullable=False),
        sa.Column("average_progress", sa.Integer, nullable=False),
        sa.Column("updated_at", _time, nullable=False),
    )
    op.create_table(
        "uploads",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("user_id", sa.Integer, _user(), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("filename", sa.String(200), nullable=False),
        sa.Column("content_type", sa.String(200), nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
        sa.Column("purpose", sa.String(20), nullable=False),
        sa.Column("run_id", sa.String(64), nullable=False),
        sa.Column("created_at", _time, nullable=False),
        sa.UniqueConstraint("key"),
    )
    op.create_index(op.f("ix_uploads_user_id"), "uploads", ["user_id"])
    op.create_table(
        "photos",
        sa.Column("upload_id", sa.Integer, sa.ForeignKey("uploads.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("name", sa.String(20), primary_key=True),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("width", sa.Integer, nullable=False),
        sa.Column("height", sa.Integer, nullable=False),
        sa.Column("size", sa.Integer, nullable=False),
    )


def downgrade() -> None:
    for table in ("photos", "uploads", "user_stats", "profiles", "order_items", "orders", "payments"):
        op.drop_table(table)
    op.drop_column("users", "is_active")
