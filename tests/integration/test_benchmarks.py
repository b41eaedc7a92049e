"""The smallest benchmark there is, on real servers and workers: its figures are there, whatever they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis
from benchmarks import course, environments
from benchmarks.contender import NotThere, load
from benchmarks.monitor import Monitor

ROOT = Path(__file__).parents[2]
SMALLEST = ("--tasks", "100", "--rounds", "1", "--quick")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=280, check=False
    )


@pytest.mark.timeout(300)
def test_one_command_measures_two_systems_and_keeps_the_result(tmp_path: Path) -> None:
    two = ("--only", "errands", "--only", "celery")
    measures = ("--measure", "drain", "--measure", "default", "--measure", "commands")
    done = run(*SMALLEST, *two, *measures, "--results", str(tmp_path), "--keep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Errands ÷ best peer" in done.stdout
    kept: dict[str, Any] = json.loads((tmp_path / "latest.json").read_text())
    assert list(kept["rounds"]) == ["celery", "errands"]
    for name, (figures,) in kept["rounds"].items():
        assert {"drain.rate", "default.rate", "drain.memory"} <= figures.keys(), name
        assert min(figures.values()) >= 0, name
        # Whatever scripts call was executed, and nothing is sent without something being asked.
        assert figures["commands.send_all"] >= figures["commands.send"] >= 1, name
        assert figures["commands.run_all"] >= figures["commands.run"] > 0, name
    judged = {verdict["label"]: verdict["reached"] for verdict in kept["targets"]}
    assert judged["memory of one worker, each as it comes: at most Celery's"] in {True, False}
    assert judged["tasks that wait 20 ms: 1.2x Taskiq (dream 2x)"] is None
    assert (tmp_path / "latest.svg").read_text().startswith("<svg")
    assert "| Errands |" in (tmp_path / "latest.md").read_text()
    assert len(list(tmp_path.iterdir())) == 6


@pytest.mark.timeout(300)
def test_the_ledger_is_complete_when_its_row_is_measured() -> None:
    sizes = course.Sizes(tasks=100, sleepers=50, seconds=0.1, probes=3, counted=50)
    figures = course.run(load("errands_ledger"), sizes, ("drain",))
    assert figures["drain.companion_cpu"] > 0
    assert figures["drain.record_lag"] >= 0


@pytest.mark.timeout(300)
def test_events_can_be_left_out_to_tell_what_they_cost() -> None:
    sizes = course.Sizes(tasks=100, sleepers=50, seconds=0.1, probes=3, counted=50)
    assert course.run(load("errands_unrecorded"), sizes, ("drain",))["drain.rate"] > 0


def test_a_system_that_is_not_there_is_told_at_once() -> None:
    done = run("--only", "nobody")
    assert done.returncode == 1
    assert done.stderr.startswith("benchmarks: no contender is called 'nobody'; there are: celery")


def test_a_peer_that_cannot_be_installed_is_left_out_aloud(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "wrong.txt").write_text("no-such-thing==1.0 --hash=sha256:00\n")
    monkeypatch.setattr(environments, "ROOT", tmp_path)
    monkeypatch.setattr(environments, "FOLDER", tmp_path / "environments")
    with pytest.raises(NotThere, match="cannot be installed"):
        environments.python("wrong")


def test_the_monitor_tells_clients_commands_from_those_of_scripts(valkey_url: str) -> None:
    client, other = (redis.Redis.from_url(valkey_url) for _ in range(2))
    other.ping()
    script = "redis.call('SET', KEYS[1], '1') return redis.call('DEL', KEYS[1])"
    key = f"benchmark-{time.monotonic_ns()}"
    with Monitor(client) as monitor:
        client.ping()
        other.eval(script, 1, key)
        with other.pipeline(transaction=True) as pipe:
            pipe.get(key)
            pipe.execute()
        sent, within = monitor.counted()
    # EVAL, MULTI, GET and EXEC of the other; the listener's own do not count.
    assert within == 2
    assert sent == 4
    client.close()
    other.close()
