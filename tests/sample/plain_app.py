"""A plain Celery application, without Errands: a worker of somebody else's that takes our messages."""

from __future__ import annotations

import os
from typing import Any

from celery import Celery

app = Celery("plain", broker=os.environ["PLAIN_BROKER"], backend=os.environ["PLAIN_BROKER"])


@app.task(name="describe", bind=True)
def describe(self: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    request = self.request
    return {
        "args": list(args), "kwargs": kwargs, "id": request.id, "root": request.root_id, "eta": request.eta,
        "retries": request.retries, "limits": list(request.timelimit), "mine": request.headers["tenant"],
    }  # fmt: skip


@app.task(name="double")
def double(result: dict[str, Any]) -> list[Any]:
    return [*result["args"], *result["args"]]
