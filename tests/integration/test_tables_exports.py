"""Exports from a table of each kind of database: formats, formulas, files that are given again."""

from __future__ import annotations

import enum
import json
import tempfile
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from python_calamine import CalamineWorkbook
from sqlalchemy import (
    Boolean,
    Column,
    Date,
    Integer,
    MetaData,
    Numeric,
    Select,
    Table,
    Text,
    delete,
    insert,
    select,
)
from sqlalchemy import update as sql_update

from errands import ConfigurationError, Database, Run, RunCancelled
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits import tables
from errands.kits.tables import (
    Export,
    ExportRefused,
    ExportResult,
    Exports,
    FakeFiles,
    NotAllowed,
    Style,
    writer,
)
from errands.kits.tables import writers as writers_module
from errands.store.types import UtcDateTime

metadata = MetaData()
students = Table(
    "students",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("balance", Numeric(12, 2)),
    Column("born", Date),
    Column("active", Boolean, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)
MOMENT = datetime(2026, 3, 5, 12, 30, 15, tzinfo=UTC)
ROWS: list[dict[str, Any]] = [
    {"id": 1, "name": "Ann", "balance": Decimal("-12.50"), "born": date(2005, 2, 3), "active": True},
    {"id": 2, "name": "=1+1", "balance": None, "born": None, "active": False},
    {"id": 3, "name": 'Zoë, "Z"\nline', "balance": Decimal("0.10"), "born": None, "active": True},
]
ROWS = [{**row, "updated_at": MOMENT} for row in ROWS]


def all_students(filters: Mapping[str, Any]) -> Select[Any]:
    query = select(students).order_by(students.c.id)
    if filters.get("is_active") is not None:
        query = query.where(students.c.active == filters["is_active"])
    return query


STUDENTS = Export("students", all_students, updated="updated_at")


class Rig:
    def __init__(self, database: Database) -> None:
        self.database = database
        self.files = FakeFiles()
        self.exports = Exports(database, self.files)

    async def __call__(self, declared: Export = STUDENTS, filters: Any = None, **said: Any) -> ExportResult:
        return await self.exports.run(declared, filters, **said)

    def content(self, result: ExportResult) -> bytes:
        return self.files.files[result.file].content

    async def write(self, *statements: Any) -> None:
        async with self.database.async_writing() as connection:
            for statement in statements:
                await connection.execute(statement)


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[Rig]:
    metadata.create_all(database.engine)
    found = Rig(database)
    await found.write(insert(students).values(ROWS))
    yield found
    await database.adispose()


# -- what is in the file


async def test_csv(rig: Rig) -> None:
    """Mistake 29: formulas in exported CSV cells run in the reader's spreadsheet."""
    result = await rig()
    assert rig.content(result).decode() == (
        "id,name,balance,born,active,updated_at\r\n"
        "1,Ann,-12.50,2005-02-03,true,2026-03-05T12:30:15+00:00\r\n"
        "2,'=1+1,,,false,2026-03-05T12:30:15+00:00\r\n"
        '3,"Zoë, ""Z""\nline",0.10,,true,2026-03-05T12:30:15+00:00\r\n'
    )
    assert (result.rows, result.size, result.format) == (3, len(rig.content(result)), "csv")
    assert rig.files.files[result.file].content_type == "text/csv; charset=utf-8"


async def test_csv_for_excel(rig: Rig) -> None:
    style = Style(bom=True, delimiter=";")
    result = await rig(Export("students", all_students, columns=["id", "name"], style=style))
    assert rig.content(result).startswith(b"\xef\xbb\xbfid;name\r\n1;Ann\r\n")


async def test_xlsx(rig: Rig, tmp_path: Path) -> None:
    result = await rig(format="xlsx")
    (tmp_path / "found.xlsx").write_bytes(rig.content(result))
    rows = CalamineWorkbook.from_path(tmp_path / "found.xlsx").get_sheet_by_index(0).to_python()
    assert rows == [
        ["id", "name", "balance", "born", "active", "updated_at"],
        [1.0, "Ann", -12.5, date(2005, 2, 3), True, datetime(2026, 3, 5, 12, 30, 15)],
        [2.0, "=1+1", "", "", False, datetime(2026, 3, 5, 12, 30, 15)],
        [3.0, 'Zoë, "Z"\nline', 0.1, "", True, datetime(2026, 3, 5, 12, 30, 15)],
    ]


async def test_json_lines(rig: Rig) -> None:
    result = await rig(format="jsonl")
    lines = rig.content(result).decode().splitlines()
    assert lines[0] == (
        '{"id":1,"name":"Ann","balance":"-12.50","born":"2005-02-03","active":true,'
        '"updated_at":"2026-03-05T12:30:15Z"}'
    )
    assert json.loads(lines[1]) == {**ROWS[1], "updated_at": "2026-03-05T12:30:15Z"}


async def test_columns_titles_and_values_of_ones_own(rig: Rig) -> None:
    columns = [tables.Column("name", "=Name", str.upper), tables.Column("id", "No.")]
    result = await rig(Export("students", all_students, columns=columns))
    assert rig.content(result).splitlines()[:2] == [b"'=Name,No.", b"ANN,1"]
    with pytest.raises(ConfigurationError, match="the query has no column 'rank'; it has id, name"):
        await rig(Export("students", all_students, columns=["rank"]))
    with pytest.raises(ConfigurationError, match="no column 'changed'"):
        await rig(Export("students", all_students, updated="changed"))


async def test_filters(rig: Rig) -> None:
    assert (await rig(filters={"is_active": True})).rows == 2
    assert (await rig(filters={"is_active": False})).rows == 1


async def test_no_rows_are_a_header(rig: Rig) -> None:
    await rig.write(delete(students))
    assert rig.content(await rig()) == b"id,name,balance,born,active,updated_at\r\n"
    assert rig.content(await rig(format="jsonl")) == b""


async def test_many_rows_and_their_progress(rig: Rig) -> None:
    await rig.write(insert(students).values([{**ROWS[0], "id": n} for n in range(10, 3010)]))
    run = Run("r1", "t")
    result = await rig(run=run)
    assert result.rows == 3003
    assert rig.content(result).count(b"\r\n") == 3004
    assert run.last_progress == {"current": 3003, "total": 3003, "percentage": 100, "note": "writing rows"}


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, ""), (True, "true"), (1.5, "1.5"), (-3, "-3"), (Decimal("1E+3"), "1E+3"),
        (time(12, 5), "12:05:00"), (timedelta(minutes=1), "60.0"), (Colour.RED, "red"),
        (b"\x01\xff", "01ff"), ([1, "a"], '[1, ""a""]'),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"), (float("-inf"), "'-inf"),
        ({"a": date(2026, 1, 2)}, "2026"),
    ],
)  # fmt: skip
def test_values_of_many_kinds(value: Any, text: str, tmp_path: Path) -> None:
    for format in ("csv", "xlsx", "jsonl"):
        out = writer(tmp_path / f"f.{format}", format, ["a", "b"], ["a", "b"])
        out.write([[value, "end"]])
        out.close()
    assert text in (tmp_path / "f.csv").read_text().splitlines()[1]
    assert json.loads((tmp_path / "f.jsonl").read_text())["b"] == "end"
    assert CalamineWorkbook.from_path(tmp_path / "f.xlsx").get_sheet_by_index(0).to_python()[1][1] == "end"


