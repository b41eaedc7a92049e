"""Two producers write without a pause, the recorder is killed again and again: all is in the ledger."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import redis

from errands.beat.recorder import Recorder
from errands.broker.events import EventStream
from errands.broker.keys import Keys
from errands.core.states import State
from errands.store import reads, writes
from errands.store.engine import Database
from processes import ROOT, until

RUNS = 700  # of each producer; three events each
KILLS = 5

PRODUCER = """
import sys
from errands.broker.client import Clients
from errands.broker.keys import Keys
from errands.broker.runs import LiveRuns
from errands.core import clock
from errands.core.events import Event, Kind

url, prefix, name, count = sys.argv[1:]
live = LiveRuns(Clients(url), Keys(prefix))
for number in range(int(count)):
    for kind, facts in (
        (Kind.QUEUED, {"args": [number], "kwargs": {}, "queue": "q"}),
        (Kind.STARTED, {"worker": name}),
        (Kind.SUCCEEDED, {"result": number, "duration": 0.02}),
    ):
        live.record(Event(kind=kind, run_id=f"{name}-{number}", at=clock.timestamp(), task="t", **facts))
"""

RECORDER = """
import sys
from errands.beat.recorder import Recorder
from errands.broker.client import Clients
from errands.broker.events import EventStream
from errands.store.engine import Database

url, key, database = sys.argv[1:]
recorder = Recorder(EventStream(Clients(url).sync, key), Database(database), batch=97, block_ms=20)
while True:
    recorder.step()
"""


def start(code: str, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    return subprocess.Popen([sys.executable, "-c", code, *arguments], env=environment)


def test_killed_again_and_again_under_load(
    valkey_url: str, valkey: redis.Redis, key_prefix: str, database: Database, tmp_path: Path
) -> None:
    stream = EventStream(valkey, Keys(key_prefix).events)
    url = database.url.render_as_string(hide_password=False)

    def recorded() -> int:
        with database.reading() as connection:
            return writes.read_position(connection, "events").entries or 0

    producers = [start(PRODUCER, valkey_url, key_prefix, name, str(RUNS)) for name in ("a", "b")]
    recorder = start(RECORDER, valkey_url, Keys(key_prefix).events, url)
    try:
        for _ in range(KILLS):
            before = recorded()
            until(lambda seen=before: recorded() >= seen + 200, 60, "the recorder goes on")  # type: ignore[misc]
            os.kill(recorder.pid, signal.SIGKILL)
            assert recorder.wait(10) == -signal.SIGKILL
            recorder = start(RECORDER, valkey_url, Keys(key_prefix).events, url)
        for producer in producers:
            assert producer.wait(60) == 0
        until(lambda: recorded() == 2 * RUNS * 3, 60, "all is recorded")
    finally:
        for process in (*producers, recorder):
            process.kill()
            process.wait()
    assert Recorder(stream, database).step() == 0
    with database.reading() as connection:
        assert writes.read_position(connection, "events").missing == 0
        totals = reads.counters(connection)
        assert totals.runs == {("t", state): 2 * RUNS for state in ("queued", "running", "succeeded")}
        assert [histogram.count for histogram in totals.durations] == [2 * RUNS]
        assert reads.stats(connection)[State.SUCCEEDED] == 2 * RUNS
        found = reads.runs(connection, limit=3 * RUNS)
        assert {run.id for run in found} == {f"{name}-{n}" for name in "ab" for n in range(RUNS)}
        assert all(run.result == json.loads(run.id.split("-")[1]) and run.attempt == 1 for run in found)


@pytest.mark.parametrize("nice", [0, 5])
def test_the_recorders_thread_yields_and_no_other(nice: int) -> None:
    code = f"""
import os, threading
from errands.beat.niceness import yield_to_others
found = []
thread = threading.Thread(target=lambda: found.extend([yield_to_others({nice}), os.getpriority(
    os.PRIO_PROCESS, threading.get_native_id())]))
base = os.getpriority(os.PRIO_PROCESS, 0)
thread.start(); thread.join()
assert found == [True, {nice} or base], found
assert os.getpriority(os.PRIO_PROCESS, 0) == base
"""
    if not sys.platform.startswith("linux"):
        pytest.skip("threads have priorities of their own on Linux only")
    assert start(code).wait(30) == 0
