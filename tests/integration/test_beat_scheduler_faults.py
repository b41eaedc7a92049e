"""Real beats that are killed, stopped and told other things: each due time has one run, none is missing."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from errands import Errands, Settings
from errands.core.schedule import run_id
from errands.ops.access import ADMIN, Person
from errands.ops.schedules import Schedules
from errands.store import schedules as store
from errands.store.engine import Database
from ops_app import until

ROOT = Person("root", frozenset({ADMIN}))
APP = """
from errands import Errands

app = Errands("school")

@app.task(name="tidy", queue="tidying")
def tidy(days: int = 1) -> None: ...

app.schedule("often", tidy, every=0.5, catch_up="all")
app.schedule("seldom", tidy, every=0.5, catch_up="one")
"""


class Beats:
    """Beats as processes of their own."""

    def __init__(self, folder: Path, environment: dict[str, str], app: Errands) -> None:
        self.app = app
        self._folder, self._environment = folder, environment
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "errands", "beat", "--app", "beatapp:app"]
        with (self._folder / f"beat-{len(self.processes)}.log").open("wb") as log:
            process = subprocess.Popen(
                command, cwd=self._folder, env=self._environment, stdout=log, stderr=log
            )
        self.processes.append(process)
        return process

    def leader(self) -> int:
        """The process id of the one that leads; 0: nobody does."""
        held: Any = self.app.valkey.get(self.app.keys.leader)
        return int(held.decode().split(":")[2]) if held else 0

    def messages(self) -> list[dict[str, Any]]:
        rows: Any = self.app.valkey.xrange(self.app.keys.stream("tidying", "normal"))
        return [json.loads(fields[b"m"])["headers"] for _, fields in rows]

    def due(self, name: str) -> list[float]:
        """The due times whose runs were sent, in the order of their messages."""
        marks = [message["errands"] for message in self.messages()]
        return [mark["due"] for mark in marks if mark["schedule"] == name]

    def stop(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait()


@pytest.fixture
def beats(valkey_url: str, key_prefix: str, sqlite_database: Database, tmp_path: Path) -> Iterator[Beats]:
    (tmp_path / "beatapp.py").write_text(APP)
    url = sqlite_database.url.render_as_string(hide_password=False)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path]),
        "ERRANDS_HOME": str(tmp_path),
        "ERRANDS_BROKER_URL": valkey_url,
        "ERRANDS_KEY_PREFIX": key_prefix,
        "ERRANDS_DATABASE_URL": url,
    }
    app = Errands(
        "school",
        settings=Settings(home=tmp_path, broker_url=valkey_url, key_prefix=key_prefix, database_url=url),
        set_as_current=False,
    )

    @app.task(name="tidy", queue="tidying")
    def tidy(days: int = 1) -> None: ...

    app.schedule("often", tidy, every=0.5, catch_up="all")
    app.schedule("seldom", tidy, every=0.5, catch_up="one")
    started = Beats(tmp_path, environment, app)
    yield started
    started.stop()
    app.close()
    app.database.dispose()


def assert_each_once(beats: Beats) -> None:
    """No due time twice, and of "often" none left out."""
    for name in ("often", "seldom"):
        due = beats.due(name)
        assert due == sorted(set(due)), name
    assert {later - earlier for earlier, later in pairwise(beats.due("often"))} == {0.5}
    ids = {message["errands"]["due"]: message["id"] for message in beats.messages()
           if message["errands"]["schedule"] == "often"}  # fmt: skip
    epoch = datetime.fromtimestamp(0, UTC)
    for due, found in ids.items():
        assert found == run_id("school", "often", epoch + timedelta(seconds=due))


def grows(beats: Beats, name: str = "often", by: int = 3) -> Callable[[], bool]:
    before = len(beats.due(name))
    return lambda: len(beats.due(name)) >= before + by


def stands_still(beats: Beats, name: str, beside: str) -> Callable[[], bool]:
    """Nothing more is sent for one schedule, while another goes on."""

    def still() -> bool:
        before = len(beats.due(name))
        until(grows(beats, beside, by=6))
        return len(beats.due(name)) == before

    return still


def test_a_leader_killed_over_due_times_is_caught_up_with(beats: Beats) -> None:
    first, second = beats.start(), beats.start()
    until(lambda: len(beats.due("often")) >= 3)
    for _ in range(2):
        leader = beats.leader()
        victim = next(process for process in beats.processes if process.pid == leader)
        victim.kill()
        victim.wait()
        beats.start()
        until(lambda gone=leader: beats.leader() not in (0, gone))
        until(grows(beats))
    assert_each_once(beats)
    assert first.poll() is not None or second.poll() is not None
    # Eight seconds and more without a leader: "one" took them together, and the record says how late it was.
    assert len(beats.due("seldom")) < len(beats.due("often"))

    def told() -> bool:
        with beats.app.database.reading() as connection:
            return any((time.late or 0) > 5 for time in store.times(connection, "often", 1000))

    until(told)


def test_a_leader_that_was_stopped_wakes_up_late_and_doubles_nothing(beats: Beats) -> None:
    beats.start()
    until(lambda: len(beats.due("often")) >= 3)
    stopped = beats.leader()
    beats.start()
    os.kill(stopped, signal.SIGSTOP)
    until(lambda: beats.leader() not in (0, stopped))
    until(grows(beats))
    os.kill(stopped, signal.SIGCONT)
    until(grows(beats, by=8))
    assert beats.leader() != stopped
    assert_each_once(beats)


def test_a_row_that_is_edited_takes_effect_within_seconds(beats: Beats) -> None:
    beats.start()
    until(lambda: len(beats.due("often")) >= 1)
    ops = Schedules(beats.app)
    ops.save(ROOT, "extra", task="tidy", every=0.5, kwargs={"days": 2})
    until(lambda: len(beats.due("extra")) >= 2)
    ops.pause(ROOT, "often", reason="enough")
    until(stands_still(beats, "often", beside="extra"))
    ops.remove(ROOT, "extra")
    until(stands_still(beats, "extra", beside="seldom"))
    ops.resume(ROOT, "often")
    until(grows(beats, "often"))
    assert all(due == sorted(set(due)) for due in map(beats.due, ("often", "seldom", "extra")))
