"""Imports into a table of each kind of database: what is counted, refused, stopped, and gone on with."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, SecretStr
from sqlalchemy import (
    Column,
    Date,
    ForeignKey,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    func,
    insert,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from errands import ConfigurationError, Database, Run
from errands.core import clock
from errands.kits.tables import (
    FakeFiles,
    FileRefused,
    Import,
    ImportResult,
    Imports,
    Limits,
    NotAllowed,
    OvertakenImport,
    Reading,
    SourceChanged,
    SqlTarget,
    Update,
)
from errands.kits.tables.checking import Key
from errands.kits.tables.tables import imports as records

metadata = MetaData()
companies = Table("companies", metadata, Column("id", Integer, primary_key=True))
cadets = Table(
    "cadets",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("cadet_id", Text, unique=True, nullable=False),
    Column("name", Text, nullable=False),
    Column("email", Text, unique=True),
    Column("grade", Numeric(6, 2)),
    Column("born", Date),
    Column("company_id", ForeignKey("companies.id")),
    Column("pin", Text),
)


class CadetRow(BaseModel):
    cadet_id: str = Field(pattern=r"^C\d+$")
    name: str = Field(min_length=1)
    email: str | None = None
    grade: float | None = Field(None, ge=0, le=100)
    born: date | None = None
    company_id: int | None = None
    pin: SecretStr | None = None


class CadetChange(BaseModel):
    cadet_id: str
    name: str | None = Field(None, min_length=1)
    grade: float | None = Field(None, ge=0, le=100)


class Rig:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.files = FakeFiles()
        self.imports = Imports(database, self.files)

    def declared(self, **said: Any) -> Import[Any]:
        target = SqlTarget(cadets, "cadet_id")
        return Import("cadets", **{"row": CadetRow, "key": "cadet_id", "target": target, **said})

    async def __call__(self, source: Any, *, run: Run | None = None, **said: Any) -> ImportResult:
        options = {name: said.pop(name) for name in ("by", "dry_run", "force") if name in said}
        return await self.imports.run(self.declared(**said), source, run=run, **options)

    async def rows(self) -> dict[str, Any]:
        async with self.database.async_reading() as connection:
            found = (await connection.execute(select(cadets))).mappings().all()
        return {row["cadet_id"]: dict(row) for row in found}

    async def count(self) -> int:
        async with self.database.async_reading() as connection:
            return (await connection.scalar(select(func.count()).select_from(cadets))) or 0

    def refused(self, result: ImportResult) -> list[dict[str, str]]:
        assert result.refused_file is not None
        text = self.files.files[result.refused_file].content.decode("utf-8-sig")
        return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[Rig]:
    metadata.create_all(database.engine)
    async with database.async_writing() as connection:
        await connection.execute(insert(companies), [{"id": 1}, {"id": 2}])
    yield Rig(database)
    await database.adispose()


def counts(result: ImportResult) -> dict[str, int]:
    return {name: value for name, value in result.counts.as_json().items() if value}


def lines(n: int) -> bytes:
    return ("cadet_id,name\n" + "".join(f"C{i},Name {i}\n" for i in range(n))).encode()


# -- what becomes of rows


async def test_rows_are_created_then_unchanged_then_updated(rig: Rig) -> None:
    text = "No.;NAME;Grade;Born\nC1;Ann;91.5;2005-02-03\nC2;Bob;;\n"
    aliases = {"cadet_id": ["No."]}
    assert counts(await rig(text.encode(), aliases=aliases)) == {"rows": 2, "created": 2}
    assert counts(await rig(text.encode(), aliases=aliases)) == {"rows": 2, "unchanged": 2}
    result = await rig(text.replace("91.5", "92").encode(), aliases=aliases)
    assert counts(result) == {"rows": 2, "updated": 1, "unchanged": 1}
    assert (result.status, result.counts.taken, result.refusals, result.refused_file) == ("done", 2, (), None)
    ann = (await rig.rows())["C1"]
    assert (ann["name"], float(ann["grade"]), ann["born"]) == ("Ann", 92.0, date(2005, 2, 3))


async def test_37_bad_rows_are_refused_each_with_its_reasons(rig: Rig) -> None:
    bad = {n for n in range(1, 1000) if n % 27 == 0}
    assert len(bad) == 37
    text = "cadet_id,name,grade\n" + "".join(
        f"{'x' if n in bad else 'C'}{n},Name {n},{200 if n in bad else n % 100}\n" for n in range(1, 1000)
    )
    result = await rig(text.encode(), by=7)
    assert counts(result) == {"rows": 999, "created": 962, "refused": 37}
    assert [one.row for one in result.refusals] == sorted(n + 1 for n in bad)
    assert {tuple(reason.field for reason in one.reasons) for one in result.refusals} == {
        ("cadet_id", "grade")
    }
    assert await rig.count() == 962
    refused = rig.refused(result)
    assert [row["cadet_id"] for row in refused] == [f"x{n}" for n in sorted(bad)]
    assert list(refused[0]) == ["cadet_id", "name", "grade", "refused because"]
    assert refused[0]["refused because"].startswith("row 28: cadet_id: String should match pattern")
    assert json.loads(json.dumps(result.as_json()))["refusals"][0]["reasons"][1] == {
        "field": "grade", "value": "200", "message": "Input should be less than or equal to 100",
    }  # fmt: skip


async def test_the_file_of_refused_rows_mended_is_an_import(rig: Rig) -> None:
    result = await rig(b"cadet_id,name\nC1,Ann\nx2,=cmd\nC3,\n", unknown="refuse")
    assert [row["name"] for row in rig.refused(result)] == ["'=cmd", ""]
    assert result.refused_file is not None
    mended = rig.files.files[result.refused_file].content.replace(b"x2", b"C2").replace(b"C3,,", b"C3,Cy,")
    assert counts(await rig(mended, unknown="refuse")) == {"rows": 2, "created": 2}
    assert (await rig.rows())["C2"]["name"] == "=cmd"


async def test_duplicates_within_the_file(rig: Rig) -> None:
    result = await rig(b"cadet_id,name\nC1,Ann\nC2,Bob\nC1,Anna\nC1,Ann\n", chunk=1)
    assert counts(result) == {"rows": 4, "created": 2, "duplicates": 2}
    assert [(one.row, one.reasons[0].message) for one in result.refusals] == [
        (4, "row 2 has the same key"),
        (5, "row 2 has the same key"),
    ]
    assert (await rig.rows())["C1"]["name"] == "Ann"


async def test_rows_as_arguments(rig: Rig) -> None:
    rows: list[Any] = [{"Cadet ID": "C1", "name": "Ann", "grade": 5}, {"cadet_id": "C2"}, "C3"]
    result = await rig(rows)
    assert counts(result) == {"rows": 3, "created": 1, "refused": 2}
    assert [one.reasons[0].field for one in result.refusals] == ["name", None]
    assert result.file["format"] == "rows"


async def test_bulk_updates_change_what_they_name_and_refuse_who_is_not_there(rig: Rig) -> None:
    await rig(b"cadet_id,name,grade\nC1,Ann,50\nC2,Bob,60\n")
    changes = [
        {"cadet_id": "C1", "fields": {"grade": 70}},
        {"cadet_id": "C2", "fields": {"grade": None}},
        {"cadet_id": "C9", "fields": {"grade": 70}},
        {"cadet_id": "C1x", "fields": {"rank": "major"}},
        {"cadet_id": "C2x", "fields": {"grade": 700}},
    ]
    said: dict[str, Any] = {
        "row": CadetChange,
        "mode": "update",
        "unknown": "refuse",
        "reading": Reading(flatten="fields"),
    }
    result = await rig(changes, **said)
    assert counts(result) == {"rows": 5, "updated": 2, "refused": 3}
    assert [(one.row, one.reasons[0].message) for one in result.refusals] == [
        (3, "there is no row C9"),
        (4, "there is no such field"),
        (5, "Input should be less than or equal to 100"),
    ]
    rows = await rig.rows()
    assert [(row["name"], row["grade"]) for row in rows.values()] == [("Ann", 70), ("Bob", None)]


async def test_creating_alone_refuses_who_is_there(rig: Rig) -> None:
    await rig(b"cadet_id,name\nC1,Ann\n")
    result = await rig(b"cadet_id,name\nC1,Eve\nC2,Bob\n", mode="create")
    assert counts(result) == {"rows": 2, "created": 1, "refused": 1}
    assert result.refusals[0].reasons[0].message == "there is a row C1 already"
    assert (await rig.rows())["C1"]["name"] == "Ann"


@pytest.mark.parametrize("dry_run", [True, False])
async def test_what_only_the_database_refuses_is_one_row_and_not_its_chunk(rig: Rig, dry_run: bool) -> None:
    await rig(b"cadet_id,name,email\nC0,Zoe,z@x\n")
    text = "cadet_id,name,email,company_id\n" + "".join(f"C{n},N,{n}@x,1\n" for n in range(1, 101))
    text = (
        text.replace("\nC40,N,40@x,1", "\nC40,N,40@x,99").replace(",77@x", ",z@x").replace("C90,N", "C90,N\0")
    )
    text = text.replace("C55,N,55@x,1", "C55,N,55@x,99999999999999999999999999")
    result = await rig(text.encode(), dry_run=dry_run)
    assert counts(result) == {"rows": 100, "created": 96, "refused": 4}
    assert [one.row for one in result.refusals] == [41, 56, 78, 91]
    told = [one.reasons[0].message for one in result.refusals]
    assert all(text.startswith("the database refuses it: ") for text in told[:3])
    assert "NUL" in told[3]
    assert await rig.count() == (1 if dry_run else 97)
    assert [row["cadet_id"] for row in rig.refused(result)] == ["C40", "C55", "C77", "C90"]


class Company(BaseModel):
    id: int


@pytest.mark.parametrize("dry_run", [True, False])
async def test_a_key_that_the_database_cannot_even_look_for(rig: Rig, dry_run: bool) -> None:
    rows = [{"id": 1}, {"id": 10**30}, {"id": 3}]
    result = await rig(rows, row=Company, key="id", target=SqlTarget(companies, "id"), dry_run=dry_run)
    assert counts(result) == {"rows": 3, "created": 1, "unchanged": 1, "refused": 1}
    assert result.refusals[0].row == 2


async def test_secrets_are_in_no_result_and_in_no_file(rig: Rig) -> None:
    result = await rig(b"cadet_id,name,pin\nC1,Ann,hunter2\nx,Bob,hunter3\nC1,Ann,hunter4\n")
    assert (await rig.rows())["C1"]["pin"] == "hunter2"
    kept = [file.content for file in rig.files.files.values()]
    assert b"hunter" not in b"".join(kept)
    assert "hunter" not in json.dumps(result.as_json())
    assert [row["pin"] for row in rig.refused(result)] == ["***", "***"]


async def test_stored_files_paths_and_formats(rig: Rig, tmp_path: Path) -> None:
    stored = await rig.files.put(b'{"cadet_id": "C1", "name": "Ann"}\n', content_type="text/plain")
    assert counts(await rig(stored.key)) == {"rows": 1, "created": 1}
    (tmp_path / "cadets.json").write_text('[{"cadet_id": "C2", "name": "Bob"}]')
    assert counts(await rig(tmp_path / "cadets.json")) == {"rows": 1, "created": 1}
    with pytest.raises(ConfigurationError, match="needs a place for files"):
        await Imports(rig.database).run(rig.declared(), stored.key)
    with pytest.raises(FileRefused, match="more than 5 bytes"):
        await rig(stored.key, limits=Limits(bytes=5))
    with pytest.raises(FileRefused, match="there is no stored file files/none"):
        await rig("files/none")


async def test_too_many_rows(rig: Rig) -> None:
    with pytest.raises(FileRefused, match="more than 10 rows: divide it"):
        await rig(lines(11), limits=Limits(rows=10))
    assert await rig.count() == 0


# -- before it is written


async def test_a_dry_run_counts_the_same_and_writes_nothing(rig: Rig) -> None:
    await rig(lines(50))
    text = lines(60).replace(b"C7,Name 7", b"C7,Other").replace(b"C8,", b"x8,")
    tried = await rig(text, dry_run=True, chunk=7)
    assert (tried.status, await rig.count(), (await rig.rows())["C7"]["name"]) == ("dry_run", 50, "Name 7")
    done = await rig(text, chunk=7)
    assert (
        counts(tried)
        == counts(done)
        == {"rows": 60, "created": 10, "updated": 1, "unchanged": 48, "refused": 1}
    )
    assert tried.refusals == done.refusals


async def test_a_wrong_file_is_stopped_before_anything_is_written(rig: Rig) -> None:
    await rig(lines(100))
    wrong = lines(100).replace(b"Name", b"Nome") + b"C100,New\n"
    result = await rig(wrong)
    assert (result.status, counts(result)) == ("stopped", {"rows": 101, "created": 1, "updated": 100})
    assert result.reason == (
        "100 of 100 existing rows would change (100%); more than 20% are not let through. Nothing was written"
    )
    assert (await rig.rows())["C1"]["name"] == "Name 1"
    assert await rig.count() == 100
    assert "would change" in str((await rig(wrong, dry_run=True)).reason)
    assert (await rig(wrong, force=True)).status == "done"
    assert (await rig.rows())["C1"]["name"] == "Nome 1"


async def test_too_many_refused_rows_stop_it(rig: Rig) -> None:
    result = await rig(lines(100).replace(b"C1", b"x1").replace(b"C2", b"x2"))
    assert (result.status, result.counts.refused, await rig.count()) == ("stopped", 22, 0)
    assert len(rig.refused(result)) == 22


async def test_rows_that_the_database_refuses_stop_it_as_well(rig: Rig) -> None:
    bad = [n for n in range(20, 60) if n % 2]
    rows = [{"cadet_id": f"C{n}", "name": "N", "company_id": 99 if n in bad else 1} for n in range(60)]
    result = await rig(rows, chunk=10)
    assert result.status == "stopped"
    assert result.reason == (
        "15 of 60 rows are refused (25%); more than 20% are not let through. 30 rows before them were written"
    )
    assert await rig.count() == result.counts.created == 30
    assert (result.counts.refused, len(rig.refused(result))) == (15, 15)


async def test_rows_that_are_refused_by_what_is_there_count_once(rig: Rig) -> None:
    """15 of 100 before it is written, and the same 15 when it is: below the threshold of 20 in 100."""
    await rig(lines(85))
    result = await rig(lines(100), mode="update")
    assert (result.status, counts(result)) == ("done", {"rows": 100, "unchanged": 85, "refused": 15})


async def test_who_may_not_gets_nothing(rig: Rig) -> None:
    async def admins(user: int) -> bool:
        return user == 1

    for allowed in (admins, lambda user: user == 1):
        with pytest.raises(NotAllowed, match="2 may not do the import 'cadets'"):
            await rig(lines(1), by=2, allowed=allowed)
        assert (await rig(lines(1), by=1, allowed=allowed)).status == "done"


# -- cut off and gone on


class Cut(Exception):
    pass


class CutTarget(SqlTarget):
    """Ends its process, as it were, when a row comes that it was told of."""

    at: str | None = None

    async def apply(
        self, session: AsyncSession, creates: Sequence[Mapping[str, Any]], updates: Sequence[Update]
    ) -> None:
        await super().apply(session, creates, updates)
        if any(row["cadet_id"] == self.at for row in creates):
            raise Cut


async def test_an_import_that_was_cut_off_goes_on_after_its_last_chunk(rig: Rig) -> None:
    target = CutTarget(cadets, "cadet_id")
    target.at = "C25"
    text = lines(50).replace(b"C3,", b"x3,") + b"C1,Again\n"
    with pytest.raises(Cut):
        await rig(text, run=Run("r1", "t"), target=target, chunk=10)
    # The row that is refused is no part of a chunk of good ones: 10, 10, and then the third is rolled back.
    assert await rig.count() == 20
    record = await rig.imports.journal.get("r1")
    assert record is not None
    assert (record.state, record.counts.created) == ("applying", 20)
    target.at = None
    result = await rig(text, run=Run("r1", "t", attempt=2), target=target, chunk=10)
    assert counts(result) == {"rows": 51, "created": 49, "refused": 1, "duplicates": 1}
    assert await rig.count() == 49


async def test_rows_refused_while_writing_are_remembered_over_attempts(rig: Rig) -> None:
    target = CutTarget(cadets, "cadet_id")
    target.at = "C25"
    text = b"cadet_id,name,company_id\n" + b"".join(
        b"C%d,N,%d\n" % (n, 99 if n == 5 else 1) for n in range(50)
    )
    with pytest.raises(Cut):
        await rig(text, run=Run("r2", "t"), target=target, chunk=10)
    target.at = None
    result = await rig(text, run=Run("r2", "t", attempt=2), target=target, chunk=10)
    assert counts(result) == {"rows": 50, "created": 49, "refused": 1}
    assert [one.row for one in result.refusals] == [7]
    assert [row["cadet_id"] for row in rig.refused(result)] == ["C5"]


async def test_a_run_that_comes_again_gets_the_same_result(rig: Rig) -> None:
    first = await rig(lines(10) + b"x,y\n", run=Run("r3", "t"))
    again = await rig(lines(10) + b"x,y\n", run=Run("r3", "t", attempt=2))
    assert again == first
    assert first.counts.created == 10
    other = await rig.imports.run(rig.declared(), lines(10), run=Run("r3", "t"), part="second")
    assert counts(other) == {"rows": 10, "unchanged": 10}


async def test_another_file_is_not_gone_on_with(rig: Rig) -> None:
    target = CutTarget(cadets, "cadet_id")
    target.at = "C5"
    with pytest.raises(Cut):
        await rig(lines(10), run=Run("r4", "t"), target=target, chunk=2)
    with pytest.raises(SourceChanged, match="cut off after row 5, and the file is another one now"):
        await rig(lines(11), run=Run("r4", "t", attempt=2), chunk=2)


async def test_an_import_that_was_stopped_stays_so_however_often_it_is_tried(rig: Rig) -> None:
    await rig(lines(100))
    wrong = lines(100).replace(b"Name", b"Nome")
    first = await rig(wrong, run=Run("r9", "t"))
    assert await rig(wrong, run=Run("r9", "t", attempt=2)) == first
    assert (first.status, (await rig.rows())["C1"]["name"]) == ("stopped", "Name 1")


async def test_of_two_attempts_that_begin_at_once_one_writes(rig: Rig) -> None:
    run = Run("r10", "t")

    class Both(SqlTarget):
        async def count(self, session: AsyncSession) -> int:
            await rig(lines(10), run=run)
            return await super().count(session)

    with pytest.raises(OvertakenImport, match="another attempt has begun to write it"):
        await rig(lines(10), run=run, target=Both(cadets, "cadet_id"), threshold=None)
    assert await rig.count() == 10


async def test_an_attempt_that_was_overtaken_writes_nothing(rig: Rig) -> None:
    """Two workers at one import: the row that the second moved on lets the first write nothing."""

    class Slow(SqlTarget):
        async def existing(
            self, session: AsyncSession, keys: Sequence[Key]
        ) -> Mapping[Key, Mapping[str, Any]]:
            found = await super().existing(session, keys)
            if (
                ("C4",) in keys
                and (record := await rig.imports.journal.get("r5"))
                and record.state == "applying"
            ):
                on = update(records).where(records.c.id == "r5")
                await session.execute(on.values(position=record.position + 100))
            return found

    with pytest.raises(OvertakenImport):
        await rig(lines(10), run=Run("r5", "t"), target=Slow(cadets, "cadet_id"), chunk=2)
    assert await rig.count() == 4


async def test_old_records_are_forgotten_and_those_at_work_are_kept(rig: Rig) -> None:
    target = CutTarget(cadets, "cadet_id")
    target.at = "C1"
    with pytest.raises(Cut):
        await rig(lines(2), run=Run("r6", "t"), target=target)
    await rig(b"cadet_id,name,company_id\nC7,N,99\n", run=Run("r7", "t"))
    assert await rig.imports.journal.prune(clock.now()) == 1
    assert await rig.imports.journal.get("r7") is None
    assert await rig.imports.journal.get("r6") is not None


async def test_progress_is_told(rig: Rig) -> None:
    run = Run("r8", "t")
    await rig(lines(2500), run=run)
    assert run.last_progress == {"current": 2500, "total": 2500, "percentage": 100, "note": "writing rows"}
