"""Tables: columns, rows from anywhere, totals."""

from __future__ import annotations

import unicodedata
from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, TypeAlias, cast

from errands.kits.documents.errors import DocumentError
from errands.kits.documents.text import Texts
from errands.kits.documents.values import is_number, shown

Row: TypeAlias = Sequence[object]
_LONG_CELL = 400


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    `width`: its share of the page beside the other columns' (1 where others have one and it has none); where
    no column has a width, they follow from what stands in them. `align`: left, right or center, which turn
    around in a language that runs to the left; numbers go to the right by themselves. `format`: how numbers
    and dates are written, as in `format(value, ",.1f")`. `total`: `sum` or `mean` of its numbers, below the
    last row. `bar`: the number that counts as full; each number is drawn as a bar too.
    """

    title: str
    width: float | None = None
    align: Literal["left", "right", "center"] | None = None
    format: str = ""
    total: Literal["sum", "mean"] | None = None
    bar: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("width", self.width), ("bar", self.bar)):
            if value is not None and not 0 < value < 1e9:
                raise DocumentError(f"column {self.title!r}: {name} {value} is not above zero")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under columns; the header comes again on each page.

    `columns`: `Column`s, or just their titles; up to 20. `rows`: any iterable of sequences, one value for
    each column (text, numbers, dates, None), also an async one such as a streamed query. `empty` stands
    there where no row does, `total_label` before the totals; without them "No entries", and "Total" or
    "Average", in the report's language.
    """

    columns: Sequence[Column | str]
    rows: Iterable[Row] | AsyncIterable[Row]
    title: str = ""
    empty: str = ""
    total_label: str = ""

    def __post_init__(self) -> None:
        if not 1 <= len(self.columns) <= 20:
            raise DocumentError(f"table {self.title!r} has {len(self.columns)} columns; 1 to 20 are possible")

    def with_rows(self, rows: list[Row]) -> Table:
        """The same table with these rows."""
        return replace(self, rows=rows)

    def data(self, texts: Texts) -> dict[str, Any]:
        """What the template sets: a list of texts for each row."""
        name = f"table {self.title}".rstrip()
        columns = [Column(column) if isinstance(column, str) else column for column in self.columns]
        rows = cast("list[Row]", self.rows)
        cells = [self._cells(columns, row, number, texts, name) for number, row in enumerate(rows, start=1)]
        totals = [_total(column, [row[at] for row in rows]) for at, column in enumerate(columns)]
        longest = max(
            (len(shown(value)) for row in rows for value in row if isinstance(value, str)), default=0
        )
        return {
            "type": "table",
            "title": texts(self.title, name),
            "header": [texts(column.title, name) for column in columns],
            "widths": _widths(columns, rows, cells),
            "align": [
                _alignment(column, [row[at] for row in rows], texts.right_to_left)
                for at, column in enumerate(columns)
            ],
            "rows": cells,
            "empty": texts(self.empty, name),
            "totals": self._totals(columns, totals, texts, name) if any(c.total for c in columns) else None,
            "total_word": "total" if any(column.total == "sum" for column in columns) else "mean",
            # A row stays on one page, unless it might be longer than one.
            "breakable": longest > _LONG_CELL,
        }

    def _cells(
        self, columns: Sequence[Column], row: Row, number: int, texts: Texts, name: str
    ) -> list[str | dict[str, object]]:
        if isinstance(row, str | Mapping):
            raise DocumentError(
                f"{name}, row {number} is a {type(row).__name__}: give its values in the columns' order"
            )
        if len(row) != len(columns):
            raise DocumentError(f"{name}, row {number}: {len(row)} values for {len(columns)} columns")
        found = []
        for column, value in zip(columns, row, strict=True):
            where = f"{name}, row {number}, column {column.title}"
            try:
                text = texts(shown(value, column.format), where)
            except ValueError as error:
                raise DocumentError(
                    f"{where}: {value!r} can't be written as {column.format!r}: {error}"
                ) from error
            if column.bar and is_number(value):
                share = min(1.0, max(0.0, float(cast(float, value)) / column.bar))
                text = {"text": text, "bar": round(share, 4)}
            found.append(text)
        return found

    def _totals(
        self, columns: Sequence[Column], totals: Sequence[Decimal | None], texts: Texts, name: str
    ) -> list[str | dict[str, object] | None]:
        written = [
            "" if total is None else shown(_plain(total), column.format)
            for column, total in zip(columns, totals, strict=True)
        ]
        found: list[str | dict[str, object] | None] = [texts(text, f"{name}, totals") for text in written]
        if not written[0]:
            found[0] = texts(self.total_label, f"{name}, totals") if self.total_label else None
        return found


def _total(column: Column, values: Sequence[object]) -> Decimal | None:
    if column.total is None:
        return None
    try:
        numbers = [Decimal(str(value)) for value in values if value == value and is_number(value)]
        total = sum(numbers, Decimal())
        return total if column.total == "sum" else round(total / len(numbers), 2) if numbers else None
    except InvalidOperation:
        return None


def _plain(number: Decimal) -> Decimal | int:
    return int(number) if number == number.to_integral_value() else number.normalize()


def _alignment(column: Column, values: Sequence[object], right_to_left: bool) -> str:
    side = column.align
    if side is None:
        filled = [value for value in values if value is not None]
        side = "right" if filled and column.bar is None and all(map(is_number, filled)) else "left"
    return {"left": "right", "right": "left"}.get(side, side) if right_to_left else side


def _widths(
    columns: Sequence[Column], rows: Sequence[Row], cells: Sequence[Sequence[str | dict[str, object]]]
) -> list[float]:
    """The columns' shares of the width: as told, or so that nine of ten values have room in one line."""
    if any(column.width is not None for column in columns):
        return [column.width or 1 for column in columns]
    found = []
    for at, column in enumerate(columns):
        lengths = sorted(_width(_text(row[at])) for row in cells) or [0]
        usual = lengths[min(len(lengths) - 1, len(lengths) * 9 // 10)]
        least = max((_width(word) for word in column.title.split()), default=1)
        found.append(float(max(least, min(usual, 40), 5 if column.bar is None else 14) + 2))
    return found


def _text(cell: str | dict[str, object]) -> str:
    while not isinstance(cell, str):
        cell = cast("str | dict[str, object]", cell["text"])
    return cell


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)
