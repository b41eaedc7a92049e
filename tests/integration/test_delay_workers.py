"""Delays on real workers and a real server: killed, restarted, and still nothing early, nothing lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from errands import Errands, Keyring, State
from errands.broker import queues
from errands.doors.local.valkey import EmbeddedValkey
from errands.ops.access import Person
from errands.ops.actions import Actions
from processes import SAMPLE, Worker, until

COUNT = 30


class Rig:
    """A server of its own, the sample app in this process, and its workers."""

    def __init__(
        self, app: Errands, server: EmbeddedValkey, environment: dict[str, str], folder: Path
    ) -> None:
        self.app, self.server, self.environment, self.folder = app, server, environment, folder
        self.workers: list[Worker] = []

    def start(self) -> Worker:
        worker = Worker(self.environment, self.folder / "log", "-c", "4", app="turns_app:app")
        self.workers.append(worker)
        return worker.wait_until_ready()

    def noted(self) -> dict[str, list[float]]:
        """When each word was noted."""
        file, found = self.folder / "effects", {}
        for line in file.read_text().splitlines() if file.exists() else ():
            _, word, at = line.split()
            found.setdefault(word, []).append(float(at))
        return found

    def depth(self) -> queues.QueueDepth:
        return queues.depths(self.app.valkey, self.app.keys, ["turns"])["turns"]

    def due(self) -> dict[str, float]:
        """When each delayed run is due, in seconds by the server's clock."""
        rows: Any = self.app.valkey.zrange(self.app.keys.delayed("turns"), 0, -1, withscores=True)
        return {run_id.decode(): score / 1000 for run_id, score in rows}


@pytest.fixture(params=["prefork", "asyncio"])
def rig(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Rig]:
    import runpy

    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        environment = {
            "ERRANDS_HOME": str(tmp_path), "ERRANDS_BROKER_URL": valkey.url, "ERRANDS_RESULT_URL": valkey.url,
            "ERRANDS_VALKEY_URL": valkey.url, "ERRANDS_SECRET_KEYS": Keyring.new_key(),
            "SAMPLE_EFFECTS": str(tmp_path / "effects"), "SAMPLE_POOL": request.param,
        }  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            app: Errands = runpy.run_path(str(SAMPLE / "turns_app.py"))["app"]
            app.finalize()
        found = Rig(app, valkey, environment, tmp_path)
        try:
            yield found
        finally:
            for worker in found.workers:
                worker.kill()
            app.close()


def test_delayed_runs_outlive_server_and_worker_and_none_is_early(rig: Rig) -> None:
    first = rig.start()
    task = rig.app.tasks["note"]
    words = [f"word{number}" for number in range(COUNT)]
    sent = {
        task.apply_async((word,), countdown=4 + 0.1 * number).id: word for number, word in enumerate(words)
    }
    due = rig.due()
    assert due.keys() == sent.keys()
    rig.app.valkey.execute_command("WAITAOF", 1, 0, 5000)
    first.kill()
    rig.server.kill()
    rig.server.start()
    assert rig.due() == due, "the server has them, and when they are due"
    rig.start()
    until(lambda: rig.noted().keys() == set(words), 60, "each has run")
    noted = rig.noted()
    for run_id, word in sent.items():
        assert len(noted[word]) == 1
        assert noted[word][0] >= due[run_id], "early by nothing"
    assert rig.depth().delayed == 0


def test_no_worker_holds_what_is_to_come(rig: Rig) -> None:
    """Ours, a plain Celery producer's, and what somebody wrote into the stream past all of them."""
    rig.start()
    rig.app.tasks["note"].apply_async(("ours",), countdown=3)
    due = datetime.now(UTC) + timedelta(seconds=3)
    follows = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
    envelope = json.dumps(
        {
            "body": json.dumps([["theirs"], {}, follows]),
            "content-type": "application/json", "content-encoding": "utf-8",
            "headers": {"id": "a-run", "task": "note", "eta": due.isoformat(), "lang": "py"},
            "properties": {"delivery_info": {"exchange": "", "routing_key": "turns"}, "delivery_tag": "t"},
        }
    )  # fmt: skip
    rig.app.valkey.xadd(rig.app.keys.stream("turns", "normal"), {"m": envelope})
    adopted = json.loads(envelope)
    adopted["headers"] |= {"id": "b-run", "eta": due.isoformat().replace("+00:00", "Z")}
    adopted["body"] = adopted["body"].replace("theirs", "adopted")
    rig.app.valkey.lpush("turns", json.dumps(adopted))
    until(lambda: rig.depth().delayed == 3, 3, "all of them wait on the server")
    (told,) = rig.app.control.inspect(timeout=2).scheduled().values()
    assert told == []
    until(lambda: len(rig.noted()) == 3, 30)
    noted = rig.noted()
    assert min(noted["theirs"] + noted["adopted"]) >= due.timestamp()


def test_a_revoke_takes_the_run_out(rig: Rig) -> None:
    rig.app.database.upgrade()
    run = rig.app.tasks["note"].apply_async(("never",), countdown=2)
    actions = Actions(rig.app)
    actions.revoke(Person("ann", frozenset({"admin"})), run.id, reason="not wanted")
    assert rig.depth().delayed == 0
    rig.start()
    done = rig.app.tasks["note"].apply_async(("after",), countdown=2)
    assert done.get(timeout=30) is None
    assert rig.noted().keys() == {"after"}
    found = rig.app.live.get(run.id)
    assert found is not None
    assert found.state is State.REVOKED


def test_what_expires_before_it_is_due_does_not_start(rig: Rig) -> None:
    rig.start()
    run = rig.app.tasks["note"].apply_async(("never",), countdown=1, expires=0.5)
    until(lambda: (found := rig.app.live.get(run.id)) and found.state is State.EXPIRED, 20)
    assert rig.noted() == {}


def test_low_is_not_starved_and_high_goes_first(rig: Rig) -> None:
    """A flood of high, kept up for as long as the low ones wait."""
    rig.app.tasks["note"].delay_many([(f"low{n}",) for n in range(5)], priority="low")
    rig.app.tasks["note"].delay_many([(f"normal{n}",) for n in range(5)])
    rig.app.tasks["urgent"].delay_many([(f"high{n}",) for n in range(300)], chunk=100)
    rig.start()
    flood = 300

    def low() -> int:
        nonlocal flood
        noted = rig.noted()
        if flood - sum(word.startswith("high") for word in noted) < 200:
            rig.app.tasks["urgent"].delay_many([(f"high{flood + n}",) for n in range(100)])
            flood += 100
        return sum(word.startswith("low") for word in noted) == 5

    until(low, 60, "all the low ones have run")
    order = sorted(rig.noted().items(), key=lambda item: item[1][0])
    first = [word for word, _ in order][:4]
    assert all(word.startswith("high") for word in first)
    assert rig.depth().depth > 0, "and high ones still wait"
