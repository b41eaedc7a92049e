"""What stands between a due time and its run: leases, losses, open runs, load; and the command line."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from celery.contrib.testing.worker import start_worker
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from errands import ConfigurationError, Errands, QueueBelow
from errands.core import clock
from errands.core.clock import FakeClock
from errands.core.schedule import run_id
from errands.doors.cli.program import cli
from errands.ops.access import ADMIN, Person
from errands.ops.actions import Actions
from errands.store import reads
from errands.store import schedules as store
from errands.store.engine import Database
from ops_app import ROOT, make_api, settings, until
from schedule_beat import START, ByHand, make_school, messages, sent


@pytest.fixture
def app(valkey_url: str, database: Database, key_prefix: str, tmp_path: Path) -> Iterator[Errands]:
    made = make_school(settings(valkey_url, database, key_prefix=key_prefix, home=tmp_path))
    yield made
    made.close()
    made.database.dispose()


@pytest.fixture
def now() -> Iterator[FakeClock]:
    with clock.use(FakeClock(START)) as fake:
        assert isinstance(fake, FakeClock)
        yield fake


@pytest.fixture
def beats(app: Errands) -> Iterator[Callable[[], ByHand]]:
    made: list[ByHand] = []

    def make() -> ByHand:
        made.append(ByHand(app, now=clock.now))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def client(app: Errands) -> TestClient:
    return TestClient(make_api(app))


def put(client: TestClient, name: str, **said: Any) -> dict[str, Any]:
    answer = client.put(f"/api/schedules/{name}", headers=ROOT, json=said)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def one(client: TestClient, name: str) -> dict[str, Any]:
    return dict(client.get(f"/api/schedules/{name}", headers=ROOT).json())


def test_what_valkey_has_lost_is_in_the_database(
    app: Errands, beats: Callable[[], ByHand], now: FakeClock
) -> None:
    beat = beats()
    beat.turn()
    now.advance(timedelta(hours=1))
    beat.turn()
    assert len(sent(app)) == 1
    beat.close()
    app.valkey.flushall()
    now.advance(timedelta(hours=1))
    beats().turn()
    due = START.replace(hour=14, second=0)
    assert sent(app) == [run_id("school", "hourly", due)]


def test_a_leader_whose_lease_passed_on_sends_nothing(
    app: Errands, beats: Callable[[], ByHand], now: FakeClock
) -> None:
    """It stood still, its own clock with it, and believes that it leads: the script knows better."""
    stopped, other = beats(), beats()
    stopped.turn()
    assert stopped.service is not None
    assert other.service is not None
    app.valkey.delete(app.keys.leader)
    other.turn()
    now.advance(timedelta(hours=1))
    assert stopped.service.leader.leading
    stopped.send_due()
    assert sent(app) == []
    other.turn()
    assert len(sent(app)) == 1
    stopped.send_due()
    assert len(sent(app)) == 1


def test_by_another_broker_celery_sends_it(
    valkey_url: str, sqlite_database: Database, key_prefix: str, tmp_path: Path, now: FakeClock
) -> None:
    app = Errands(
        "school",
        settings=settings(f"stock+{valkey_url}", sqlite_database, key_prefix=key_prefix, home=tmp_path),
        set_as_current=False,
    )

    @app.task(name="tidy", queue=f"{key_prefix}tidying")
    def tidy() -> None: ...

    app.schedule("minutely", tidy, cron="* * * * *", overlap="skip")
    both = [ByHand(app, now=clock.now)]
    both[0].turn()
    now.advance(60)
    both[0].turn()
    before: Any = app.valkey.hgetall(app.keys.schedule_state)
    assert app.queue_depth(f"{key_prefix}tidying") == 1
    now.advance(60)
    both[0].turn()  # skipped: no worker has taken the first
    assert app.queue_depth(f"{key_prefix}tidying") == 1
    app.valkey.hset(app.keys.schedule_state, mapping=before)
    both[0].close()
    both[0].send_due()
    assert app.queue_depth(f"{key_prefix}tidying") == 1
    app.close()
    app.database.dispose()


def test_a_condition_on_a_queue_that_nobody_has_is_refused_at_start(app: Errands) -> None:
    app.schedule("typo", "tidy", every=60, only_if=QueueBelow("tidyng", 5))
    with pytest.raises(ConfigurationError, match="schedule 'typo' looks at the queue 'tidyng'"):
        app.check()


def test_arguments_that_do_not_fit_are_refused_at_start(app: Errands) -> None:
    app.schedule("typo", app.tasks["tidy"].s(dais=1), every=60)
    with pytest.raises(ConfigurationError, match=r"schedule 'typo': its arguments do not fit.*dais"):
        app.check()


def test_old_times_are_deleted_but_the_newest_stays(
    app: Errands, beats: Callable[[], ByHand], now: FakeClock
) -> None:
    beat = beats()
    beat.turn()
    for _ in range(3):
        now.advance(timedelta(hours=1))
        beat.turn()
    now.advance(timedelta(days=31))
    with app.database.writing() as connection:
        assert store.prune_times(connection, timedelta(days=30)) == 2
        assert len(store.times(connection, "hourly")) == 1


def test_the_command_line_lists_and_pauses(
    app: Errands, key_prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = f"cliapp_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{module}.py").write_text(
        "from errands import Errands\n"
        "app = Errands('school')\n"
        "@app.task(name='tidy')\n"
        "def tidy() -> None: ...\n"
        "app.schedule('hourly', tidy, cron='0 * * * *')\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("ERRANDS_HOME", str(tmp_path))
    monkeypatch.setenv("ERRANDS_BROKER_URL", app.settings.broker_url)
    monkeypatch.setenv("ERRANDS_KEY_PREFIX", key_prefix)
    monkeypatch.setenv("ERRANDS_DATABASE_URL", app.settings.database_url)
    monkeypatch.setenv("ERRANDS_APP", f"{module}:app")

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli, ["schedules", *arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    (view,) = json.loads(run("--json"))
    assert len(view["next"]) == 5
    assert "hourly is paused." in run("pause", "hourly", "--reason", "enough")
    listed = run()
    assert "hourly  paused" in listed
    assert "next: never" in listed
    run("resume", "hourly")
    assert view["next"][0] in run()
    run_now = run("run", "hourly").strip()
    assert app.live.get(run_now).state == "queued"
    with app.database.reading() as connection:
        actions = [row.action for row in reads.audit(connection, target="hourly")]
    assert sorted(actions) == ["schedule.pause", "schedule.resume", "schedule.run"]


def test_it_reacts_to_the_depth_of_a_queue(
    app: Errands, client: TestClient, beats: Callable[[], ByHand], now: FakeClock
) -> None:
    condition = [{"queue_below": {"queue": "tidying", "count": 2}}]
    put(client, "gentle", task="tell", every=60, only_if=condition)
    beat = beats()
    beat.turn()
    app.tasks["tidy"].delay()
    app.tasks["tidy"].delay()
    now.advance(30)
    assert beat.turn() <= 2
    assert len(sent(app)) == 2
    app.valkey.delete(app.keys.stream("tidying", "normal"))
    now.advance(2)
    beat.turn()
    assert [message["headers"]["task"] for message in messages(app)] == ["tell"]
    assert "too many" in one(client, "gentle")["last"]["reason"]


def test_a_retry_still_knows_it_also_one_by_hand(
    app: Errands, client: TestClient, beats: Callable[[], ByHand], now: FakeClock
) -> None:
    put(client, "flaky", task="flaky", every=60)
    beat = beats()
    beat.turn()
    now.advance(timedelta(seconds=30))
    beat.turn()
    (run,) = sent(app)
    expected = ["flaky", "2026-03-01 12:01:00+00:00"]
    with start_worker(app, pool="threads", queues=["tidying"], perform_ping_check=False):
        until(lambda: app.live.get(run).final)
        assert app.live.get(run).facts["result"] == expected
    Actions(app).retry(Person("root", frozenset({ADMIN})), run)
    ((_, fields),) = app.valkey.xrange(app.keys.stream("tidying", "normal"))
    header = json.loads(fields[b"m"])["headers"]["errands"]
    assert (header["schedule"], header["due"]) == ("flaky", (START + timedelta(seconds=30)).timestamp())


def test_an_open_run_stands_in_the_way_also_one_that_a_person_started(
    app: Errands, client: TestClient, beats: Callable[[], ByHand], now: FakeClock
) -> None:
    put(client, "careful", task="tidy", every=60, overlap="skip")
    beat = beats()
    beat.turn()
    for _ in range(3):
        now.advance(60)
        beat.turn()
    assert len(sent(app)) == 1  # no worker takes it
    times = one(client, "careful")["times"]
    assert [time["outcome"] for time in times] == ["skipped", "skipped", "sent"]
    assert sent(app)[0] in times[0]["reason"]
    with start_worker(app, pool="threads", queues=["tidying"], perform_ping_check=False):
        until(lambda: app.live.get(times[2]["task_id"]).final)
    client.post("/api/schedules/careful/run", headers=ROOT)
    now.advance(60)
    beat.turn()
    assert one(client, "careful")["times"][0]["outcome"] == "skipped"
