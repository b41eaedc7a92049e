"""An import from its file to its result: planned, weighed, and then written chunk by chunk."""

from __future__ import annotations

import hashlib
import json
import tempfile
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from errands import Database, Run, current_run
from errands.core import clock
from errands.kits.tables import permission
from errands.kits.tables import refused as refused_file
from errands.kits.tables.chunk import Counts, Outcome, work
from errands.kits.tables.declared import Import
from errands.kits.tables.errors import SourceChanged
from errands.kits.tables.files import Files, fetch, needed, sha256_of
from errands.kits.tables.journal import Journal, Record
from errands.kits.tables.planning import Plan
from errands.kits.tables.reading import given_rows, open_file
from errands.kits.tables.result import ImportResult, Refusal, Status
from errands.kits.tables.threads import aside

Source = str | Path | bytes | Sequence[Mapping[str, Any]]
_LINK_SECONDS = 24 * 3600.0


class Imports:
    """Does imports. A task asks for it by type: `*, imports: tables.Imports, run: Run`.

    Args:
        database: the one that the targets' tables are in, with Errands' own.
        files: where files come from and files of refused rows go to.
    """

    def __init__(self, database: Database, files: Files | None = None) -> None:
        self._database = database
        self._files = files
        self.journal = Journal(database)

    async def run(
        self,
        declared: Import[Any],
        source: Source,
        *,
        by: Any = None,
        run: Run | None = None,
        dry_run: bool = False,
        force: bool = False,
        part: str = "",
    ) -> ImportResult:
        """Import a file.

        First the whole file is read and compared with the table, which is not changed. If the threshold lets
        it through, it is written in chunks, each in a transaction that also notes how far the import came:
        whoever is cut off goes on there, and no row is written twice. A run that comes again after its import
        was done gets the same result.

        Args:
            declared: the import.
            source: the key of a stored file, the path or the bytes of one, or rows.
            by: who asks; handed to `allowed`, and noted.
            run: whose attempt this is; by default the current one.
            dry_run: nothing is written. Each chunk is tried in a transaction that is rolled back, so that
                what the database refuses is found as well.
            force: past the threshold: a person has looked at it.
            part: tells several imports of one run apart.

        Raises:
            NotAllowed: `by` may not.
            FileRefused: the file as a whole can't be imported.
            SourceChanged: it is not the file that an attempt before began with.
            OvertakenImport: another attempt is at it.
        """
        run = run or current_run() or Run(str(uuid.uuid4()), declared.name)
        await permission.check(declared.allowed, by, f"import {declared.name!r}")
        import_id = f"{run.id}:{part}" if part else run.id
        record = await self.journal.get(import_id)
        if record is not None and record.result is not None:
            return await self._linked(ImportResult.from_json(record.result), by)
        with tempfile.TemporaryDirectory(prefix="errands-import-") as folder:
            plan = Plan(declared, Path(folder))
            try:
                job = _Job(self, declared, plan, Path(folder), run, import_id, by, force)
                result = await job.do(source, record, dry_run)
            finally:
                await aside(plan.close)
        return await self._linked(result, by)

    async def _linked(self, result: ImportResult, by: Any) -> ImportResult:
        if result.refused_file is None or self._files is None:
            return result
        link = await self._files.link(
            result.refused_file,
            filename=f"{result.name}-refused.csv",
            expires_in=_LINK_SECONDS,
            owner=None if by is None else str(by),
        )
        return replace(result, refused_link=link)

    @asynccontextmanager
    async def _session(self, *, write: bool) -> AsyncIterator[AsyncSession]:
        """One that nothing is committed of."""
        engine = self._database.async_engine if write else None
        if engine is not None:
            async with AsyncSession(engine, expire_on_commit=False) as session:
                yield session
                await session.rollback()
        else:
            async with (
                self._database.async_reading() as connection,
                AsyncSession(connection, expire_on_commit=False) as session,
            ):
                yield session


