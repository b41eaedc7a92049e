"""The first pass: a file read, each row checked, the good ones laid aside."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from errands.kits.tables.checking import Row
from errands.kits.tables.declared import Import
from errands.kits.tables.raw import FileInfo, RawRow, Reason, counted
from errands.kits.tables.spool import Spool

_MOST_TEXT = 4 * 1024 * 1024


class Laid(NamedTuple):
    """Rows that were laid aside: the good ones, others with their reasons, the number of the last."""

    good: list[Row]
    refused: list[tuple[int, list[Reason]]]
    last: int


class Plan:
    """The rows of one file. Its calls block, and belong into a thread, one after the other.

    Args:
        declared: the import.
        folder: an empty one, for what does not fit into memory.
    """

    def __init__(self, declared: Import[Any], folder: Path) -> None:
        self._declared = declared
        self.spool = Spool(folder / "rows.db")
        self.info = FileInfo("rows")
        self.rows = 0
        self._rows: Iterator[RawRow] = iter(())

    def open(self, info: FileInfo, rows: Iterator[RawRow]) -> None:
        """Read from here."""
        self.info, self._rows = info, counted(rows, self._declared.limits)

    def next_rows(self) -> list[Row] | None:
        """Read on: the good ones among the next rows of the file, which may be none; None at its end.

        Raises:
            FileRefused: the file can't be imported.
        """
        good: list[Row] = []
        taken, begin = 0, self.spool.size
        for raw in itertools.islice(self._rows, self._declared.chunk):
            taken += 1
            self.rows += 1
            row = self._check(raw)
            if row is not None:
                good.append(row)
            if self.spool.size - begin > _MOST_TEXT:
                break
        return good if taken else None

    def rows_after(self, number: int) -> Laid | None:
        """The next good rows after the one with this number, of those that were laid aside; None at the
        end."""
        kept = self.spool.rows_after(number, self._declared.chunk)
        if not kept:
            return None
        good: list[Row] = []
        refused: list[tuple[int, list[Reason]]] = []
        for at, values in kept:
            row = self._declared.checker(RawRow(at, values))
            if isinstance(row, Row):
                good.append(row)
            else:  # a rule that looks at more than the row has changed its mind
                refused.append((at, row))
        return Laid(good, refused, kept[-1][0])

    def refuse(self, number: int, reasons: Sequence[Reason]) -> None:
        """A good row is refused by what it meets in the table."""
        self.spool.refuse(
            number, self._declared.checker.hidden(self.spool.values(number)), reasons, kind="met"
        )

    def close(self) -> None:
        """Let go of the file."""
        close = getattr(self._rows, "close", None)
        if close is not None:
            close()
        self.spool.close()

    def _check(self, raw: RawRow) -> Row | None:
        checker = self._declared.checker
        row = checker(raw)
        if not isinstance(row, Row):
            self.spool.refuse(raw.number, checker.hidden(raw.values), row)
            return None
        first = self.spool.add(raw.number, row.key, raw.values)
        if first is None:
            return row
        reason = Reason(None, None, f"row {first} has the same key")
        self.spool.refuse(raw.number, checker.hidden(raw.values), [reason], kind="duplicate")
        return None
