"""Webhooks to a receiver on this machine: what is measured is what one delivery costs."""

from __future__ import annotations

from errands import Errands
from errands.kits import webhooks

QUEUE = "webhooks"

app = Errands("webhooks", queues=[QUEUE])
app.conf.task_default_queue = QUEUE
app.conf.worker_pool = "errands.worker.pool:TaskPool"
app.use(webhooks.kit())
