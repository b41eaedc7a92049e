"""Rows as they stand in a file, before anybody has looked at their values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from errands.kits.tables.cells import plain, shortened
from errands.kits.tables.columns import Columns
from errands.kits.tables.errors import FileRefused
from errands.kits.tables.limits import Limits

Format = Literal["csv", "xlsx", "json", "jsonl"]
Empty = Literal["absent", "null"]
_MOST_IGNORED = 50


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a row was refused.

    Attributes:
        field: whose value it is about, nested ones with dots; None for the row as a whole.
        value: the beginning of that value, `***` for a secret one; None where there is none to show.
        message: what is wrong with it.
    """

    field: str | None
    value: str | None
    message: str

    def as_json(self) -> dict[str, Any]:
        """As a task's result shows it."""
        return {"field": self.field, "value": self.value, "message": self.message}


@dataclass(frozen=True, slots=True)
class RawRow:
    """A row of a file. `number` is the one that a spreadsheet shows, the header being 1; in JSON the first is
    1. `values` are by field; those of cells are texts."""

    number: int
    values: dict[str, Any]
    reasons: tuple[Reason, ...] = ()


@dataclass(slots=True)
class FileInfo:
    """What was found out about a file.

    Attributes:
        format: "csv", "xlsx", "json" or "jsonl"; "rows" for rows that came as arguments.
        encoding: of a text file: "utf-8", "utf-8-sig" (with a byte order mark), "utf-16", "cp1252"…
        delimiter: of a CSV file.
        columns: the field that each column (or key) was taken for.
        ignored: columns that are no field, the first 50.
    """

    format: str
    encoding: str | None = None
    delimiter: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    ignored: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """As a task's result shows it."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def ignore(self, name: str) -> None:
        """A column of this name is passed over."""
        name = shortened(name)
        if len(self.ignored) < _MOST_IGNORED and name not in self.ignored:
            self.ignored.append(name)


def of_cells(
    rows: Iterator[tuple[int, list[str] | Reason]],
    info: FileInfo,
    columns: Columns,
    limits: Limits,
    empty: Empty,
    unescape: bool,
) -> Iterator[RawRow]:
    """Rows of cells as rows of fields: the first that is not empty is the header."""
    header: list[str | None] | None = None
    for number, cells in rows:
        if isinstance(cells, Reason):
            if header is None:
                raise FileRefused(f"the header, row {number}: {cells.message}")
            yield RawRow(number, {}, (cells,))
        elif any(cells):
            if header is None:
                header = _header(cells, info, columns, limits)
            else:
                yield _of_cells(number, cells, header, limits, empty, unescape)
    if header is None:
        raise FileRefused("the file is empty: it needs a line with the names of the columns")


def _header(cells: list[str], info: FileInfo, columns: Columns, limits: Limits) -> list[str | None]:
    while not cells[-1]:
        cells = cells[:-1]
    if len(cells) > limits.columns:
        raise FileRefused(f"the header has {len(cells):,} columns; {limits.columns:,} is the limit")
    names = [cell[:200] for cell in cells]
    header = columns.of_header(names)
    info.columns = {name: found for name, found in zip(names, header, strict=True) if found}
    for name, found in zip(names, header, strict=True):
        if found is None and name:
            info.ignore(name)
    return header


def _of_cells(
    number: int, cells: list[str], header: list[str | None], limits: Limits, empty: Empty, unescape: bool
) -> RawRow:
    if len(cells) != len(header) and (len(cells) < len(header) or any(cells[len(header) :])):
        text = f"the row has {len(cells)} cells, and the header {len(header)}"
        kept = {name: cell[: limits.cell] for name, cell in zip(header, cells, strict=False) if name and cell}
        return RawRow(number, kept, (Reason(None, None, text),))
    values: dict[str, Any] = {}
    reasons: list[Reason] = []
    for name, cell in zip(header, cells, strict=False):
        if name is None:
            continue
        if cell:
            if len(cell) > limits.cell or "\0" in cell:
                reasons.append(_unfit(name, cell, limits))
                cell = shortened(cell)
            values[name] = plain(cell) if unescape else cell
        elif empty == "null":
            values[name] = None
    return RawRow(number, values, tuple(reasons))


class Objects:
    """JSON objects as rows of fields.

    Args:
        info: gets the keys that were met.
        columns: finds the field of a key.
        limits: what a value may be.
        flatten: a key whose value, an object too, is merged into the row.
    """

    def __init__(self, info: FileInfo, columns: Columns, limits: Limits, flatten: str | None = None) -> None:
        self._info, self._columns, self._limits = info, columns, limits
        self._flatten = flatten
        self._fields: dict[str, str | None] = {}

    def row(self, number: int, item: Any) -> RawRow:
        """The row that `item`, the value of any kind that stands there, is."""
        if isinstance(item, Reason):
            return RawRow(number, {}, (item,))
        if not isinstance(item, dict):
            return self._refused(number, item, "a row is an object with the names of the columns as keys")
        if self._flatten in item:
            inner = item[self._flatten]
            if not isinstance(inner, dict):
                return self._refused(number, inner, f"{self._flatten} must be an object with names as keys")
            item = {**{key: value for key, value in item.items() if key != self._flatten}, **inner}
        if len(item) > self._limits.columns:
            return self._refused(
                number, None, f"the row has {len(item):,} keys, over {self._limits.columns:,}"
            )
        values: dict[str, Any] = {}
        reasons: list[Reason] = []
        for key, value in item.items():
            name = self._field(key)
            if name is None:
                if self._columns.unknown == "refuse":
                    reasons.append(Reason(shortened(key), None, "there is no such field"))
            elif name in values:
                reasons.append(Reason(name, None, "the row has two keys for it"))
            elif (reason := self._problem(name, value)) is not None:
                reasons.append(reason)
                values[name] = shortened(value if isinstance(value, str) else "…")
            else:
                values[name] = value
        return RawRow(number, values, tuple(reasons))

    def _field(self, key: str) -> str | None:
        if key not in self._fields:
            if len(self._fields) > 10_000:  # keys that are data fill no memory
                self._fields.clear()
            found = self._fields[key] = self._columns.field(key)
            if found is None:
                self._info.ignore(key)
            else:
                self._info.columns[key[:200]] = found
        return self._fields[key]

    def _problem(self, name: str, value: Any) -> Reason | None:
        if isinstance(value, str):
            if len(value) > self._limits.cell or "\0" in value:
                return _unfit(name, value, self._limits)
        elif isinstance(value, dict | list) and not _within(value, self._limits.depth - 1):
            return Reason(name, None, f"lists and objects lie more than {self._limits.depth} deep")
        return None

    @staticmethod
    def _refused(number: int, value: Any, text: str) -> RawRow:
        return RawRow(number, {}, (Reason(None, None if value is None else shortened(str(value)), text),))


def _unfit(name: str, text: str, limits: Limits) -> Reason:
    if len(text) > limits.cell:
        message = f"the text has {len(text):,} characters; {limits.cell:,} is the limit"
    else:
        message = "the text holds a NUL character, which no text has"
    return Reason(name, shortened(text), message)


def _within(value: Any, depth: int) -> bool:
    """Whether no list or object lies deeper than `depth` in `value`; without recursion, however deep."""
    level = [value]
    while level and depth >= 0:
        depth -= 1
        inner: list[Any] = []
        for item in level:
            parts = item.values() if isinstance(item, dict) else item
            inner += [part for part in parts if isinstance(part, dict | list)]
        level = inner
    return not level


def counted(rows: Iterator[RawRow], limits: Limits) -> Iterator[RawRow]:
    """The rows, up to the limit.

    Raises:
        FileRefused: there are more.
    """
    for count, row in enumerate(rows, start=1):
        if count > limits.rows:
            raise FileRefused(f"the file has more than {limits.rows:,} rows: divide it")
        yield row
