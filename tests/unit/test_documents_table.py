"""Tables and values, before they are set: formats, sides, widths, totals."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any

import pytest

from errands.kits.documents import Column, DocumentError, Table
from errands.kits.documents.text import Texts
from errands.kits.documents.values import shown


class Colour(Enum):
    RED = "red"


def data(table: Table, language: str = "en") -> dict[str, Any]:
    return table.data(Texts(language))


@pytest.mark.parametrize(
    ("value", "spec", "text"),
    [
        ("as it is", "", "as it is"),
        (None, "", ""),
        (12, "", "12"),
        (87.5, "", "87.5"),
        (3.0, "", "3"),
        (1 / 3, "", "0.33"),
        (Decimal("1.70"), "", "1.70"),
        (1234.5, ",.1f", "1,234.5"),
        (True, "", "✓"),
        (False, "", "–"),
        (float("nan"), ".2f", "–"),
        (date(2026, 3, 5), "", "2026-03-05"),
        (date(2026, 3, 5), "%d.%m.%y", "05.03.26"),
        (datetime(2026, 3, 5, 9, 30, 12, tzinfo=UTC), "", "2026-03-05 09:30+00:00"),
        (Colour.RED, "", "red"),
        (None, ".1f", ""),
    ],
)
def test_values_are_written_short(value: object, spec: str, text: str) -> None:
    assert shown(value, spec) == text


def test_numbers_stand_on_the_right_unless_told_otherwise() -> None:
    rows = [("Ana", 1, 2, None), ("Ben", 2.5, 3, Decimal(1))]
    columns = ["Name", "Mark", Column("Rank", align="center"), "Points"]
    assert data(Table(columns, rows))["align"] == ["left", "right", "center", "right"]
    assert data(Table(columns, rows), "ar")["align"] == ["right", "left", "center", "left"]


def test_totals_are_exact_and_leave_out_what_is_no_number() -> None:
    rows = [("a", 0.1, 1), ("b", 0.2, None), ("c", Decimal("0.3"), 2), ("d", True, float("nan"))]
    table = Table(["Name", Column("Sum", total="sum"), Column("Mean", total="mean")], rows)
    assert data(table)["totals"] == [None, "0.6", "1.5"]
    assert data(Table(table.columns, rows, total_label="All"))["totals"][0] == "All"
    assert data(Table(table.columns, []))["totals"] == [None, "0", ""]
    assert data(Table(["Name"], [["a"]]))["totals"] is None


def test_widths_are_told_or_follow_from_what_stands_in_the_columns() -> None:
    rows = [("A longer course name than others", 1)] * 10
    assert data(Table([Column("Course", width=3), Column("Mark")], rows))["widths"] == [3, 1]
    course, mark = data(Table(["Course", "Mark"], rows))["widths"]
    assert course > 4 * mark
    one_in_a_hundred = [*[("short", 1)] * 99, ("x" * 1000, 1)]
    course, mark = data(Table(["Course", "Mark"], one_in_a_hundred))["widths"]
    assert course < 3 * mark


def test_a_bar_is_a_share_of_what_counts_as_full() -> None:
    table = Table([Column("Done", bar=50)], [[25], [80], [-1], ["none"]])
    assert [cell if isinstance(cell, str) else cell["bar"] for (cell,) in data(table)["rows"]] == [
        0.5, 1.0, 0.0, "none",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "about"),
    [
        ([("a",)], "row 1: 1 values for 2 columns"),
        ([("a", 1), ("a", 1, 2)], "row 2: 3 values for 2 columns"),
        (["ab"], "row 1 is a str"),
        ([{"Name": "a", "Mark": 1}], "row 1 is a dict"),
        ([("a", 1), ("b", 2.5)], "row 2, column Mark.*2.5 can't be written as 'd'"),
    ],
)
def test_rows_that_do_not_fit_are_named(rows: list[Any], about: str) -> None:
    with pytest.raises(DocumentError, match=about):
        data(Table(["Name", Column("Mark", format="d")], rows, title="All"))


def test_tables_that_cannot_be() -> None:
    with pytest.raises(DocumentError, match="0 columns"):
        Table([], [])
    with pytest.raises(DocumentError, match="21 columns"):
        Table(["a"] * 21, [])
    with pytest.raises(DocumentError, match="width"):
        Column("a", width=0)
