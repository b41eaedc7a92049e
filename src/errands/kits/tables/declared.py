"""What an application says of an import, once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar, get_args

from pydantic import BaseModel

from errands import ConfigurationError
from errands.kits.tables.checking import Checker
from errands.kits.tables.chunk import Counts, Mode
from errands.kits.tables.columns import Columns
from errands.kits.tables.limits import Limits
from errands.kits.tables.permission import Allowed
from errands.kits.tables.reading import Reading
from errands.kits.tables.sql_target import SqlTarget
from errands.kits.tables.target import Target

M = TypeVar("M", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Threshold:
    """When a file is taken for the wrong one, and nothing of it is written.

    Attributes:
        changed: the share of the rows in the table that would change, 0 to 1; None: any.
        refused: the share of the file's rows that are refused; None: any.
        created: the share that new rows would have of all rows then; None: any.
        least: so many rows never stop an import, whatever share they are.
    """

    changed: float | None = 0.2
    refused: float | None = 0.2
    created: float | None = None
    least: int = 10

    def __post_init__(self) -> None:
        for name in ("changed", "refused", "created"):
            share = getattr(self, name)
            if share is not None and not 0 <= share <= 1:
                raise ConfigurationError(f"tables.Threshold({name}={share}): a share is 0 to 1, or None")
        if self.least < 0:
            raise ConfigurationError(f"tables.Threshold(least={self.least}): it is 0 or more")

    def exceeded(self, counts: Counts, before: int) -> str | None:
        """Why the file is not imported; None if it may be. `before` is how many rows the table has."""
        return self.too_many_refused(counts.refused, counts.rows) or next(
            (
                f"{n:,} of {of:,} {what} ({n / of:.0%}); more than {share:.0%} are not let through"
                for share, n, of, what in (
                    (self.changed, counts.updated, before, "existing rows would change"),
                    (self.created, counts.created, before + counts.created, "rows would be new"),
                )
                if share is not None and n > self.least and n > share * of
            ),
            None,
        )

    def too_many_refused(self, refused: int, rows: int) -> str | None:
        """The same for refused rows alone."""
        if self.refused is None or refused <= self.least or refused <= self.refused * rows:
            return None
        return (
            f"{refused:,} of {rows:,} rows are refused ({refused / rows:.0%}); more than {self.refused:.0%} "
            "are not let through"
        )


@dataclass(frozen=True)
class Import(Generic[M]):
    """An import: `CADETS = Import("cadets", CadetRow, key="cadet_id", target=SqlTarget(Cadet, "cadet_id"))`.

    Attributes:
        name: in results, records and file names.
        row: a pydantic model of a row. Its field names are the columns' names, whatever their case, with
            spaces for underscores or not.
        key: the field, or fields, that tell rows apart.
        target: what is written to.
        aliases: further names of columns: `{"cadet_id": ["No.", "number"]}`.
        mode: "upsert"; "create" refuses rows whose key is there, "update" those whose key is not.
        unknown: "ignore" columns that are no field, or "refuse" the file (in JSON, the row).
        allowed: called with who asks before anything is read; False, or a raised `NotAllowed`, refuses it.
            Plain or `async def`.
        check: a further rule for a row that is good by itself: gets it, returns what is wrong or None.
        values: makes the values to be written from a row; by default they are its fields.
        secret: fields whose values no result shows, besides those that are `SecretStr` or `Secret[…]`.
        threshold: when a file is taken for the wrong one; None: never.
        reading: how files are read, where they do not tell.
        limits: how large they may be.
        chunk: rows that are written in one transaction.
        shown: refused rows that the result lists; the file of refused rows has all.

    Raises:
        ConfigurationError: something of it contradicts the rest.
    """

    name: str
    row: type[M]
    key: str | Sequence[str]
    target: Target
    aliases: Mapping[str, Iterable[str]] = field(default_factory=dict)
    mode: Mode = "upsert"
    unknown: str = "ignore"
    allowed: Allowed | None = None
    check: Callable[[M], str | None] | None = None
    values: Callable[[M], dict[str, Any]] | None = None
    secret: Iterable[str] = ()
    threshold: Threshold | None = field(default_factory=Threshold)
    reading: Reading = field(default_factory=Reading)
    limits: Limits = field(default_factory=Limits)
    chunk: int = 1000
    shown: int = 100

    def __post_init__(self) -> None:
        if self.mode not in get_args(Mode):
            raise ConfigurationError(f"import {self.name!r}: mode {self.mode!r} is none of {get_args(Mode)}")
        if self.unknown not in ("ignore", "refuse"):
            raise ConfigurationError(
                f'import {self.name!r}: unknown={self.unknown!r} is not "ignore" or "refuse"'
            )
        if not 1 <= self.chunk <= 10_000:
            raise ConfigurationError(f"import {self.name!r}: chunk={self.chunk} is not 1 to 10,000 rows")
        _ = self.columns, self.checker
        if isinstance(self.target, SqlTarget) and self.values is None:
            self.target.check(self.checker.fields)

    @cached_property
    def columns(self) -> Columns:
        """Finds the field of a column."""
        return Columns(
            self.checker.fields,
            required=self.checker.required,
            aliases=self.aliases,
            unknown=self.unknown,
        )

    @cached_property
    def checker(self) -> Checker[M]:
        """Tells good rows from bad ones."""
        key = (self.key,) if isinstance(self.key, str) else tuple(self.key)
        return Checker(self.row, key, secret=self.secret, check=self.check, values=self.values)
