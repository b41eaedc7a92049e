"""Certificates. Their words are kept as they were printed, so that page and paper always agree."""

from __future__ import annotations

from datetime import date, datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from school.database import Base


class Certificate(Base):
    """`created_at`: the number was drawn. `issued_at`: the file is stored and the student was told."""

    __tablename__ = "certificates"

    id: Mapped[int] = mapped_column(primary_key=True)
    enrollment_id: Mapped[int] = mapped_column(ForeignKey("enrollments.id"), unique=True)
    number: Mapped[str] = mapped_column(String(40), unique=True)
    student: Mapped[str] = mapped_column(String(200))
    course: Mapped[str] = mapped_column(String(200))
    completed_on: Mapped[date]
    file_key: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime]
    issued_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
