"""The suite sees what goes wrong: on stock Celery, where some things do."""

from __future__ import annotations

from pathlib import Path

from tests.crash.faults import messages
from tests.crash.scenario import Fault, play
from tests.crash.stack import Stack
from tests.crash.systems import SYSTEMS


def test_what_stock_celery_throws_away_is_found(tmp_path: Path) -> None:
    fault = Fault("unknown task", messages.unknown, "messages", bound=10)
    with Stack(tmp_path, SYSTEMS["celery"]) as stack:
        row = play(stack, fault, patience=5)
    assert len(row.report.lost) == 5
    assert any(line.startswith("lost: 5") for line in row.violations)
