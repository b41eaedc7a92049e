"""Webhooks that are tried again soon, for tests with workers."""

from __future__ import annotations

from errands import Errands, Retry
from errands.kits import webhooks

app = Errands("webhooks", queues=["webhooks"])
app.use(webhooks.kit(schedule=Retry(50, delays=(0.5,), jitter=0)))
