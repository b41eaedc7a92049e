"""Notifications to a thousand users, whose devices take their time. Told all by environment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from errands import Errands
from errands.kits import push

EFFECTS = Path(os.environ.get("SAMPLE_EFFECTS", "/dev/null"))
USERS = int(os.environ.get("SAMPLE_USERS", "1000"))
CHUNK = 50

app = Errands("push", queues=["notifications"])
app.conf.task_default_queue = "notifications"


class Users:
    """All numbers from 1."""

    async def users(
        self, role: str | None, after: push.audience.UserId | None
    ) -> AsyncIterator[Sequence[int]]:
        assert after is None or isinstance(after, int)
        for start in range((after or 0) + 1, USERS + 1, CHUNK):
            await asyncio.sleep(0.1)
            yield list(range(start, min(start + CHUNK, USERS + 1)))


class SlowPush(push.FakePush):
    """Notes outside of the system under test whom it told. One short append is atomic."""

    async def send(self, device: push.Device, message: push.PushMessage) -> None:
        await asyncio.sleep(0.02)
        with EFFECTS.open("a") as file:
            file.write(f"{device.user_id}\n")


app.use(push.kit(lambda: [SlowPush("fcm")], audience=Users, tasks=True))
