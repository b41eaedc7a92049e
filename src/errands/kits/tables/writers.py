"""Files of rows: CSV, XLSX and JSON lines, written a few rows at a time."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from errands import ConfigurationError
from errands.kits.tables.cells import neutral, shortened
from errands.kits.tables.errors import ExportRefused

ExportFormat = Literal["csv", "xlsx", "jsonl"]
CONTENT_TYPES: dict[str, str] = {
    "csv": "text/csv; charset=utf-8",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "jsonl": "application/x-ndjson",
}
XLSX_ROWS = 1_048_576
"""The rows of an XLSX sheet, the header among them."""
_XLSX_TEXT = 32_767
_NO_XML = {0xFFFE: 0xFFFD, 0xFFFF: 0xFFFD} | dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)
# Days that both Excel's calendar, which has a February 29 in 1900, and ours have.
_FIRST_DAY = date(1900, 3, 1)
_EXACT = 10**15  # a spreadsheet's numbers have 15 digits


@dataclass(frozen=True, slots=True)
class Style:
    """How a file is written.

    Attributes:
        bom: CSV begins with a byte order mark, by which Excel knows that it is UTF-8.
        delimiter: of CSV.
    """

    bom: bool = False
    delimiter: str = ","


class Writer(Protocol):
    """Writes one file."""

    def write(self, rows: Iterable[Sequence[Any]]) -> None:
        """Write rows: a value for each column.

        Raises:
            ExportRefused: a value does not fit the format.
        """
        ...

    def close(self) -> None:
        """The file is whole."""
        ...


def writer(
    path: Path, format: ExportFormat, names: Sequence[str], titles: Sequence[str], style: Style | None = None
) -> Writer:
    """A writer of a new file at `path`.

    Args:
        path: where; XLSX keeps what is not yet packed beside it.
        format: "csv", "xlsx" or "jsonl".
        names: of the columns; the keys of JSON.
        titles: of the columns; the header of CSV and XLSX.
        style: see there.
    """
    if format == "csv":
        return CsvWriter(path, titles, style or Style())
    if format == "xlsx":
        return XlsxWriter(path, titles)
    if format == "jsonl":
        return JsonLinesWriter(path, names)
    raise ConfigurationError(f'an export\'s format is "csv", "xlsx" or "jsonl", not {format!r}')


def text(value: Any) -> str:
    """A value as a text: times in ISO 8601, true and false, lists and objects as JSON, None as nothing."""
    if value is None:
        return ""
    if isinstance(value, Enum):
        return text(value.value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value.total_seconds())
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict | list | tuple):
        return json.dumps(value, default=text, ensure_ascii=False)
    return str(value)


class CsvWriter:
    """CSV as RFC 4180 has it, in UTF-8; no cell is run by a spreadsheet."""

    def __init__(self, path: Path, titles: Sequence[str], style: Style) -> None:
        encoding = "utf-8-sig" if style.bom else "utf-8"
        self._file = path.open("w", encoding=encoding, newline="", errors="replace")
        self._writer = csv.writer(self._file, delimiter=style.delimiter)
        self._writer.writerow([neutral(title) for title in titles])

    def write(self, rows: Iterable[Sequence[Any]]) -> None:
        cells = _CELLS.get
        self._writer.writerows([cells(type(value), _cell)(value) for value in row] for row in rows)

    def close(self) -> None:
        self._file.close()


def _cell(value: Any) -> Any:
    return neutral(text(value))


def _number(value: Any) -> Any:
    return value


# The kinds that most cells are of. A number is no formula, also where it begins with a minus.
_CELLS: dict[type, Callable[[Any], Any]] = {str: neutral, int: _number, Decimal: _number, type(None): text}


class JsonLinesWriter:
    """One JSON object for each row, in UTF-8. Decimals are texts, so that no digit is lost; NaN is null."""

    def __init__(self, path: Path, names: Sequence[str]) -> None:
        self._file = path.open("wb")
        self._names = list(names)
        self._encode = msgspec.json.Encoder(enc_hook=text, decimal_format="string").encode_lines

    def write(self, rows: Iterable[Sequence[Any]]) -> None:
        names = self._names
        self._file.write(self._encode([dict(zip(names, row, strict=True)) for row in rows]))

    def close(self) -> None:
        self._file.close()


class XlsxWriter:
    """One sheet, row by row, with a header that stays in sight. Texts are texts, whatever they look like.

    Moments with a time zone are written in UTC, without it: a sheet has none. Numbers of more than 15 digits,
    and days before March 1900, are texts: a sheet would change them.
    """

    def __init__(self, path: Path, titles: Sequence[str]) -> None:
        try:
            import xlsxwriter  # type: ignore[import-untyped]
        except ImportError:
            raise ConfigurationError("writing XLSX needs XlsxWriter: pip install 'errands[tables]'") from None
        options = {
            "constant_memory": True, "tmpdir": str(path.parent), "strings_to_formulas": False,
            "strings_to_urls": False, "strings_to_numbers": False, "nan_inf_to_errors": False,
        }  # fmt: skip
        self._book = xlsxwriter.Workbook(str(path), options)
        self._sheet = self._book.add_worksheet()
        self._titles = list(titles)
        self._day = self._book.add_format({"num_format": "yyyy-mm-dd"})
        self._moment = self._book.add_format({"num_format": "yyyy-mm-dd hh:mm:ss"})
        self._time = self._book.add_format({"num_format": "hh:mm:ss"})
        bold = self._book.add_format({"bold": True})
        self._sheet.freeze_panes(1, 0)
        for column, title in enumerate(self._titles):
            self._sheet.set_column(column, column, min(max(len(title) + 2, 12), 40))
            self._sheet.write_string(0, column, title.translate(_NO_XML)[:255], bold)
        self._row = 1

    def write(self, rows: Iterable[Sequence[Any]]) -> None:
        for row in rows:
            if self._row == XLSX_ROWS:
                raise ExportRefused(
                    f"an XLSX sheet holds {XLSX_ROWS - 1:,} rows and a header, and there are more: export CSV"
                )
            for column, value in enumerate(row):
                if value is not None:
                    self._write(column, value)
            self._row += 1

    def close(self) -> None:
        self._book.close()

    def _write(self, column: int, value: Any) -> None:
        sheet, row = self._sheet, self._row
        if isinstance(value, Enum):
            value = value.value
        if isinstance(value, bool):
            sheet.write_boolean(row, column, value)
        elif _fits(value):
            sheet.write_number(row, column, value)
        elif isinstance(value, datetime) and value.date() > _FIRST_DAY:
            moment = value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)
            sheet.write_datetime(row, column, moment, self._moment)
        elif isinstance(value, date) and not isinstance(value, datetime) and value >= _FIRST_DAY:
            sheet.write_datetime(row, column, value, self._day)
        elif isinstance(value, time) and value.tzinfo is None:
            sheet.write_datetime(row, column, value, self._time)
        else:
            self._write_text(column, text(value))

    def _write_text(self, column: int, value: str) -> None:
        if len(value) > _XLSX_TEXT:
            raise ExportRefused(
                f"row {self._row + 1}: {shortened(self._titles[column], 40)!r} has {len(value):,} "
                f"characters, and an XLSX cell holds {_XLSX_TEXT:,}: export CSV"
            )
        self._sheet.write_string(self._row, column, value.translate(_NO_XML))


def _fits(value: Any) -> bool:
    """Whether it is a number that a sheet's numbers, of 15 digits, hold."""
    if isinstance(value, int):
        return abs(value) < _EXACT
    if isinstance(value, float):
        return math.isfinite(value)
    if not isinstance(value, Decimal) or not value.is_finite():
        return False
    return len(value.normalize().as_tuple().digits) <= 15 and Decimal(repr(float(value))) == value
