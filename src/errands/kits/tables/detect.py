"""What kind of file it is: its format, its encoding, its delimiter."""

from __future__ import annotations

import codecs
import csv
import itertools
from pathlib import Path

from errands.kits.tables.columns import Columns
from errands.kits.tables.errors import FileRefused
from errands.kits.tables.raw import Format

_BLOCK = 1024 * 1024
_SAMPLE = 64 * 1024
_DELIMITERS = (",", ";", "\t", "|")
# The longer mark first: that of UTF-32 begins like that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(path: Path) -> str:
    """The encoding of a text file: what its byte order mark says, else UTF-16 by its pattern of zeros, else
    UTF-8 if all of it is, else Windows-1252.

    Raises:
        FileRefused: it is none of them.
    """
    with path.open("rb") as file:
        start = file.read(4096)
    found = next((name for mark, name in _MARKS if start.startswith(mark)), None)
    if found is None and len(start) >= 4:
        even, odd = start[0::2].count(0), start[1::2].count(0)
        if max(even, odd) > len(start) // 5 and min(even, odd) * 4 < max(even, odd):
            found = "utf-16-le" if odd > even else "utf-16-be"
    if found is not None:
        check_encoding(path, found)
        return found
    if _undecodable(path, "utf-8") is None:
        return "utf-8"
    at = _undecodable(path, "cp1252")
    if at is not None:
        raise FileRefused(
            f"the text is neither UTF-8 nor UTF-16 nor Windows-1252 (near byte {at:,}): save it as UTF-8"
        )
    return "cp1252"


def check_encoding(path: Path, encoding: str) -> None:
    """Raises:
    FileRefused: the file is not in this encoding.
    """
    try:
        at = _undecodable(path, encoding)
    except LookupError:
        raise FileRefused(f"there is no encoding {encoding!r}") from None
    if at is not None:
        raise FileRefused(f"the text is not {encoding} (near byte {at:,}): save it as UTF-8")


def _undecodable(path: Path, encoding: str) -> int | None:
    decoder = codecs.getincrementaldecoder(encoding)("strict")
    at = 0
    with path.open("rb") as file:
        while True:
            block = file.read(_BLOCK)
            try:
                decoder.decode(block, final=not block)
            except UnicodeError as error:
                return at + (error.start if isinstance(error, UnicodeDecodeError) else 0)
            if not block:
                return None
            at += len(block)


def format_of(path: Path) -> Format:
    """The format, by the first bytes; names and what a browser says of a file are not asked.

    Raises:
        FileRefused: it is empty, or an old or protected Excel file.
    """
    with path.open("rb") as file:
        start = file.read(4096)
    if not start.strip(b" \t\r\n"):
        raise FileRefused("the file is empty")
    if start.startswith(b"PK\x03\x04"):
        return "xlsx"
    if start.startswith(b"\xd0\xcf\x11\xe0"):
        raise FileRefused(
            "this is an old (.xls) or protected Excel file: save it as .xlsx without a password"
        )
    text = start.translate(None, b"\xef\xbb\xbf\xff\xfe\0 \t\r\n")
    return "json" if text[:1] == b"[" else "jsonl" if text[:1] == b"{" else "csv"


def delimiter_of(path: Path, encoding: str, columns: Columns) -> tuple[str, int]:
    """The delimiter of a CSV file, and how many lines stand before the header (`sep=;`, for Excel).

    It is the one that finds the most columns of those that are known, and then the one that divides most
    lines into equally many cells.
    """
    with path.open(encoding=encoding, newline="") as file:
        sample = file.read(_SAMPLE)
    first = sample.split("\n", 1)[0].rstrip("\r")
    if first.lower().startswith("sep=") and len(first) == 5:
        return first[4], 1
    lines = sample.splitlines(keepends=True)
    if len(sample) == _SAMPLE and len(lines) > 1:
        lines.pop()  # it may be cut off

    def score(delimiter: str) -> tuple[int, int, int]:
        try:
            rows = [row for row in itertools.islice(csv.reader(lines, delimiter=delimiter), 30) if row]
        except csv.Error:
            return (-1, 0, 0)
        if not rows:
            return (-1, 0, 0)
        width = len(rows[0])
        return (columns.known(rows[0]), sum(len(row) == width for row in rows), width)

    return max(_DELIMITERS, key=score), 0
