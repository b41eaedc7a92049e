"""Limits over real worker processes: never exceeded, nothing lost, nothing jammed, whoever is killed."""

from __future__ import annotations

import runpy
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import redis

import servers
from errands import Errands, State
from errands.broker.events import EventStream
from errands.core.events import Event, Kind
from errands.doors.local.valkey import EmbeddedValkey
from processes import SAMPLE, Worker, until

QUEUE = "limits"


@dataclass
class Rig:
    """Worker processes, and the same app in this process to send with."""

    app: Errands
    folder: Path
    environment: dict[str, str]
    valkey: redis.Redis
    workers: list[Worker] = field(default_factory=list)

    def start(self, count: int, *options: str) -> list[Worker]:
        begun = [
            Worker(
                self.environment,
                self.folder / f"w{len(self.workers) + n}.log",
                *options,
                app="limits_app:app",
            )
            for n in range(count)
        ]
        self.workers += begun
        return [worker.wait_until_ready() for worker in begun]

    def send(self, task: str, *calls: Any, **options: Any) -> list[str]:
        return self.app.tasks[task].delay_many(calls, **options)

    def ended(self, ids: list[str], seconds: float = 60.0) -> None:
        def all_done() -> bool:
            runs = self.app.live.get_many(ids)
            return len(runs) == len(ids) and all(run.final for run in runs.values())

        until(all_done, seconds, f"{len(ids)} runs end")
        runs = self.app.live.get_many(ids)
        assert {run.state for run in runs.values()} == {State.SUCCEEDED}

    def events(self) -> list[tuple[int, Event]]:
        """All events, with the server's time in ms."""
        stream, found, after = EventStream(self.valkey, self.app.keys.events), [], "0-0"
        while page := stream.read(after, 5000):
            found += [(int(entry.partition("-")[0]), event) for entry, event, _ in page if event]
            after = page[-1][0]
        return found

    def starts(self, task: str) -> list[tuple[int, str]]:
        return [(at, e.run_id) for at, e in self.events() if e.kind is Kind.STARTED and e.task == task]

    def lines(self, word: str) -> list[list[str]]:
        path = self.folder / "effects"
        text = path.read_text() if path.exists() else ""
        return [line.split() for line in text.splitlines() if line.startswith(f"{word} ")]

    @property
    def go(self) -> Path:
        return self.folder / "go"

    def leftovers(self) -> list[bytes]:
        """Keys that only those who wait, or are on their way, need."""
        patterns = ("*:lot", "*:limited", "*:limited:messages", "limits:waiting", "*:grants", "*:holders")
        prefix = self.app.keys.prefix
        return [key for pattern in patterns for key in self.valkey.keys(f"{prefix}{pattern}")]


