"""An app that sends messages into a file, under a limit that is told by environment."""

from __future__ import annotations

import os

from errands import Errands
from errands.kits import messaging

app = Errands("messages", queues=["messaging"])
app.use(messaging.kit(tasks=True))
app.conf.task_default_queue = "messaging"
if os.environ.get("SAMPLE_POOL") == "asyncio":
    app.conf.worker_pool = "errands.worker.pool:TaskPool"
