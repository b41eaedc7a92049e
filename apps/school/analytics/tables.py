"""Things that happened once each, and a row of counts for each day."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from school.database import Base


class AnalyticsEvent(Base):
    """`kind` happened in this enrollment; once."""

    __tablename__ = "analytics_events"
    __table_args__ = (UniqueConstraint("kind", "enrollment_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(50))
    enrollment_id: Mapped[int] = mapped_column(ForeignKey("enrollments.id", ondelete="CASCADE"))
    at: Mapped[datetime] = mapped_column(index=True)


class DailyAnalytics(Base):
    """The counts of one day in UTC."""

    __tablename__ = "daily_analytics"

    day: Mapped[date] = mapped_column(primary_key=True)
    registrations: Mapped[int]
    enrollments: Mapped[int]
    lessons_completed: Mapped[int]
    courses_completed: Mapped[int]
    certificates_issued: Mapped[int]
    made_at: Mapped[datetime]
