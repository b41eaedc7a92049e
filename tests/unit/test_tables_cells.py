"""Cells that no spreadsheet runs, and that come back as they were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from errands.kits.tables.cells import neutral, plain, shortened

FORMULAS = [
    "=1+1",
    "+1+1",
    "-1+1",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "\uff1d1+1",
    "=cmd|' /C calc'!A0",
    "-",
    "+",
]


@pytest.mark.parametrize("text", FORMULAS)
def test_a_formula_becomes_a_text(text: str) -> None:
    """Mistake 29: formulas in exported cells run in the reader's spreadsheet."""
    assert neutral(text) == "'" + text


@pytest.mark.parametrize("text", ["-5", "-0.25", "-1e9", "5", "a=b", "", "O'Neill", "''", " =1"])
def test_what_is_no_formula_stays(text: str) -> None:
    assert neutral(text) == text


@given(st.text(alphabet="'=+-@\t\r\n1.5e a"))
def test_reading_takes_back_what_writing_did(text: str) -> None:
    assert plain(neutral(text)) == text


@given(st.text(alphabet="'=+-@\t\r\n15 a", min_size=1))
def test_nothing_that_is_written_begins_like_a_formula(text: str) -> None:
    written = neutral(text)
    assert written[0] not in "=+@\t\r\n"
    assert written[0] != "-" or float(written) < 0 or float(written) == 0


def test_values_are_shown_in_a_line() -> None:
    assert shortened("a\nb\0" + "x" * 100, 10) == "a\ufffdb\ufffdxxxxx…"
    assert shortened(12) == "12"
