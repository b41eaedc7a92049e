"""A row of counts for each student."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey
from sqlalchemy.orm import Mapped, mapped_column

from school.database import Base


class UserStats(Base):
    """How a user is getting on. `average_progress` is a whole percentage over all enrollments."""

    __tablename__ = "user_stats"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    enrollments: Mapped[int]
    courses_completed: Mapped[int]
    lessons_completed: Mapped[int]
    certificates: Mapped[int]
    average_progress: Mapped[int]
    updated_at: Mapped[datetime]
