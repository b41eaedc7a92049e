"""Profiles."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import Mapped, mapped_column

from school.database import Base


class Profile(Base):
    """What somebody tells of themselves; one for each user."""

    __tablename__ = "profiles"

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    display_name: Mapped[str] = mapped_column(String(200))
    about: Mapped[str] = mapped_column(String(2000))
    created_at: Mapped[datetime]