@pytest.fixture(params=["prefork", "asyncio"])
def pool(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def rig(tmp_path: Path, pool: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        environment = {
            "ERRANDS_HOME": str(tmp_path),
            "ERRANDS_BROKER_URL": valkey.url,
            "ERRANDS_VALKEY_URL": valkey.url,
            "ERRANDS_RESULT_URL": valkey.url,
            "SAMPLE_QUEUE": QUEUE,
            "SAMPLE_EFFECTS": str(tmp_path / "effects"),
            "SAMPLE_GO": str(tmp_path / "go"),
            "SAMPLE_POOL": pool,
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        app: Errands = runpy.run_path(str(SAMPLE / "limits_app.py"))["app"]
        app.finalize()
        with redis.Redis.from_url(valkey.url) as client:
            made = Rig(app, tmp_path, environment, client)
            yield made
            for worker in made.workers:
                if worker.process.poll() is None:
                    worker.stop()
            app.close()


def most_in_a_window(starts: list[tuple[int, int]], period_ms: int) -> int:
    """The most that starts (ms, how much they count) count in any window. An entry's id is rounded down to
    the ms, so a window of a ms less is what is known for sure."""
    starts = sorted(starts)
    most = first = inside = 0
    for at, cost in starts:
        inside += cost
        while starts[first][0] <= at - (period_ms - 1):
            inside -= starts[first][1]
            first += 1
        most = max(most, inside)
    return most


def test_a_rate_holds_over_all_workers_and_others_overtake(rig: Rig) -> None:
    rig.start(3, "-c", "2" if rig.environment["SAMPLE_POOL"] == "prefork" else "20")
    ids = rig.send("often", *[(n,) for n in range(120)])
    others = rig.send("free", *[(n,) for n in range(30)])
    rig.ended(others)
    assert any(not run.final for run in rig.app.live.get_many(ids).values())
    rig.ended(ids)
    starts = rig.starts("often")
    assert most_in_a_window([(at, 1) for at, _ in starts], 2000) == 30
    # Each ran once, and each attempt is the first.
    assert sorted(run for _, run in starts) == sorted(ids)
    assert {run.attempt for run in rig.app.live.get_many(ids).values()} == {1}
    limited = [event for _, event in rig.events() if event.kind is Kind.LIMITED]
    assert len(limited) <= len(ids)  # nobody came back again and again
    until(lambda: not rig.leftovers(), what="nothing is left of those who waited")


def test_a_rate_by_key_counts_what_it_says(rig: Rig) -> None:
    rig.start(2, "-c", "2" if rig.environment["SAMPLE_POOL"] == "prefork" else "20")
    calls = [(n % 2, ["x"] * (1 + n % 4)) for n in range(24)]
    ids = rig.send("mail", *calls)
    rig.ended(ids)
    costs = {run: (school, len(to)) for run, (school, to) in zip(ids, calls, strict=True)}
    by_school: defaultdict[int, list[tuple[int, int]]] = defaultdict(list)
    for at, run in rig.starts("mail"):
        school, cost = costs[run]
        by_school[school].append((at, cost))
    assert all(0 < most_in_a_window(starts, 1000) <= 10 for starts in by_school.values())


def test_so_many_at_once_by_key_and_no_jam_after_a_kill(rig: Rig) -> None:
    """Two at once in each course; a worker is killed that holds slots, and those it held are free again."""
    # In prefork what a worker has fetched waits for its children: there must be one for each of them.
    rig.start(3, "-c", "4", "--prefetch-multiplier", "1")
    ids = rig.send("patient", *[(course, n) for n in range(4) for course in ("a", "b")])
    until(lambda: len(rig.lines("patient-begun")) == 4, what="two of each course begin")
    until(lambda: waiting(rig) == 4, what="the others wait")
    assert {run.state for run in rig.app.live.get_many(ids).values()} == {State.RUNNING, State.QUEUED}
    texts = [
        run.facts["waits_for"] for run in rig.app.live.get_many(ids).values() if "waits_for" in run.facts
    ]
    assert "waits for its limit 2 at once (course=a)" in texts
    killed = next(worker for worker in rig.workers if busy(rig, worker))
    before = rig.lines("patient-begun")
    killed.kill()
    until(lambda: len(rig.lines("patient-begun")) > len(before), 60, "slots of the dead are given away")
    rig.go.touch()
    rig.ended(ids, 60)
    assert at_once(rig, "patient", dead=killed) <= 2
    until(lambda: not rig.leftovers(), what="no slot is left behind")


def test_slots_come_back_whatever_becomes_of_an_attempt(rig: Rig) -> None:
    rig.start(2, "-c", "2" if rig.environment["SAMPLE_POOL"] == "prefork" else "20")
    flaky = rig.send("flaky", *[(n % 3,) for n in range(6)])
    few = rig.send("few", *[("c", n) for n in range(20)])
    both = rig.send("both", *[(f"c{n % 3}", n) for n in range(60)])
    rig.ended(flaky + few + both)
    assert at_once(rig, "few") <= 2
    assert at_once(rig, "both") <= 1
    assert most_in_a_window([(at, 1) for at, _ in rig.starts("both")], 1000) <= 20
    until(lambda: not rig.leftovers(), what="no slot is left behind")


def test_a_limit_is_changed_while_running(rig: Rig) -> None:
    rig.start(2, "-c", "2" if rig.environment["SAMPLE_POOL"] == "prefork" else "20")
    ids = rig.send("hourly", *[("x",)] * 5)
    until(lambda: waiting(rig) == 4, what="four wait for their hour")
    assert [limit.waiting for limit in rig.app.limits.all() if limit.name == "hourly"] == [4]
    rig.app.limits.change("hourly", "3/h")
    until(lambda: len(rig.lines("hourly")) == 3, what="two more start")
    assert waiting(rig) == 2
    rig.app.limits.change("hourly", "1/1s")
    rig.ended(ids)
    first, *then = [run for _, run in rig.starts("hourly")]
    line = sorted(set(ids) - {first})  # ids sort by time: in the order in which they were sent
    assert (set(then[:2]), then[2:]) == (set(line[:2]), line[2:])  # two at the same time, then one by one
    rig.app.limits.reset("hourly")
    more = rig.send("hourly", ("x",))
    until(lambda: waiting(rig) == 1, what="it waits for its hour")
    assert [limit.now for limit in rig.app.limits.all() if limit.name == "hourly"] == ["1/h"]
    assert rig.app.live.get_many(more)[more[0]].state is State.QUEUED


def waiting(rig: Rig) -> int:
    return int(rig.valkey.zcard(rig.app.keys.limited(QUEUE)))


def busy(rig: Rig, worker: Worker) -> bool:
    runs = [event for _, event in rig.events() if event.kind is Kind.STARTED and event.worker == worker.name]
    return any(run.state is State.RUNNING for run in rig.app.live.get_many([r.run_id for r in runs]).values())


def at_once(rig: Rig, task: str, dead: Worker | None = None) -> int:
    """The most runs of a key that were at work at once, by the order in which they noted it.

    What a killed worker had begun ended when it was killed, before anybody got its slots.
    """
    died: set[str] = set()
    if dead is not None:
        died = {e.run_id for _, e in rig.events() if e.kind is Kind.STARTED and e.worker == dead.name}
    ended = {tuple(line[1:4]) for line in rig.lines(f"{task}-ended")}
    inside: defaultdict[str, set[tuple[str, ...]]] = defaultdict(set)
    most = 0
    for line in (rig.folder / "effects").read_text().splitlines():
        word, key, *rest = line.split()
        if word == f"{task}-begun" and (not died or (key, *rest[:2]) in ended):
            inside[key].add((rest[0],))
            most = max(most, len(inside[key]))
        elif word == f"{task}-ended":
            inside[key].discard((rest[0],))
    return most


@pytest.mark.parametrize("pool", ["prefork"], indirect=True)
@pytest.mark.parametrize("broker", ["lists", *(["rabbitmq"] if servers.rabbitmq() else [])])
def test_with_other_brokers_runs_come_again_by_themselves(
    rig: Rig, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = f"errands-test-{uuid.uuid4().hex[:8]}"
    rabbitmq = servers.rabbitmq()
    url = (
        rabbitmq.url
        if rabbitmq and broker == "rabbitmq"
        else f"stock+{rig.environment['ERRANDS_BROKER_URL']}"
    )
    rig.environment |= {"ERRANDS_BROKER_URL": url, "SAMPLE_QUEUE": queue}
    for name, value in rig.environment.items():
        monkeypatch.setenv(name, value)
    rig.app = runpy.run_path(str(SAMPLE / "limits_app.py"))["app"]
    rig.app.finalize()
    try:
        rig.start(2, "-c", "2")
        ids = rig.send("mail", *[(1, ["x", "y"])] * 12)
        few = rig.send("few", *[("c", n) for n in range(6)])
        rig.ended(ids + few, 90)
        assert most_in_a_window([(at, 2) for at, _ in rig.starts("mail")], 1000) <= 10
        assert at_once(rig, "few") <= 2
        assert {run.attempt for run in rig.app.live.get_many(ids + few).values()} == {1}
        assert any(event.kind is Kind.LIMITED for _, event in rig.events())
    finally:
        for worker in rig.workers:
            worker.stop()
        with rig.app.connection_for_write() as connection:
            connection.default_channel.queue_delete(queue)
        rig.app.close()
