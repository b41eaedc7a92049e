"""People, courses, enrollments, certificates, analytics.

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
        "users",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("email", sa.String(254), nullable=False),
        sa.Column("email_key", sa.String(508), nullable=False),
        sa.Column("full_name", sa.String(200), nullable=False),
        sa.Column("password_hash", sa.String(200), nullable=False),
        sa.Column("role", sa.String(20), nullable=False),
        sa.Column("created_at", _time, nullable=False),
        sa.UniqueConstraint("email_key"),
    )
    op.create_table(
        "sessions",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("expires_at", _time, nullable=False),
    )
    op.create_index(op.f("ix_sessions_user_id"), "sessions", ["user_id"])
    op.create_index(op.f("ix_sessions_expires_at"), "sessions", ["expires_at"])
    op.create_table(
        "password_resets",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("expires_at", _time, nullable=False),
        sa.Column("used_at", _time),
    )
    op.create_index(op.f("ix_password_resets_user_id"), "password_resets", ["user_id"])
    op.create_index(op.f("ix_password_resets_expires_at"), "password_resets", ["expires_at"])
    op.create_table(
        "courses",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("title", sa.String(200), nullable=False),
        sa.Column("instructor_id", sa.Integer, sa.ForeignKey("users.id"), nullable=False),
        sa.Column("created_at", _time, nullable=False),
    )
    op.create_index(op.f("ix_courses_instructor_id"), "courses", ["instructor_id"])
    op.create_table(
        "lessons",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("course_id", sa.Integer, sa.ForeignKey("courses.id", ondelete="CASCADE"), nullable=False),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("title", sa.String(200), nullable=False),
        sa.UniqueConstraint("course_id", "position"),
    )
    op.create_table(
        "enrollments",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("user_id", sa.Integer, sa.ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
        sa.Column("course_id", sa.Integer, sa.ForeignKey("courses.id"), nullable=False),
        sa.Column("progress", sa.Integer, nullable=False),
        sa.Column("enrolled_at", _time, nullable=False),
        sa.Column("completed_at", _time),
        sa.Column("run_id", sa.String(64)),
        sa.UniqueConstraint("user_id", "course_id"),
        sa.CheckConstraint("progress BETWEEN 0 AND 100", name="progress"),
    )
    op.create_index(op.f("ix_enrollments_course_id"), "enrollments", ["course_id"])
    op.create_table(
        "lesson_completions",
        sa.Column(
            "enrollment_id",
            sa.Integer,
            sa.ForeignKey("enrollments.id", ondelete="CASCADE"),
            primary_key=True,
        ),
        sa.Column("lesson_id", sa.Integer, sa.ForeignKey("lessons.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("completed_at", _time, nullable=False),
    )
    op.create_index(op.f("ix_lesson_completions_lesson_id"), "lesson_completions", ["lesson_id"])
    op.create_table(
        "certificates",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("enrollment_id", sa.Integer, sa.ForeignKey("enrollments.id"), nullable=False),
        sa.Column("number", sa.String(40), nullable=False),
        sa.Column("student", sa.String(200), nullable=False),
        sa.Column("course", sa.String(200), nullable=False),
        sa.Column("completed_on", sa.Date, nullable=False),
        sa.Column("file_key", sa.String(200), nullable=False),
        sa.Column("created_at", _time, nullable=False),
        sa.Column("issued_at", _time),
        sa.Column("revoked_at", _time),
        sa.UniqueConstraint("enrollment_id"),
        sa.UniqueConstraint("number"),
    )
    op.create_table(
        "analytics_events",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kind", sa.String(50), nullable=False),
        sa.Column(
            "enrollment_id", sa.Integer, sa.ForeignKey("enrollments.id", ondelete="CASCADE"), nullable=False
        ),
        sa.Column("at", _time, nullable=False),
        sa.UniqueConstraint("kind", "enrollment_id"),
    )
    op.create_index(op.f("ix_analytics_events_at"), "analytics_events", ["at"])
    op.create_table(
        "daily_analytics",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("registrations", sa.Integer, nullable=False),
        sa.Column("enrollments", sa.Integer, nullable=False),
        sa.Column("lessons_completed", sa.Integer, nullable=False),
        sa.Column("courses_completed", sa.Integer, nullable=False),
        sa.Column("certificates_issued", sa.Integer, nullable=False),
        sa.Column("made_at", _time, nullable=False),
    )


def downgrade() -> None:
    for table in (
        "daily_analytics", "analytics_events", "certificates", "lesson_completions", "enrollments", "lessons",
        "courses", "password_resets", "sessions", "users",
    ):  # fmt: skip
        op.drop_table(table)
