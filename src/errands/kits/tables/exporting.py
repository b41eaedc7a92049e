"""An export: a query's rows as a file, with a link to it; the file of before where nothing has changed."""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Select, delete, func, select
from sqlalchemy.dialects import postgresql, sqlite

from errands import ConfigurationError, Database, Run, current_run
from errands.core import clock
from errands.kits.tables import permission
from errands.kits.tables.files import Files, needed
from errands.kits.tables.permission import Allowed
from errands.kits.tables.tables import exports
from errands.kits.tables.threads import aside
from errands.kits.tables.writers import CONTENT_TYPES, ExportFormat, Style, text, writer

_CHUNK = 1000
_SUFFIXES = {"csv": ".csv", "xlsx": ".xlsx", "jsonl": ".jsonl"}


@dataclass(frozen=True, slots=True)
class Column:
    """A column of an export.

    Attributes:
        name: the query's column, and the key in JSON lines.
        title: the header in CSV and XLSX; by default the name.
        convert: makes what is written of a value.
    """

    name: str
    title: str | None = None
    convert: Callable[[Any], Any] | None = None


@dataclass(frozen=True)
class Export:
    """An export: `STUDENTS = Export("students", students_query, updated="updated_at")`.

    Attributes:
        name: in results, records and file names.
        query: gets the filters and returns a `select(…)` of columns, ordered as the file is to be.
        columns: what is written of its rows; by default all its columns.
        updated: the query's column whose maximum, with the number of rows, tells whether anything changed;
            then the file of before is given again. None: each export is made anew, unless `run` is told a
            version. A row that is replaced by an older one goes unseen.
        allowed: called with who asks; False, or a raised `NotAllowed`, refuses it. Plain or `async def`.
        style: of CSV files.
        link_for: seconds that a link holds.
        reuse_for: seconds that a file may be given again.
    """

    name: str
    query: Callable[[Mapping[str, Any]], Select[Any]]
    columns: Sequence[Column | str] | None = None
    updated: str | None = None
    allowed: Allowed | None = None
    style: Style = field(default_factory=Style)
    link_for: float = 24 * 3600.0
    reuse_for: float = 7 * 24 * 3600.0

    def columns_of(self, query: Select[Any]) -> list[Column]:
        """The columns of the file.

        Raises:
            ConfigurationError: one that the query has not.
        """
        names = list(query.selected_columns.keys())
        found = [
            Column(c) if isinstance(c, str) else c for c in (names if self.columns is None else self.columns)
        ]
        for name in (*(column.name for column in found), *filter(None, [self.updated])):
            if name not in names:
                raise ConfigurationError(
                    f"export {self.name!r}: the query has no column {name!r}; it has {', '.join(names)}"
                )
        return found


@dataclass(frozen=True, slots=True)
class ExportResult:
    """A file that was exported. `reused`: it was made before, and nothing has changed since. `size` is in
    bytes; `link` downloads it until `expires_at`."""

    name: str
    file: str
    link: str
    rows: int
    size: int
    format: str
    reused: bool
    made_at: datetime
    expires_at: datetime

    def as_json(self) -> dict[str, Any]:
        """What a task returns."""
        return {
            "export": self.name, "file": self.file, "link": self.link, "rows": self.rows, "size": self.size,
            "format": self.format, "reused": self.reused, "made_at": self.made_at.isoformat(),
            "expires_at": self.expires_at.isoformat(),
        }  # fmt: skip


