"""A file, opened: what it is, and its rows one after the other."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from errands.kits.tables import delimited, json_rows, sheet
from errands.kits.tables.columns import Columns
from errands.kits.tables.detect import check_encoding, delimiter_of, encoding_of, format_of
from errands.kits.tables.errors import FileRefused
from errands.kits.tables.limits import Limits
from errands.kits.tables.raw import Empty, FileInfo, Format, Objects, RawRow, of_cells


@dataclass(frozen=True, slots=True)
class Reading:
    """How files are read. None: found out by looking.

    Attributes:
        format, encoding, delimiter: see `FileInfo`.
        sheet: of an XLSX file; by default its first.
        empty: what an empty cell is: "absent" (a required value is missing, another keeps its default, or
            what is in the table) or "null".
        flatten: the key of an inner object whose keys are the row's, in JSON.
    """

    format: Format | None = None
    encoding: str | None = None
    delimiter: str | None = None
    sheet: str | None = None
    empty: Empty = "absent"
    flatten: str | None = None


def open_file(
    path: Path, columns: Columns, limits: Limits, how: Reading | None = None
) -> tuple[FileInfo, Iterator[RawRow]]:
    """What `path` is, and its rows. Memory is bounded by the limits of a row, whatever the file holds.

    `FileInfo.columns` and `ignored` are complete when the rows have been read.

    Raises:
        FileRefused: here, or while the rows are read: the file can't be imported.
    """
    how = how or Reading()
    size = path.stat().st_size
    if size > limits.bytes:
        raise FileRefused(f"the file has {size:,} bytes; {limits.bytes:,} is the limit")
    info = FileInfo(how.format or format_of(path))
    if info.format == "xlsx":
        cells = sheet.rows(path, limits, how.sheet)
        return info, of_cells(cells, info, columns, limits, how.empty, unescape=False)
    if how.encoding:
        check_encoding(path, how.encoding)
    info.encoding = how.encoding or encoding_of(path)
    if info.format == "csv":
        found, skip = delimiter_of(path, info.encoding, columns)
        info.delimiter = how.delimiter or found
        return info, _csv(path, info, columns, limits, how, skip)
    return info, _json(path, info, Objects(info, columns, limits, how.flatten), limits)


def given_rows(
    items: Iterable[Mapping[str, Any]], columns: Columns, limits: Limits, how: Reading | None = None
) -> tuple[FileInfo, Iterator[RawRow]]:
    """The same for rows that came as arguments of a task."""
    info = FileInfo("rows")
    objects = Objects(info, columns, limits, how.flatten if how else None)
    return info, (objects.row(number, item) for number, item in enumerate(items, start=1))


def _csv(
    path: Path, info: FileInfo, columns: Columns, limits: Limits, how: Reading, skip: int
) -> Iterator[RawRow]:
    with path.open(encoding=info.encoding, newline="") as file:
        cells = delimited.rows(file, info.delimiter or ",", limits, skip=skip)
        yield from of_cells(cells, info, columns, limits, how.empty, unescape=True)


def _json(path: Path, info: FileInfo, objects: Objects, limits: Limits) -> Iterator[RawRow]:
    with path.open(encoding=info.encoding, newline="\n") as file:
        items = json_rows.Array(file, limits) if info.format == "json" else json_rows.lines(file, limits)
        for number, item in items:
            yield objects.row(number, item)
