"""A pytest plugin inside the checked suites' own processes: writes down what comes of each test.

Loaded by name (`-p recorder`). What it is to do is told by the environment:

- `OUTSIDE_REPORT`: the file to write to. A process that dies has still said what it came to.
- `OUTSIDE_TRANSPORT`, `OUTSIDE_BACKEND`: what `redis://` means here to kombu and to Celery's results; stock's
  own if they are not set. Under its usual name, because some tests look at the address.
- `OUTSIDE_LEFT_OUT`: tests that are not run, as a list of whole ids without parameters.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from celery.app.backends import BACKEND_ALIASES
from kombu.transport import TRANSPORT_ALIASES

REPORT = Path(os.environ["OUTSIDE_REPORT"])
LEFT_OUT = frozenset(json.loads(os.environ["OUTSIDE_LEFT_OUT"]))
# On stock, the slowest test takes 150 s: one that takes longer than this hangs.
TEST_SECONDS = 300

if os.environ.get("OUTSIDE_TRANSPORT"):
    TRANSPORT_ALIASES["redis"] = os.environ["OUTSIDE_TRANSPORT"]
if os.environ.get("OUTSIDE_BACKEND"):
    BACKEND_ALIASES["redis"] = os.environ["OUTSIDE_BACKEND"]


def pytest_configure(config: pytest.Config) -> None:
    # kombu's marker, which it registers nowhere.
    config.addinivalue_line("markers", "env(name): the server that a test needs")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    left_out = [item for item in items if item.nodeid.partition("[")[0] in LEFT_OUT]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    for item in items:
        item.add_marker(pytest.mark.timeout(TEST_SECONDS), append=False)
    _write({"collected": [item.nodeid for item in items]})


def pytest_collectreport(report: pytest.CollectReport) -> None:
    if report.failed:
        _write({"test": report.nodeid, "outcome": "failed", "seconds": 0.0, "error": report.longreprtext})


def pytest_runtest_logstart(nodeid: str) -> None:
    _write({"started": nodeid})


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    # A test that passed can still fail in what comes after it; a fixture before it can fail or skip it.
    if report.when == "call" or report.outcome != "passed":
        outcome = report.outcome
        if hasattr(report, "wasxfail"):
            outcome = {"skipped": "xfailed", "passed": "xpassed"}[outcome]
        error = report.longreprtext if report.failed else ""
        _write(
            {"test": report.nodeid, "outcome": outcome, "seconds": round(report.duration, 2), "error": error}
        )


def pytest_sessionfinish() -> None:
    _write({"finished": True})


def _write(line: dict[str, Any]) -> None:
    with REPORT.open("a") as file:
        file.write(json.dumps(line) + "\n")
