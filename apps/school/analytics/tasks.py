"""The count of each day."""

from __future__ import annotations

from datetime import date, timedelta
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from errands import Retry, Run
from errands.core import clock
from school.analytics import service
from school.app import app


@app.task(name="generate_daily_analytics", queue="celery", retry=Retry(3, first=60))
async def generate_daily_analytics(
    day: date | None = None, *, run: Run, session: AsyncSession
) -> dict[str, Any]:
    """One row for `day`, by default the one before it was due, in UTC. Done twice, it is the same row."""
    day = day or ((run.scheduled_for or clock.now()) - timedelta(days=1)).date()
    return {"day": day.isoformat(), **await service.count_day(session, day)}
