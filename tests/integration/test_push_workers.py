"""Notifications by real workers: heard of in a browser; a broadcast whose worker is killed."""

from __future__ import annotations

import asyncio
import gc
import runpy
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import func, select

from errands import Errands, Keyring
from errands.kits import push
from errands.kits.push.delivery import SLICE
from errands.kits.push.tables import notifications
from errands.store.engine import Database
from processes import SAMPLE, Worker, until
from push_browser import first_count, listening, make_api, serving, titles

USERS, PHONES = 1000, 400


class Broadcast:
    def __init__(self, app: Errands, environment: dict[str, str], folder: Path) -> None:
        self.app = app
        self.environment = environment
        self.folder = folder
        self.effects = folder / "effects"
        self.workers: list[Worker] = []

    def start(self) -> Worker:
        command = ("-m", "errands", "worker", "--app", "push_app:app", "--concurrency", "4")
        log = self.folder / f"worker-{len(self.workers)}.log"
        worker = Worker(self.environment, log, command=command, app="push_app:app")
        self.workers.append(worker)
        return worker.wait_until_ready()

    @property
    def told(self) -> list[str]:
        return self.effects.read_text().split() if self.effects.exists() else []

    def count(self, *where: object) -> int:
        with self.app.database.reading() as connection:
            query = select(func.count()).select_from(notifications).where(*where)  # type: ignore[arg-type]
            return connection.scalar(query) or 0


@pytest.fixture
def broadcast(valkey_url: str, database: Database, tmp_path: Path) -> Iterator[Broadcast]:
    environment = {
        "ERRANDS_HOME": str(tmp_path), "ERRANDS_BROKER_URL": valkey_url, "ERRANDS_RESULT_URL": valkey_url,
        "ERRANDS_VALKEY_URL": valkey_url, "ERRANDS_SECRET_KEYS": Keyring.new_key(),
        "ERRANDS_DATABASE_URL": database.url.render_as_string(hide_password=False),
        "SAMPLE_EFFECTS": str(tmp_path / "effects"), "SAMPLE_USERS": str(USERS),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        app: Errands = runpy.run_path(str(SAMPLE / "push_app.py"))["app"]
    app.finalize()
    found = Broadcast(app, environment, tmp_path)
    try:
        yield found
    finally:
        for worker in found.workers:
            if worker.process.poll() is None:
                worker.kill()
        gc.collect()
        app.database.dispose()
        app.close()


async def test_a_browser_hears_of_what_a_worker_does(broadcast: Broadcast) -> None:
    broadcast.start()
    with serving(make_api(broadcast.app)) as base:
        async with listening(base, 7) as events:
            assert await first_count(events) == 0
            broadcast.app.tasks["send_bulk_notifications"].delay([6, 7], "Hello", "from a worker")
            assert await titles(events, 1) == [("Hello", "1")]
    await broadcast.app.database.adispose()


def test_everybody_is_told_and_nobody_twice(broadcast: Broadcast) -> None:
    app = broadcast.app

    async def register() -> None:
        store = app.resources.instance(push.DeviceStore)
        for user in range(1, PHONES + 1):
            await store.add_fcm(user, f"token-of-the-phone-of-{user}")
        await app.database.adispose()

    asyncio.run(register())
    run = app.tasks["send_broadcast_push_notification"].delay("Hello", "all of you")
    worker = broadcast.start()
    until(
        lambda: broadcast.count() >= 200 and len(broadcast.told) >= 50, 60, "the broadcast is in full swing"
    )
    worker.kill()
    assert not app.live.get(run.id).final
    assert broadcast.count() < USERS
    broadcast.start()
    until(lambda: app.live.get(run.id).final, 90, "the broadcast ends")
    until(lambda: broadcast.count() == USERS, 90, "everybody has it in the box")
    open_pushes = (notifications.c.push == "waiting") | (
        notifications.c.push.is_(None) & notifications.c.user_id.in_([str(n) for n in range(1, PHONES + 1)])
    )
    until(lambda: broadcast.count(open_pushes) == 0, 90, "every push is dealt with")
    until(lambda: len(broadcast.told) >= broadcast.count(notifications.c.push == "pushed"), 30)

    assert broadcast.count() == USERS
    times = Counter(broadcast.told)
    assert set(times.values()) == {1}, [user for user, n in times.items() if n > 1]
    # What was under way in one of four runs when the worker was killed is unknown, and no more than that.
    unknown = broadcast.count(notifications.c.push == "begun")
    assert unknown <= 4 * SLICE
    assert len(times) >= PHONES - unknown
    assert app.live.get(run.id).facts["result"]["users"] == USERS
