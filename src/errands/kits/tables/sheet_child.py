"""The process that reads an XLSX file: `python -I sheet_child.py path sheet rows columns memory seconds`.

Writes one line for each row, a JSON list of texts. Ends with 3, and the reason as the last line of its
errors, where the file is not as it should be. It imports nothing of ours, to start fast and hold little.
"""

from __future__ import annotations

import json
import sys
from datetime import date, datetime, time, timedelta
from typing import Any


def limit(memory: int, seconds: int) -> None:
    """Let the system end this process where it takes more."""
    try:
        import resource
    except ImportError:  # not on Windows; what the parent checked must do
        return
    for kind, value in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, seconds),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        try:
            resource.setrlimit(kind, (value, hard))
        except (ValueError, OSError):  # a system without this limit
            continue


def text(value: Any) -> str:
    """A cell as CSV would have it."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    if isinstance(value, datetime | date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value.total_seconds())
    return str(value)


def refuse(reason: str) -> None:
    sys.stderr.write(reason + "\n")
    sys.exit(3)


def main(path: str, name: str, rows: str, columns: str, memory: str, seconds: str) -> None:
    from python_calamine import CalamineError, CalamineWorkbook

    limit(int(memory), int(seconds))
    most_rows, most_columns = int(rows), int(columns)
    try:
        book = CalamineWorkbook.from_path(path)
        if name and name not in book.sheet_names:
            known = ", ".join(other[:80] for other in book.sheet_names[:20])
            refuse(f"there is no sheet {name[:80]!r}; there are {known}")
        if not book.sheet_names:
            refuse("the XLSX file has no sheet")
        sheet = book.get_sheet_by_name(name or book.sheet_names[0])
    except CalamineError as error:
        refuse(f"this is no XLSX file that can be read: {str(error)[:200]}")
        return
    if sheet.width > most_columns:
        refuse(f"the sheet has {sheet.width:,} columns; {most_columns:,} is the limit")
    height = sheet.end[0] + 1 if sheet.end is not None else 0
    if height > most_rows:
        refuse(f"the sheet has {height:,} rows; {most_rows - 1:,} and a header are the limit")
    if height:
        for cells in sheet.iter_rows():
            sys.stdout.write(json.dumps([text(cell) for cell in cells]) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