class Exports:
    """Makes exports. A task asks for it by type: `*, exports: tables.Exports, run: Run`.

    Args:
        database: what is queried, with Errands' own tables.
        files: where files go.
    """

    def __init__(self, database: Database, files: Files | None = None) -> None:
        self._database = database
        self._files = files

    async def run(
        self,
        declared: Export,
        filters: Mapping[str, Any] | None = None,
        *,
        format: ExportFormat = "csv",
        by: Any = None,
        version: str | None = None,
        run: Run | None = None,
        part: str = "",
    ) -> ExportResult:
        """Make the file, or find the one that was made of the same data.

        Rows come from a cursor of the server, a thousand at a time, and go to a local file; only the whole
        file is stored. Who is cut off begins again and leaves nothing behind; who is revoked ends between two
        thousands.

        Args:
            declared: the export.
            filters: what its query is made with; plain JSON.
            format: "csv", "xlsx" or "jsonl".
            by: who asks; handed to `allowed`, and the owner of the link.
            version: of the data, where the caller knows it: the same version is the same file.
            run: whose attempt this is; by default the current one.
            part: tells several exports of one run apart.

        Raises:
            NotAllowed: `by` may not.
            ExportRefused: the rows do not fit the format.
        """
        files = needed(self._files, f"export {declared.name!r}")
        run = run or current_run() or Run(str(uuid.uuid4()), declared.name)
        await permission.check(declared.allowed, by, f"export {declared.name!r}")
        if format not in CONTENT_TYPES:
            raise ConfigurationError(f"export {declared.name!r}: there is no format {format!r}")
        filters = dict(filters or {})
        query = declared.query(filters)
        columns = declared.columns_of(query)
        # Asked for before the rows: a change in between makes the next export a new one, never a stale one.
        state, total = await self._state(declared, query, version)
        fingerprint = None
        if state is not None:
            told: list[Any] = [declared.name, format, filters, [[c.name, c.title] for c in columns], state]
            told += [declared.style.bom, declared.style.delimiter, *self._sql(query)]
            fingerprint = hashlib.sha256(json.dumps(told, sort_keys=True, default=text).encode()).hexdigest()
            found = await self._made_before(declared, fingerprint, files)
            if found is not None:
                return await self._linked(declared, files, by, {**found, "reused": True})
        unique = fingerprint or f"{run.id} {part} {format}"
        made = await self._make(declared, query, columns, format, files, run, unique, total)
        if fingerprint is not None:
            await self._remember(fingerprint, declared, run, made)
        return await self._linked(declared, files, by, made)

    async def prune(self, before: datetime) -> list[str]:
        """Forget the files that were made before that moment; answers their keys, for who deletes them."""
        async with self._database.async_writing() as connection:
            found = await connection.execute(
                delete(exports).where(exports.c.created_at < before).returning(exports.c.file)
            )
            return list(found.scalars())

    async def _make(
        self, declared: Export, query: Select[Any], columns: list[Column], format: ExportFormat, files: Files,
        run: Run, unique: str, total: int | None,
    ) -> dict[str, Any]:  # fmt: skip
        made_at, rows = clock.now(), 0
        names = [column.name for column in columns]
        titles = [column.title or column.name for column in columns]
        pick = _picker(list(query.selected_columns.keys()), columns)
        with tempfile.TemporaryDirectory(prefix="errands-export-") as folder:
            path = Path(folder) / f"rows.{format}"
            out = await aside(writer, path, format, names, titles, declared.style)
            try:
                async with self._database.async_reading() as connection:
                    result = await connection.stream(query.execution_options(yield_per=_CHUNK))
                    async for some in result.partitions(_CHUNK):
                        await aside(out.write, map(pick, some))
                        rows += len(some)
                        run.check(within=1.0)
                        run.progress(rows, None if total is None else max(rows, total), "writing rows")
            finally:
                await aside(out.close)
            stored = await files.put(
                path,
                content_type=CONTENT_TYPES[format],
                key=files.key_for("exports", unique, _SUFFIXES[format]),
            )
            return {
                "file": str(stored.key), "rows": rows, "size": path.stat().st_size, "format": format,
                "reused": False, "made_at": made_at,
            }  # fmt: skip

    async def _state(
        self, declared: Export, query: Select[Any], version: str | None
    ) -> tuple[list[str] | None, int | None]:
        """What the data is now, and how many rows, as far as anybody knows."""
        if version is not None:
            return ["version", version], None
        if declared.updated is None:
            return None, None
        rows = query.order_by(None).subquery()
        newest = select(func.count(), func.max(rows.c[declared.updated])).select_from(rows)
        async with self._database.async_reading() as connection:
            count, latest = (await connection.execute(newest)).one()
        return ["newest", str(count), text(latest)], count

    async def _made_before(self, declared: Export, fingerprint: str, files: Files) -> dict[str, Any] | None:
        since = clock.now() - timedelta(seconds=declared.reuse_for)
        wanted = exports.c.fingerprint == fingerprint
        async with self._database.async_reading() as connection:
            found = (await connection.execute(select(exports).where(wanted))).mappings().first()
        if found is None or found["created_at"] < since or not await files.exists(found["file"]):
            return None
        return {
            **{name: found[name] for name in ("file", "rows", "size", "format")},
            "made_at": found["created_at"],
        }

    async def _remember(self, fingerprint: str, declared: Export, run: Run, made: Mapping[str, Any]) -> None:
        kept = {name: made[name] for name in ("file", "rows", "size", "format")}
        values = {"name": declared.name, "run_id": run.id, "created_at": made["made_at"], **kept}
        insert = postgresql.insert if self._database.dialect == "postgresql" else sqlite.insert
        statement = insert(exports).values(fingerprint=fingerprint, **values)
        async with self._database.async_writing() as connection:
            await connection.execute(
                statement.on_conflict_do_update(index_elements=["fingerprint"], set_=values)
            )

    async def _linked(self, declared: Export, files: Files, by: Any, made: Mapping[str, Any]) -> ExportResult:
        now = clock.now()
        link = await files.link(
            made["file"],
            filename=f"{declared.name}-{made['made_at']:%Y-%m-%d}.{made['format']}",
            expires_in=declared.link_for,
            owner=None if by is None else str(by),
        )
        expires_at = now + timedelta(seconds=declared.link_for)
        return ExportResult(name=declared.name, link=link, expires_at=expires_at, **made)

    def _sql(self, query: Select[Any]) -> tuple[str, Any]:
        """The query and its values: what it depends on besides the filters, such as whose school it is."""
        dialect = postgresql.dialect() if self._database.dialect == "postgresql" else sqlite.dialect()  # type: ignore[no-untyped-call]
        compiled = query.compile(dialect=dialect)
        return str(compiled), compiled.params


def _picker(names: list[str], columns: list[Column]) -> Callable[[Sequence[Any]], Sequence[Any]]:
    """From a row of the query to a row of the file."""
    if [column.name for column in columns] == names and not any(column.convert for column in columns):
        return lambda row: row
    places = [(names.index(column.name), column.convert) for column in columns]
    return lambda row: [row[at] if convert is None else convert(row[at]) for at, convert in places]
