"""Tenants take turns on real workers, in both pools. What is counted is what the tasks noted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from errands import Errands, Keyring, Settings
from errands.broker import queues
from errands.core.errors import ConfigurationError
from errands.doors.local.valkey import EmbeddedValkey
from processes import SAMPLE, Worker, until

SLOTS = 4


@dataclass
class Crew:
    """Workers of `turns_app`, a server of their own, and the same app in this process to send with."""

    app: Errands
    server: EmbeddedValkey
    environment: dict[str, str]
    folder: Path

    def start(self, *options: str) -> Worker:
        self.workers.append(Worker(self.environment, self.folder / "log", *options, app="turns_app:app"))
        return self.workers[-1]

    def __post_init__(self) -> None:
        self.workers: list[Worker] = []

    def task(self, name: str) -> Any:
        return self.app.tasks[name]

    def lines(self, word: str) -> list[list[str]]:
        file = self.folder / "effects"
        text = file.read_text() if file.exists() else ""
        return [line.split()[1:] for line in text.splitlines() if line.split()[0] == word]

    def depth(self) -> queues.QueueDepth:
        return queues.depths(self.app.valkey, self.app.keys, ["turns"])["turns"]


@pytest.fixture(params=["prefork", "asyncio"])
def crew(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Crew]:
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
        found = Crew(app, valkey, environment, tmp_path)
        try:
            yield found
        finally:
            for worker in found.workers:
                worker.kill()
            app.close()


def overtakers(lines: list[list[str]], before: int) -> int:
    """How many of the large tenant's runs began after the first `before`, and before the small one's last."""
    names = [name for name, *_ in lines]
    last = max(index for index, name in enumerate(names) if name == "small")
    return names[before:last].count("large")


def test_a_small_tenant_waits_for_what_has_begun_and_not_for_the_backlog(crew: Crew) -> None:
    crew.start("-c", str(SLOTS)).wait_until_ready()
    crew.task("serve").delay_many([("large", n) for n in range(1500)], chunk=100)
    until(lambda: len(crew.lines("serve")) >= 40)
    before = len(crew.lines("serve"))
    crew.task("serve").delay_many([("small", n) for n in range(10)])
    until(lambda: [name for name, *_ in crew.lines("serve")].count("small") == 10)
    # What the worker has taken, some that began while the small one's were sent, and those in between.
    assert overtakers(crew.lines("serve"), before) <= 40
    assert crew.depth().depth > 500, "the large tenant's backlog is still there"
    shown = crew.app.live.get(crew.task("serve").delay("small", 99).id)
    assert shown is not None
    assert shown.facts["options"] == {"fair": "small"}


def test_everybodys_runs_are_done_once_though_a_worker_is_killed(crew: Crew) -> None:
    first = crew.start("-c", str(SLOTS)).wait_until_ready()
    task = crew.task("serve_on_the_loop")
    for tenant in range(6):
        task.delay_many([({"school_id": f"t{tenant}"}, n) for n in range(60)])
    until(lambda: len(crew.lines("serve")) >= 30)
    first.kill()
    until(lambda: crew.depth().held > 0, what="what the dead one holds is known")
    crew.start("-c", str(SLOTS))
    crew.start("-c", str(SLOTS))
    wanted = {(f"t{tenant}", str(n)) for tenant in range(6) for n in range(60)}
    until(lambda: {(name, n) for name, n, *_ in crew.lines("serve")} == wanted, 90, "all are done")
    until(lambda: crew.depth() == queues.QueueDepth(0, None), what="and acknowledged")
    assert len(crew.lines("serve")) <= 360 + 2 * SLOTS, "but for those that were at work in the dead worker"


def test_a_retry_stands_in_its_tenants_line(crew: Crew) -> None:
    crew.task("twice").delay("small", 1)
    crew.task("serve").delay_many([("large", n) for n in range(1500)], chunk=100)
    crew.start("-c", str(SLOTS)).wait_until_ready()
    until(lambda: "small" in [name for name, *_ in crew.lines("serve")], 60)
    assert crew.depth().depth > 300, "it did not wait for the other tenant's backlog"


@pytest.mark.parametrize("url", ["stock+redis://127.0.0.1:6379/0", "amqp://127.0.0.1", "memory://"])
def test_where_tenants_cannot_take_turns_nothing_starts(url: str, valkey_url: str) -> None:
    app = Errands("turns", settings=Settings(broker_url=url, valkey_url=valkey_url, result_url=valkey_url))

    @app.task(name="serve", fair_by="school_id")
    def serve(school_id: int) -> None: ...

    with pytest.raises(ConfigurationError, match=r"task 'serve' has fair_by.*cannot take turns"):
        app.check()
    app.close()
