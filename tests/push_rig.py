"""An app of the push kit in inline mode, with an audience of numbers and devices that remember."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from sqlalchemy import select

from errands import Errands, Keyring, Settings
from errands.core import clock
from errands.kits import push
from errands.kits.push import PushFailed
from errands.kits.push.tables import notifications

NOON = datetime(2026, 1, 10, 11, tzinfo=UTC)
NIGHT = datetime(2026, 1, 10, 23, tzinfo=UTC)


class Users:
    """An audience of numbers; the even ones are teachers."""

    def __init__(self, count, chunk=50):
        self.count, self.chunk, self.asked = count, chunk, []

    async def users(self, role, after):
        self.asked.append((role, after))
        start = 1 if after is None else after + 1
        ids = [n for n in range(start, self.count + 1) if role is None or n % 2 == 0]
        for index in range(0, len(ids), self.chunk):
            yield ids[index : index + self.chunk]


class Phone(push.FakePush):
    """Notes when each message came as well; those of some users are `away` for some attempts."""

    def __init__(self, kind):
        super().__init__(kind)
        self.times = []
        self.away = {}

    async def send(self, device, message):
        if self.away.get(device.user_id, 0):
            self.away[device.user_id] -= 1
            raise PushFailed("503")
        await super().send(device, message)
        self.times.append(clock.now())


class Rig:
    def __init__(self, tmp_path, users=(), **options):
        self.phone, self.browser = Phone("fcm"), push.FakePush("webpush")
        quiet = (
            {"quiet_hours": "22:00-07:00", "time_zone": "Europe/Berlin"}
            if options.pop("quiet", False)
            else {}
        )
        settings = Settings(home=tmp_path, inline=True, secret_keys=Keyring.new_key(), **quiet)
        self.app = Errands("test", settings=settings)
        pushers = [self.phone, self.browser]
        self.app.use(push.kit(lambda: pushers, audience=lambda: users, tasks=True, **options))
        self.app.database.upgrade()

    def send(self, name, *args, **kwargs):
        return self.app.tasks[name].delay(*args, **kwargs)

    def instance(self, kind):
        return self.app.resources.instance(kind)

    def do(self, function):
        """Run a coroutine of a loop of its own, as an endpoint would."""

        async def doing():
            try:
                return await function()
            finally:
                await self.app.database.adispose()

        return asyncio.run(doing())

    def add_phones(self, *users):
        store = self.instance(push.DeviceStore)

        async def adding():
            return [await store.add_fcm(user, f"token-of-the-phone-of-{user}") for user in users]

        return self.do(adding)

    def titles(self, user):
        store = self.instance(push.NotificationStore)
        return [n.title for n in self.do(lambda: store.list(user))]

    def pushes(self):
        with self.app.database.reading() as connection:
            rows = connection.execute(select(notifications.c.user_id, notifications.c.push))
            return {row.user_id: row.push for row in rows}

    @property
    def told(self):
        return [sent.device.user_id for sent in self.phone.sent]
