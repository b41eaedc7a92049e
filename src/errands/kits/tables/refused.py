"""The file of refused rows: to be mended in a spreadsheet and imported again."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from errands.kits.tables.cells import neutral
from errands.kits.tables.columns import REASONS
from errands.kits.tables.raw import Reason


def write(
    path: Path, fields: Sequence[str], rows: Iterable[tuple[int, Mapping[str, Any], Sequence[Reason]]]
) -> None:
    """A CSV file with the fields of each refused row as they were, and the reasons in the last column.

    UTF-8 with a byte order mark, for Excel; no cell is run by a spreadsheet.
    """
    with path.open("w", encoding="utf-8-sig", newline="", errors="replace") as file:
        writer = csv.writer(file)
        writer.writerow([*map(neutral, fields), REASONS])
        for number, values, reasons in rows:
            told = "; ".join(f"{one.field}: {one.message}" if one.field else one.message for one in reasons)
            cells = [neutral(_text(values.get(field))) for field in fields]
            writer.writerow([*cells, neutral(f"row {number}: {told}")])


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    return json.dumps(value, default=str, ensure_ascii=False)