class _Job:
    """One attempt at one import."""

    def __init__(
        self, imports: Imports, declared: Import[Any], plan: Plan, folder: Path, run: Run, import_id: str,
        by: Any, force: bool,
    ) -> None:  # fmt: skip
        self._imports, self._declared, self._plan, self._folder = imports, declared, plan, folder
        self._run, self._id, self._by, self._force = run, import_id, by, force

    async def do(self, source: Source, record: Record | None, dry_run: bool) -> ImportResult:
        sha256 = await self._open(source)
        if record is not None and record.sha256 != sha256:
            raise SourceChanged(
                f"import {self._declared.name!r} was cut off after row {record.position}, and the file is "
                "another one now: send it as a new import"
            )
        counts, before = await self._read(compare=record is None, trial=dry_run)
        threshold = None if self._force else self._declared.threshold
        if record is None:
            reason = threshold.exceeded(counts, before) if threshold is not None else None
            if dry_run:
                return await self._result("dry_run", counts, reason)
            if reason is not None:
                result = await self._result("stopped", counts, f"{reason}. Nothing was written")
                await self._imports.journal.begin(self._record(source, sha256, result))
                return result
            record = self._record(source, sha256)
            await self._imports.journal.begin(record)
            await aside(self._plan.spool.forget_met)
        written, reason = await self._write(record)
        for number, reasons in (await self._imports.journal.refused(self._id)).items():
            await aside(self._plan.refuse, number, reasons)
        written.rows = self._plan.rows
        written.refused, written.duplicates = self._plan.spool.refused, self._plan.spool.duplicates
        result = await self._result("stopped" if reason else "done", written, reason)
        await self._imports.journal.finish(self._id, result.status, result.as_json())
        return result

    def _record(self, source: Source, sha256: str, result: ImportResult | None = None) -> Record:
        return Record(
            id=self._id, name=self._declared.name, run_id=self._run.id,
            asked_by=None if self._by is None else str(self._by),
            source=source if isinstance(source, str) else None, sha256=sha256, position=0, counts=Counts(),
            state="applying" if result is None else result.status,
            result=None if result is None else result.as_json(), created_at=clock.now(),
        )  # fmt: skip

    async def _open(self, source: Source) -> str:
        """Begin to read; answers the SHA-256 of what is read."""
        declared, path = self._declared, self._folder / "file"
        if isinstance(source, str):
            files = needed(self._imports._files, f"import {declared.name!r} of a stored file")
            sha256 = await fetch(files, source, path, declared.limits.bytes)
        elif isinstance(source, bytes):
            await aside(path.write_bytes, source)
            sha256 = hashlib.sha256(source).hexdigest()
        elif isinstance(source, Path):
            path, sha256 = source, await aside(sha256_of, source)
        else:
            opened = given_rows(source, declared.columns, declared.limits, declared.reading)
            self._plan.open(*opened)
            text = await aside(json.dumps, source, sort_keys=True, default=str)
            return hashlib.sha256(text.encode()).hexdigest()
        self._plan.open(*await aside(open_file, path, declared.columns, declared.limits, declared.reading))
        return sha256

    async def _read(self, *, compare: bool, trial: bool) -> tuple[Counts, int]:
        """The first pass: what the file would do, and how many rows the table has."""
        counts, before = Counts(), 0
        if compare:
            async with self._imports._session(write=False) as session:
                before = await self._declared.target.count(session)
        while (rows := await aside(self._plan.next_rows)) is not None:
            if compare:
                async with self._imports._session(write=trial) as session:
                    outcome = await self._work(session, rows, write=trial)
                counts.add(outcome.counts)
                for row, reason in outcome.refused:
                    await aside(self._plan.refuse, row.number, [reason])
            self._run.progress(self._plan.rows, note="checking rows")
        counts.rows = self._plan.rows
        counts.refused, counts.duplicates = self._plan.spool.refused, self._plan.spool.duplicates
        return counts, before

    async def _write(self, record: Record) -> tuple[Counts, str | None]:
        """The second pass. Answers what was written, and why it was stopped in the middle, if it was."""
        counts, position, total = record.counts, record.position, self._plan.spool.good
        while (laid := await aside(self._plan.rows_after, position)) is not None:
            self._run.check(within=1.0)
            after = replace(counts)
            async with self._imports._database.async_session() as session:
                outcome = await self._work(session, laid.good)
                late = [*laid.refused, *((row.number, [reason]) for row, reason in outcome.refused)]
                after.add(outcome.counts)
                after.refused += len(laid.refused)
                reason = self._too_many(after.refused)
                if reason is not None:
                    await session.rollback()
                    for number, reasons in late:
                        await aside(self._plan.refuse, number, reasons)
                    return counts, f"{reason}. {counts.taken:,} rows before them were written"
                await self._imports.journal.advance(session, self._id, position, laid.last, after, late)
            counts, position = after, laid.last
            done = counts.taken + counts.refused
            self._run.progress(min(done, total), total, "writing rows")
        return counts, None

    def _too_many(self, late: int) -> str | None:
        threshold = self._declared.threshold
        if late == 0 or self._force or threshold is None:
            return None
        return threshold.too_many_refused(self._plan.spool.refused + late, self._plan.rows)

    async def _work(self, session: AsyncSession, rows: list[Any], *, write: bool = True) -> Outcome:
        declared = self._declared
        return await work(
            session, declared.target, rows, mode=declared.mode, secret=declared.checker.secret, write=write
        )

    async def _result(self, status: Status, counts: Counts, reason: str | None) -> ImportResult:
        refusals = await aside(self._shown)
        return ImportResult(
            name=self._declared.name, status=status, counts=counts, reason=reason, refusals=refusals,
            file=self._plan.info.as_json(), refused_file=await self._keep_refused() if refusals else None,
        )  # fmt: skip

    def _shown(self) -> tuple[Refusal, ...]:
        return tuple(
            Refusal(number, tuple(reasons))
            for number, _, reasons in self._plan.spool.refusals(self._declared.shown)
        )

    async def _keep_refused(self) -> str | None:
        files = self._imports._files
        if files is None:
            return None
        path = self._folder / "refused.csv"
        found = set(self._plan.info.columns.values())
        fields = [name for name in self._declared.checker.fields if name in found]
        await aside(refused_file.write, path, fields, self._plan.spool.refusals())
        key = files.key_for("imports", f"{self._id} refused", ".csv")
        kept = await files.put(path, content_type="text/csv; charset=utf-8", key=key)
        return str(kept.key)
