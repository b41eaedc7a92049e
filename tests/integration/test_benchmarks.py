"""The smallest benchmark there is, on real servers and workers: its figures are there, whatever they are."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=280, check=False)


@pytest.mark.timeout(300)
def test_one_command_measures_two_systems_and_keeps_the_result(tmp_path: Path) -> None:
    smallest = ("--tasks", "50", "--rounds", "1", "--probes", "3", "--work", "arguments")
    two = ("--only", "errands", "--only", "celery_default")
    done = run(*smallest, *two, "--results", str(tmp_path), "--keep")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Errands ÷" in done.stdout
    kept: dict[str, Any] = json.loads((tmp_path / "latest.json").read_text())
    assert list(kept["rounds"]) == ["celery_default", "errands"]
    everybody = {"arguments.enqueue_rate", "arguments.drain_rate", "pickup_p50", "pickup_p99"}
    for name, (figures,) in kept["rounds"].items():
        assert everybody <= figures.keys(), name
        assert min(figures.values()) >= 0, name
        # What a broker is asked for each task is counted, not timed: at least to give it out.
        assert figures["arguments.drain_commands"] > 1, name
    (ours,) = kept["rounds"]["errands"]
    assert ours["arguments.companion_cpu"] > 0
    assert (tmp_path / "latest.svg").read_text().startswith("<svg")
    assert len(list(tmp_path.iterdir())) == 4


def test_a_system_that_is_not_there_is_told_at_once() -> None:
    done = run("--only", "nobody")
    assert done.returncode == 1
    assert done.stderr.startswith("benchmarks: no contender is called 'nobody'; there are: celery_default")
