"""The app of `benchmarks.kits.push`: its users are numbers, and its devices take everything at once."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Sequence
from typing import Any

from errands import Errands
from errands.kits import push

USERS = int(os.environ["BENCH_USERS"])


class Users:
    """All numbers from 1, some at a time, as a query would bring them."""

    async def users(self, role: str | None, after: Any) -> AsyncIterator[Sequence[int]]:
        for start in range((after or 0) + 1, USERS + 1, 500):
            yield list(range(start, min(start + 500, USERS + 1)))


class Silent(push.FakePush):
    """Takes everything, and keeps nothing."""

    async def send(self, device: push.Device, message: push.PushMessage) -> None:
        return None


app = Errands("bench-push", queues=["notifications"])
app.use(push.kit(lambda: [Silent("fcm")], audience=Users, tasks=True))
