"""What a worker refuses to start with."""

from __future__ import annotations

from pathlib import Path

import redis

from errands import Errands, Keyring, Queue, Settings
from errands.doors.local.valkey import EmbeddedValkey
from processes import Worker


def test_a_worker_asked_for_an_unknown_queue_says_so_and_stops(valkey_url: str, tmp_path: Path) -> None:
    """Mistake 3: a scaling example read a queue that did not exist."""
    environment = {
        "ERRANDS_BROKER_URL": valkey_url,
        "ERRANDS_VALKEY_URL": valkey_url,
        "ERRANDS_SECRET_KEYS": Keyring.new_key(),
    }
    lost = Worker(environment, tmp_path / "lost.log", "-Q", "default", name="lost")
    assert lost.process.wait(90) != 0
    assert "'default'" in lost.log.read_text()


def test_start_refuses_a_broker_that_evicts(tmp_path: Path) -> None:
    """Mistake 21: `allkeys-lru` on the broker threw queued tasks away."""
    with EmbeddedValkey(tmp_path / "valkey") as valkey:
        with redis.Redis.from_url(valkey.url) as client:
            client.config_set("maxmemory-policy", "allkeys-lru")
        environment = {"ERRANDS_BROKER_URL": valkey.url, "ERRANDS_SECRET_KEYS": Keyring.new_key()}
        worker = Worker(environment, tmp_path / "worker.log")
        assert worker.process.wait(90) != 0
        assert "noeviction" in worker.log.read_text()


def test_queues_are_told_by_kind(tmp_path: Path) -> None:
    app = Errands(
        "kinds", settings=Settings(home=tmp_path), queues=["emails", Queue("certificates", cpu=True)],
        set_as_current=False,
    )  # fmt: skip
    assert app.queues_by_kind() == {"io": ["celery", "emails"], "cpu": ["certificates"]}
