"""A row of a table while events are added to it."""

from __future__ import annotations

from typing import Any


class Row:
    """A row as the database has it (`values`), and what is to be written of it (`changes`)."""

    __slots__ = ("changes", "new", "values")

    def __init__(self, values: dict[str, Any], *, new: bool) -> None:
        self.values = values
        self.new = new
        self.changes: dict[str, Any] = dict(values) if new else {}

    def get(self, name: str) -> Any:
        return self.values.get(name)

    def set(self, **changes: Any) -> None:
        self.values.update(changes)
        self.changes.update(changes)

    def fill(self, **changes: Any) -> None:
        """Set what is not known yet."""
        for name, value in changes.items():
            if value is not None and self.values.get(name) is None:
                self.values[name] = self.changes[name] = value