def test_numbers_and_days_that_a_sheet_would_change_are_texts(tmp_path: Path) -> None:
    kept = [
        12345678901234567890,
        Decimal("1.2345678901234567"),
        date(1899, 12, 31),
        "\ufffe\ud800",
        Decimal("1E+400"),
    ]
    out = writer(tmp_path / "f.xlsx", "xlsx", list("abcde"), list("abcde"))
    out.write([kept])
    out.close()
    found = CalamineWorkbook.from_path(tmp_path / "f.xlsx").get_sheet_by_index(0).to_python()[1]
    assert found == ["12345678901234567890", "1.2345678901234567", "1899-12-31", "\ufffd\ufffd", "1E+400"]


# -- limits


async def test_a_sheet_has_only_so_many_rows(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers_module, "XLSX_ROWS", 3)
    with pytest.raises(
        ExportRefused, match="an XLSX sheet holds 2 rows and a header, and there are more: export CSV"
    ):
        await rig(format="xlsx")
    assert rig.files.files == {}
    assert (await rig(format="csv")).rows == 3


async def test_a_text_that_no_cell_holds(rig: Rig) -> None:
    await rig.write(sql_update(students).where(students.c.id == 2).values(name="x" * 40_000))
    with pytest.raises(
        ExportRefused, match="row 3: 'name' has 40,000 characters, and an XLSX cell holds 32,767"
    ):
        await rig(format="xlsx")


