"""What a worker refuses to start with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import redis

from errands import Errands, Keyring, Queue, Settings
from errands.doors.local.valkey import EmbeddedValkey
from processes import ROOT, Worker, until

LEAN = """
import json, sys
from celery import signals
from celery.worker import state
from errands import Errands

app = Errands("lean", queues=["mail"])

@app.task(name="send", queue="mail")
async def send(to: str) -> None: ...

@signals.worker_ready.connect(weak=False)
def tell(**_):
    print(json.dumps(list(sys.modules)), flush=True)
    state.should_stop = 0
"""
# Each of them would cost every worker megabytes.
NEEDLESS = {
    "sqlalchemy", "alembic", "cryptography.hazmat.primitives.ciphers", "prompt_toolkit", "click_repl",
    "flower", "celery.bin", "prometheus_client", "httpx", "jinja2", "fastapi",
}  # fmt: skip


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


def test_the_log_level_of_the_command_line_wins(valkey_url: str, tmp_path: Path) -> None:
    ready = tmp_path / "ready"
    environment = {
        "ERRANDS_BROKER_URL": valkey_url,
        "ERRANDS_SECRET_KEYS": Keyring.new_key(),
        "ERRANDS_LOG_LEVEL": "DEBUG",
        "ERRANDS_READY_FILE": str(ready),
    }
    command = ("-m", "errands", "worker", "--app", "sample_app:app", "--loglevel", "warning")
    worker = Worker(environment, tmp_path / "worker.log", command=command)
    try:
        until(ready.exists, what="the worker is ready")
    finally:
        worker.stop()
    assert worker.process.returncode == 0
    log = worker.log.read_text()
    assert " info " not in log
    assert " debug " not in log


def test_a_worker_imports_only_what_it_uses(valkey_url: str, tmp_path: Path) -> None:
    (tmp_path / "lean_app.py").write_text(LEAN)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ERRANDS_")}
    environment |= {"PYTHONPATH": str(ROOT / "src"), "ERRANDS_BROKER_URL": valkey_url}
    worker = subprocess.run(
        [sys.executable, "-m", "errands", "worker", "--app", "lean_app:app"],
        env=environment, cwd=tmp_path, check=True, capture_output=True, timeout=90,
    )  # fmt: skip
    modules = json.loads(worker.stdout)
    assert "celery.worker.consumer" in modules
    assert NEEDLESS.isdisjoint(modules)


def test_queues_are_told_by_kind(tmp_path: Path) -> None:
    app = Errands(
        "kinds", settings=Settings(home=tmp_path), queues=["emails", Queue("certificates", cpu=True)],
        set_as_current=False,
    )  # fmt: skip
    assert app.queues_by_kind() == {"io": ["celery", "emails"], "cpu": ["certificates"]}
