"""What was found out about a file's rows, while the import is at work: on disk, not in memory.

A small SQLite file of its own. It also tells which rows have the key of an earlier one, however many there
are.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from errands.kits.tables.checking import Key
from errands.kits.tables.raw import Reason

# Refused by what it is, as a duplicate, or by what it meets in the table.
Kind = Literal["checked", "duplicate", "met"]
_MOST_TEXT = 4 * 1024 * 1024  # characters of one chunk
_encode = json.JSONEncoder(separators=(",", ":"), default=str).encode


class Spool:
    """Good rows in their order, and refused ones with their reasons.

    Args:
        path: of a file that is not there yet. It is not durable: who is cut off reads the file again.
    """

    def __init__(self, path: Path) -> None:
        # Steps of one import run in several threads, one after the other.
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "temp_store = FILE"):
            self._connection.execute(f"PRAGMA {pragma}")
        self._connection.execute("CREATE TABLE rows (number INTEGER PRIMARY KEY, key TEXT UNIQUE, data TEXT)")
        self._connection.execute(
            "CREATE TABLE refused (number INTEGER PRIMARY KEY, kind TEXT, data TEXT, reasons TEXT)"
        )
        self._connection.execute("BEGIN")
        self.good = 0
        self.size = 0  # characters that were kept

    def add(self, number: int, key: Key, values: dict[str, Any]) -> int | None:
        """Keep a good row. None if it is the first with its key; else the number of the first, and the row is
        not kept."""
        # Most keys are one text, which needs no encoding to be told from others.
        text = "=" + key[0] if len(key) == 1 and type(key[0]) is str else _encode(key)
        data = _encode(values)
        self.size += len(data)
        done = self._connection.execute("INSERT OR IGNORE INTO rows VALUES (?, ?, ?)", (number, text, data))
        if done.rowcount:
            self.good += 1
            return None
        found = self._connection.execute("SELECT number FROM rows WHERE key = ?", (text,)).fetchone()
        return int(found[0])

    def refuse(
        self, number: int, values: dict[str, Any], reasons: Iterable[Reason], *, kind: Kind = "checked"
    ) -> None:
        """Keep a refused row."""
        told = _encode([(reason.field, reason.value, reason.message) for reason in reasons])
        data = _encode(values)
        self.size += len(data)
        self._connection.execute(
            "INSERT OR REPLACE INTO refused VALUES (?, ?, ?, ?)", (number, kind, data, told)
        )

    def forget_met(self) -> None:
        """What was refused by the table is about to be found out anew."""
        self._connection.execute("DELETE FROM refused WHERE kind = 'met'")

    @property
    def refused(self) -> int:
        """How many rows are refused, duplicates aside."""
        return self._count("kind != 'duplicate'")

    @property
    def duplicates(self) -> int:
        """How many rows have the key of an earlier one."""
        return self._count("kind = 'duplicate'")

    def rows_after(self, number: int, most: int) -> list[tuple[int, dict[str, Any]]]:
        """The next good rows, at most so many."""
        found: list[tuple[int, dict[str, Any]]] = []
        size = 0
        query = "SELECT number, data FROM rows WHERE number > ? ORDER BY number"
        for at, data in self._connection.execute(query, (number,)):
            found.append((at, json.loads(data)))
            size += len(data)
            if len(found) == most or size > _MOST_TEXT:
                break
        return found

    def values(self, number: int) -> dict[str, Any]:
        """Those of a good row."""
        found = self._connection.execute("SELECT data FROM rows WHERE number = ?", (number,)).fetchone()
        return dict(json.loads(found[0])) if found else {}

    def refusals(self, most: int | None = None) -> Iterator[tuple[int, dict[str, Any], Sequence[Reason]]]:
        """The refused rows in their order, duplicates among them."""
        query = "SELECT number, data, reasons FROM refused ORDER BY number LIMIT ?"
        for number, data, reasons in self._connection.execute(query, (-1 if most is None else most,)):
            yield number, json.loads(data), [Reason(*reason) for reason in json.loads(reasons)]

    def _count(self, where: str) -> int:
        found = self._connection.execute(f"SELECT count(*) FROM refused WHERE {where}").fetchone()  # noqa: S608
        return int(found[0])

    def close(self) -> None:
        """The file may be removed afterwards."""
        self._connection.close()