async def test_who_may_not_gets_nothing(rig: Rig) -> None:
    with pytest.raises(NotAllowed, match="2 may not do the export 'students'"):
        await rig(Export("students", all_students, allowed=lambda user: user == 1), by=2)
    with pytest.raises(ConfigurationError, match="needs a place for files"):
        await Exports(rig.database).run(STUDENTS)
    with pytest.raises(ConfigurationError, match="there is no format 'pdf'"):
        await rig(format="pdf")


# -- given again


async def test_the_same_data_is_the_same_file(rig: Rig) -> None:
    first = await rig()
    again = await rig()
    assert (again.file, again.rows, again.made_at, again.reused) == (first.file, 3, first.made_at, True)
    assert not first.reused
    assert len(rig.files.files) == 1


@pytest.mark.parametrize(
    "change",
    [
        sql_update(students)
        .where(students.c.id == 1)
        .values(name="Anna", updated_at=MOMENT + timedelta(seconds=1)),
        delete(students).where(students.c.id == 1),
        insert(students).values({**ROWS[0], "id": 9}),
    ],
)
async def test_a_change_makes_a_new_file(rig: Rig, change: Any) -> None:
    first = await rig()
    await rig.write(change)
    second = await rig()
    assert not second.reused
    assert second.file != first.file
    assert rig.content(first) != rig.content(second)


async def test_what_else_makes_a_new_file(rig: Rig) -> None:
    await rig()
    others = [
        await rig(filters={"is_active": True}),
        await rig(format="jsonl"),
        await rig(Export("pupils", all_students, updated="updated_at")),
        await rig(Export("students", all_students, updated="updated_at", columns=["id"])),
        await rig(Export("students", all_students, updated="updated_at", style=Style(bom=True))),
        await rig(
            Export("students", lambda f: all_students(f).where(students.c.id > 1), updated="updated_at")
        ),
    ]
    assert not any(result.reused for result in others)
    assert len({result.file for result in others}) == 6


async def test_what_a_query_depends_on_besides_its_filters_makes_another_file(rig: Rig) -> None:
    def of(school: int) -> Export:
        return Export(
            "s", lambda f: all_students(f).where(students.c.id != 100 + school), updated="updated_at"
        )

    assert (await rig(of(1))).file != (await rig(of(2))).file


async def test_a_file_that_is_gone_or_old_is_made_anew(rig: Rig) -> None:
    with clock.use(FakeClock()) as now:
        first = await rig()
        rig.files.files.clear()
        assert not (await rig()).reused
        now.advance(timedelta(days=8))  # type: ignore[attr-defined]
        assert not (await rig()).reused
        assert (await rig()).reused
        assert await rig.exports.prune(clock.now()) == []
        assert await rig.exports.prune(clock.now() + timedelta(seconds=1)) == [first.file]
        assert not (await rig()).reused


async def test_a_version_that_the_caller_knows(rig: Rig) -> None:
    plain = Export("students", all_students)
    assert not (await rig(plain)).reused
    assert not (await rig(plain)).reused
    assert not (await rig(plain, version="7")).reused
    assert (await rig(plain, version="7")).reused
    assert not (await rig(plain, version="8")).reused


async def test_the_link_is_good_for_a_day(rig: Rig) -> None:
    with clock.use(FakeClock()):
        result = await rig(by=7)
        assert result.expires_at == clock.now() + timedelta(days=1)
    assert result.link == f"https://files.test/{result.file}?name=students-2026-01-01.csv"
    assert result.as_json()["expires_at"] == "2026-01-02T12:00:00+00:00"


# -- half a file


async def test_who_is_cut_off_leaves_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    class Cancelled(Run):
        def check(self, *, within: float | None = None) -> None:
            raise RunCancelled("the run was revoked")

    with pytest.raises(RunCancelled):
        await rig(run=Cancelled("r1", "t"))
    assert rig.files.files == {}
    assert list(scratch.iterdir()) == []
    # A second attempt of the same run makes the one file.
    plain = Export("students", all_students)
    first = await rig(plain, run=Run("r2", "t"))
    assert (await rig(plain, run=Run("r2", "t", attempt=2))).file == first.file
    assert len(rig.files.files) == 1
