"""What an app can tell its workers, beside Celery's own remote commands."""

from __future__ import annotations

from typing import Any

from celery.worker import state as worker_state
from celery.worker.control import control_command

REOPEN = "errands_reopen"


@control_command(name=REOPEN, args=[("task_id", str)])
def reopen(state: Any, task_id: str) -> dict[str, str]:
    """Forget that a run was revoked (Celery remembers it for three hours): it is wanted after all."""
    worker_state.revoked.discard(task_id)
    return {"ok": f"{task_id} may run again"}
