"""One limit for messages over three worker processes, by the clock of the server; one of them is killed."""

from __future__ import annotations

import runpy
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

from errands import Errands, State
from errands.broker.allowing import suffix_of
from errands.doors.local.valkey import EmbeddedValkey
from errands.kits import messaging
from errands.store import deliveries
from processes import SAMPLE, Worker, until

MOST, PERIOD = 20, 2.0  # messages, seconds


@dataclass
class Rig:
    app: Errands
    folder: Path
    environment: dict[str, str]
    url: str
    workers: list[Worker] = field(default_factory=list)

    def start(self, count: int) -> None:
        begun = [
            Worker(self.environment, self.folder / f"w{n}.log", "-c", "2", app="messages_app:app")
            for n in range(count)
        ]
        self.workers += begun
        for worker in begun:
            worker.wait_until_ready()

    def lines(self) -> list[dict[str, Any]]:
        return messaging.ConsoleMessenger(self.folder / "messages.jsonl").lines()

    def ended(self, ids: list[str], seconds: float) -> None:
        until(lambda: all(run.final for run in self.app.live.get_many(ids).values()), seconds, "all end")

    def totals(self, run_id: str) -> dict[str, int]:
        with self.app.database.reading() as connection:
            return deliveries.totals(connection, run_id).as_dict()

    @contextmanager
    def watched(self) -> Iterator[list[tuple[float, int]]]:
        """What was given meanwhile, as the server itself saw it: when, and how much."""
        given: list[tuple[float, int]] = []
        used = self.app.keys.limit(suffix_of("messages"))
        client = redis.Redis.from_url(self.url)
        listening = threading.Event()

        def watch() -> None:
            with client.monitor() as monitor:
                listening.set()
                for command in monitor.listen():
                    words = command["command"].split()
                    if words[0] == "HINCRBY" and words[1:3] == [used, "used"] and int(words[3]) > 0:
                        given.append((command["time"], int(words[3])))
                    elif words == ["ECHO", "enough"]:
                        return

        watcher = threading.Thread(target=watch)
        watcher.start()
        assert listening.wait(10)
        try:
            yield given
        finally:
            with redis.Redis.from_url(self.url) as other:
                other.echo("enough")
            watcher.join(10)
            client.close()


def most_in_a_window(given: list[tuple[float, int]]) -> int:
    """The most that was given in any window of the period."""
    most = first = inside = 0
    for at, count in given:
        inside += count
        while given[first][0] <= at - PERIOD:
            inside -= given[first][1]
            first += 1
        most = max(most, inside)
    return most


@pytest.fixture(params=["prefork", "asyncio"])
def rig(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        environment = {
            "ERRANDS_HOME": str(tmp_path), "ERRANDS_BROKER_URL": valkey.url, "ERRANDS_VALKEY_URL": valkey.url,
            "ERRANDS_RESULT_URL": valkey.url, "MESSAGING_LIMIT": f"{MOST}/{PERIOD:.0f}s",
            "SAMPLE_POOL": str(request.param),
        }  # fmt: skip
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        app: Errands = runpy.run_path(str(SAMPLE / "messages_app.py"))["app"]
        app.finalize()
        app.database.upgrade()
        made = Rig(app, tmp_path, environment, valkey.url)
        yield made
        for worker in made.workers:
            if worker.process.poll() is None:
                worker.kill()
        app.database.dispose()
        app.close()


def numbers(run: int, count: int) -> list[str]:
    return [f"+4917{run}{n:07}" for n in range(count)]


def test_messages_are_counted_one_by_one_over_all_workers(rig: Rig) -> None:
    """Mistake 18. 160 messages of five runs, at 20 in 2 s: 16 s at the least."""
    rig.start(3)
    bulk, single = rig.app.tasks["send_bulk_messages"], rig.app.tasks["send_template_message"]
    with rig.watched() as given:
        ids = [bulk.delay(numbers(run, 50), "Closed on Friday").id for run in (0, 1, 2)]
        ids += [single.delay(f"+4917910000{n:02}", "closed", ["Friday"]).id for n in range(10)]
        rig.ended(ids, 120)
    assert {run.state for run in rig.app.live.get_many(ids).values()} == {State.SUCCEEDED}
    assert {run.attempt for run in rig.app.live.get_many(ids).values()} == {1}  # to wait uses none up
    sent = [line["to"] for line in rig.lines()]
    assert len(sent) == len(set(sent)) == 160
    assert sum(count for _, count in given) == 160
    assert most_in_a_window(given) == MOST
    # All of the limit is used: no window is left empty.
    assert given[-1][0] - given[0][0] < 3 * PERIOD * 160 / MOST


def test_a_worker_that_is_killed_takes_nobody_elses_share_along(rig: Rig) -> None:
    rig.start(3)
    with rig.watched() as given:
        ids = [rig.app.tasks["send_bulk_messages"].delay(numbers(run, 40), "Closed").id for run in (0, 1, 2)]
        until(lambda: len(rig.lines()) >= 50, 60, "half of them are sent")
        rig.workers[0].kill()
        rig.ended(ids, 120)
    sent = [line["to"] for line in rig.lines()]
    assert len(sent) == len(set(sent))  # nobody twice
    found = [rig.totals(run_id) for run_id in ids]
    assert sum(each["sent"] + each["unknown"] for each in found) == 120
    assert sum(each["unknown"] for each in found) <= 20  # what one worker had under way
    assert sum(each["sent"] for each in found) <= len(sent)
    assert most_in_a_window(given) <= MOST
