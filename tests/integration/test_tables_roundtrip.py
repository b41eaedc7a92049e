"""What is exported and imported again is the same: any rows, in each format."""

from __future__ import annotations

import asyncio
import string
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel
from sqlalchemy import (
    Boolean,
    Column,
    Date,
    DateTime,
    Float,
    Integer,
    MetaData,
    Numeric,
    Table,
    Text,
    delete,
    select,
)

from errands import Database
from errands.kits.tables import Export, Exports, FakeFiles, Import, Imports, SqlTarget

metadata = MetaData()


def _columns() -> list[Column[Any]]:
    return [
        Column("key", Integer, primary_key=True),
        Column("text", Text),
        Column("whole", Integer),
        Column("real", Float),
        Column("exact", Numeric(18, 6)),
        Column("flag", Boolean),
        Column("day", Date),
        Column("moment", DateTime),
    ]


source = Table("source", metadata, *_columns())
copy = Table("copy", metadata, *_columns())


class Row(BaseModel):
    key: int
    text: str | None = None
    whole: int | None = None
    real: float | None = None
    exact: Decimal | None = None
    flag: bool | None = None
    day: date | None = None
    moment: datetime | None = None


# An empty text and no text are one in a cell. Carriage returns and what no XML holds are among the letters.
_letters = st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufffe\uffff")
_risky = st.text(alphabet="=+-@'\t\r\n\",;|12 _x0D", min_size=1)
texts = (
    st.text(alphabet=_letters, min_size=1) | _risky | st.text(alphabet=string.digits, min_size=1, max_size=20)
)
# SQLite and sheets keep 15 digits of a number; a sheet keeps milliseconds of a moment.
reals = st.integers(-(10**14), 10**14).map(lambda n: n / 10**6)
moments = st.datetimes(datetime(1900, 3, 2), datetime(9998, 1, 1)).map(lambda m: m.replace(microsecond=0))
rows = st.lists(
    st.fixed_dictionaries(
        {
            "key": st.integers(-(2**31), 2**31 - 1),
            "text": st.none() | texts,
            "whole": st.none() | st.integers(-(2**31), 2**31 - 1),
            "real": st.none() | reals,
            "exact": st.none() | st.decimals(-(10**8), 10**8, places=6),
            "flag": st.none() | st.booleans(),
            "day": st.none() | st.dates(date(1, 1, 1), date(9999, 12, 31)),
            "moment": st.none() | moments,
        }
    ),
    unique_by=lambda row: row["key"],
    max_size=15,
)


@pytest.fixture(scope="module")
def sqlite(tmp_path_factory: pytest.TempPathFactory) -> Database:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('roundtrip') / 'errands.db'}")
    database.upgrade()
    metadata.create_all(database.engine)
    return database


@pytest.mark.parametrize("format", ["csv", "xlsx", "jsonl"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(made=rows)
def test_what_is_exported_is_imported_the_same(
    sqlite: Database, format: Any, made: list[dict[str, Any]]
) -> None:
    async def there_and_back() -> list[dict[str, Any]]:
        files = FakeFiles()
        async with sqlite.async_writing() as connection:
            await connection.execute(delete(source))
            await connection.execute(delete(copy))
            if made:
                await connection.execute(source.insert(), made)
        export = Export("all", lambda filters: select(source).order_by(source.c.key))
        exported = await Exports(sqlite, files).run(export, format=format)
        if format == "jsonl" and not made:
            return []  # an empty file is refused as such
        back = Import("all", Row, key="key", target=SqlTarget(copy, "key"))
        result = await Imports(sqlite, files).run(back, exported.file)
        assert (result.counts.created, result.refusals) == (len(made), ())
        async with sqlite.async_reading() as connection:
            found = (await connection.execute(select(copy).order_by(copy.c.key))).mappings().all()
        await sqlite.adispose()
        return [dict(row) for row in found]

    assert asyncio.run(there_and_back()) == sorted(made, key=lambda row: row["key"])


@pytest.mark.parametrize("format", ["csv", "xlsx", "jsonl"])
async def test_on_each_kind_of_database_a_second_import_changes_nothing(
    database: Database, format: Any
) -> None:
    metadata.create_all(database.engine)
    made = [
        {
            "key": n, "text": f"'=row {n}\r\n", "whole": -n, "real": n / 7, "exact": Decimal(n) / 8,
            "flag": n % 2 == 0, "day": date(2000, 1, 1) + timedelta(n),
            "moment": datetime(2000, 1, 1) + timedelta(seconds=n),
        }
        for n in range(1, 1500)
    ]  # fmt: skip
    async with database.async_writing() as connection:
        await connection.execute(source.insert(), made)
    files = FakeFiles()
    export = Export("all", lambda filters: select(source).order_by(source.c.key))
    exported = await Exports(database, files).run(export, format=format)
    again = Import("all", Row, key="key", target=SqlTarget(source, "key"))
    result = await Imports(database, files).run(again, exported.file, force=True)
    # A third of the reals have 17 digits, of which a sheet keeps 16.
    kept = result.counts.unchanged if format != "xlsx" else result.counts.taken
    assert (kept, result.counts.created) == (1499, 0)
    await database.adispose()
