"""What a clean-up says of itself, checked where it is declared."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NoReturn

from sqlalchemy import ColumnElement

from errands import ConfigurationError
from errands.core.schedule import checked_name, rule_of

Archive = Callable[[Sequence[dict[str, Any]]], Awaitable[None] | None]

_MOST_CHUNK = 10_000
"""More than that in one transaction keeps others waiting, and is no faster."""


@dataclass(frozen=True, slots=True, eq=False)
class Upkeep:
    """One clean-up: the rows of a table, the files of a folder, or whatever a function of yours removes.

    Args:
        name: of the task and of the schedule.
        table: a `Table` or a mapped class, with a primary key; its old rows are deleted.
        column: the time that tells how old a row is: a column of the table, or its name.
        where: which rows may go at all; by default every one.
        archive: gets each chunk of rows, as dicts, right before it is deleted, in the same transaction;
            plain or `async def`. If it raises, the chunk stays. After a crash it may get a chunk again.
        folder: its old files are deleted, in folders below it too, and folders that are empty. Not the root
            of a disk, nor somebody's home.
        pattern: of the names of files that may go, like `upload-*`.
        call: removes something and returns how many, plain or `async def`. It may ask for `before` (a
            `datetime`: now less `older_than`), for `dry_run`, and by keyword for resources, as a task does.
        older_than: how old something must be, zero or more. Rows with zero: whose time has passed.
        chunk: rows in one transaction, or files between two looks at whether to go on; 1 to 10,000.
        cron, every, tz: when it runs, as with `app.schedule`; without them only when somebody sends the task.
        queue: where the task waits.

    Raises:
        ConfigurationError: it contradicts itself; the text names it and what is wrong.
    """

    name: str
    _: KW_ONLY
    table: Any = None
    column: Any = None
    where: ColumnElement[bool] | None = None
    archive: Archive | None = None
    folder: Path | str | None = None
    pattern: str = "*"
    call: Callable[..., Any] | None = None
    older_than: timedelta | None = None
    chunk: int = 1000
    cron: str | None = None
    every: timedelta | float | None = None
    tz: str | None = None
    queue: str | None = None

    def __post_init__(self) -> None:
        checked_name(self.name)
        given = [word for word in ("table", "folder", "call") if getattr(self, word) is not None]
        if len(given) != 1:
            self.refuse(
                "say what goes, with one of table=, folder= and call="
                + (f", not with {' and '.join(given)}" if given else "")
            )
        if (
            isinstance(self.chunk, bool)
            or not isinstance(self.chunk, int)
            or not 1 <= self.chunk <= _MOST_CHUNK
        ):
            self.refuse(f"chunk={self.chunk!r}: write 1 to {_MOST_CHUNK:,}")
        if self.older_than is not None and not isinstance(self.older_than, timedelta):
            self.refuse(f"older_than={self.older_than!r}: write a timedelta")
        if self.older_than is not None and self.older_than < timedelta(0):
            self.refuse(f"older_than={self.older_than}: what is not old yet would go too; write zero or more")
        if self.older_than is None and self.call is None:
            self.refuse("say how old it must be: older_than=timedelta(days=30)")
        if self.cron is not None or self.every is not None:
            rule_of(self.name, cron=self.cron, every=self.every, tz=self.tz)
        elif self.tz is not None:
            self.refuse(f"tz={self.tz!r} belongs to a cron line")
        self._check_words(given[0])

    def refuse(self, why: str) -> NoReturn:
        """Raise ConfigurationError, with the name of the clean-up."""
        raise ConfigurationError(f"upkeep {str(self.name)[:80]!r}: {why}")

    def _check_words(self, what: str) -> None:
        belong = {"column": "table", "where": "table", "archive": "table"}
        for word, owner in belong.items():
            if getattr(self, word) is not None and what != owner:
                self.refuse(f"{word}= belongs to {owner}=, and this has {what}=")
        if self.pattern != "*" and what != "folder":
            self.refuse(f"pattern= belongs to folder=, and this has {what}=")
        if what == "table" and self.column is None:
            self.refuse("say by which column a row is old: column=table.c.created_at")
        if what == "folder":
            folder = Path(self.folder or "").expanduser().absolute()
            if folder == Path(folder.anchor) or folder == Path.home():
                self.refuse(f"folder={str(folder)!r} holds far more than what may go; name one of your own")
        if self.archive is not None and not callable(self.archive):
            self.refuse(f"archive={self.archive!r} is no function")
        if self.call is not None and not (inspect.isroutine(self.call) or callable(self.call)):
            self.refuse(f"call={self.call!r} is no function")
