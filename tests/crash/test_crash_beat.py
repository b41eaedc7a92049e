"""Beats die, clocks are wrong: each fault alone, in its short form."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.crash.faults import beat
from tests.crash.scenario import Fault, play
from tests.crash.stack import Stack
from tests.crash.systems import SYSTEMS

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """One system for all stories of this file; each has runs of its own."""
    with Stack(tmp_path_factory.mktemp("crash"), SYSTEMS["asyncio"]) as made:
        yield made


@pytest.mark.parametrize("fault", beat.FAULTS, ids=lambda fault: fault.name)
def test_every_promise_is_kept(stack: Stack, fault: Fault) -> None:
    row = play(stack, fault)
    assert row.report.runs > 0
    assert row.violations == [], row.notes
