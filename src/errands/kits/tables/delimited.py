"""Rows of a CSV file (RFC 4180), with any delimiter and any mixture of line ends."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import TextIO

from errands.kits.tables.errors import FileRefused
from errands.kits.tables.limits import Limits
from errands.kits.tables.raw import Reason


def rows(
    file: TextIO, delimiter: str, limits: Limits, *, skip: int = 0
) -> Iterator[tuple[int, list[str] | Reason]]:
    """The cells of each row, with its number; a `Reason` for one that can't be divided into cells.

    Args:
        file: opened with `newline=""`.
        delimiter: one character.
        limits: how long a row may be.
        skip: lines before the header.

    Raises:
        FileRefused: a quote is never closed, or a row is longer than the limit: where the rows after it
            begin, nobody can say.
    """
    lines = _Lines(file, limits.row)
    for _ in range(skip):
        next(lines, None)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    number = 0
    while True:
        number += 1
        lines.number, lines.taken = number, 0
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            text = str(error)
            if "end of data" in text:
                raise FileRefused(f"row {number} opens a quote that is never closed") from None
            if "field limit" in text:
                raise FileRefused(lines.too_long()) from None
            yield number, Reason(None, None, f"the row can't be divided into cells: {text}")
        else:
            yield number, cells


class _Lines(Iterator[str]):
    """Lines of a file, as long as a row may be."""

    def __init__(self, file: TextIO, most: int) -> None:
        self._file, self._most = file, most
        self.number = self.taken = 0

    def __next__(self) -> str:
        line = self._file.readline(self._most + 1)
        self.taken += len(line)
        if self.taken > self._most:
            raise FileRefused(self.too_long())
        if not line:
            raise StopIteration
        return line

    def too_long(self) -> str:
        return (
            f"row {self.number} is too long (a row may have {self._most:,} characters), or it opens a quote "
            "that is never closed"
        )
