"""One's own counts."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException

from school import dispatch
from school.access import Reading, SignedIn, Writing
from school.statistics import service

router = APIRouter(tags=["statistics"])


@router.post("/statistics/refresh", status_code=202)
async def refresh(user: SignedIn, session: Writing) -> dict[str, Any]:
    """Count anew. Who asks again while that waits gets the same run."""
    task_id = dispatch.stats_wanted(session, user.id)
    return {"task_id": task_id, "status": "queued", "message": "The statistics are being counted."}


@router.get("/statistics/me")
async def mine(user: SignedIn, session: Reading) -> dict[str, Any]:
    """What was counted last, and when."""
    stats = await service.get(session, user.id)
    if stats is None:
        raise HTTPException(404, "Nothing was counted yet: POST /statistics/refresh.")
    return {**service.shown(stats), "updated_at": stats.updated_at}
