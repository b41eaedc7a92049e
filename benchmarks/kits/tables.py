"""`python -m benchmarks.kits.tables`: imports and exports of many rows, beside the plain way.

For each row of the table: rows in a second, from the file to the committed table or the other way round, and
processor time for each (the reader of XLSX files included), and the most memory that the process held before
and meanwhile. Each is measured in a process of its own, on an SQLite file. Prints a table,
and JSON as its last line.

The plain way checks rows with the same pydantic model and adds them with the ORM in one go; it exports with
`session.scalars(...).all()` and the csv module.
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from sqlalchemy import insert, select
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from errands import Database
from errands.kits import tables
from errands.kits.tables.writers import ExportFormat, writer

ROOT = Path(__file__).parents[2]
FIELDS = ["student_id", "first_name", "last_name", "email", "born", "grade", "active"]


class Base(DeclarativeBase):
    pass


class Student(Base):
    __tablename__ = "students"
    id: Mapped[int] = mapped_column(primary_key=True)
    student_id: Mapped[str] = mapped_column(unique=True)
    first_name: Mapped[str]
    last_name: Mapped[str]
    email: Mapped[str]
    born: Mapped[date]
    grade: Mapped[float]
    active: Mapped[bool]


class StudentRow(BaseModel):
    student_id: str
    first_name: str
    last_name: str
    email: str
    born: date
    grade: float
    active: bool


IMPORT = tables.Import(
    "students", StudentRow, key="student_id", target=tables.SqlTarget(Student, "student_id"), threshold=None
)
EXPORT = tables.Export(
    "students", lambda filters: select(*(getattr(Student, name) for name in FIELDS)).order_by(Student.id)
)


class OnDisk(tables.FakeFiles):
    """A place for files that holds none of them in memory."""

    async def put(
        self, data: bytes | Path, *, content_type: str, suffix: str = "", key: str | None = None
    ) -> Any:
        return await super().put(b"", content_type=content_type, suffix=suffix, key=key)


def student(n: int) -> dict[str, Any]:
    """The n-th student; always the same."""
    return {
        "student_id": f"S{n:07}", "first_name": f"Ann-Marie {n % 977}", "last_name": f"Müller {n % 1013}",
        "email": f"student{n}@school.example", "born": date(2004, 1, 1) + timedelta(n % 1500),
        "grade": (n % 1000) / 10, "active": n % 3 != 0,
    }  # fmt: skip


def make_file(path: Path, format: str, rows: int) -> None:
    """A file to import."""
    if format == "json":
        with path.open("w") as file:
            for n in range(rows):
                file.write(("[" if n == 0 else ",\n") + json.dumps(student(n), default=str))
            file.write("]")
        return
    kind: Any = format
    out = writer(path, kind, FIELDS, FIELDS)
    out.write([student(n)[name] for name in FIELDS] for n in range(rows))
    out.close()


async def import_file(database: Database, path: Path) -> None:
    result = await tables.Imports(database).run(IMPORT, path)
    assert result.status == "done"


async def import_twice(database: Database, path: Path) -> None:
    result = await tables.Imports(database).run(IMPORT, path)
    assert not result.counts.created


async def export_file(database: Database, format: ExportFormat) -> None:
    await tables.Exports(database, OnDisk()).run(EXPORT, format=format)


def plain_import(database: Database, path: Path) -> None:
    with path.open(newline="", encoding="utf-8") as file, database.session() as session:
        session.add_all(
            Student(**StudentRow.model_validate(row).model_dump()) for row in csv.DictReader(file)
        )


def plain_export(database: Database, path: Path) -> None:
    out = io.StringIO()
    with database.session() as session:
        rows = csv.writer(out)
        rows.writerow(FIELDS)
        for one in session.scalars(select(Student).order_by(Student.id)).all():
            rows.writerow([getattr(one, name) for name in FIELDS])
    path.write_text(out.getvalue())


def _fill(database: Database, rows: int) -> None:
    with database.writing() as connection:
        for start in range(0, rows, 1000):
            connection.execute(insert(Student), [student(n) for n in range(start, min(start + 1000, rows))])


ROWS: dict[str, tuple[str, Callable[[Database, Path], Any]]] = {
    "import of CSV, plain": ("csv", plain_import),
    "import of CSV": ("csv", import_file),
    "import of XLSX": ("xlsx", import_file),
    "import of JSON": ("json", import_file),
    "import of JSON lines": ("jsonl", import_file),
    "import of CSV, nothing new": ("csv filled", import_twice),
    "export to CSV, plain": ("filled", plain_export),
    "export to CSV": ("filled", lambda database, path: export_file(database, "csv")),
    "export to XLSX": ("filled", lambda database, path: export_file(database, "xlsx")),
    "export to JSON lines": ("filled", lambda database, path: export_file(database, "jsonl")),
}


def main(
    rows: Annotated[int, typer.Option(min=100, help="Rows of each file.")] = 100_000,
    only: Annotated[str, typer.Option(help="Rows whose name holds this.")] = "",
) -> None:
    """Measure, print, and say it as JSON."""
    found = {name: _apart(name, rows) for name in ROWS if only in name}
    print(f"{'':30}{'rows/s':>10}{'µs/row':>10}{'idle MB':>10}{'peak MB':>10}")
    for name, told in found.items():
        print(
            f"{name:30}{told['rows_per_s']:>10,.0f}{told['us_per_row']:>10,.0f}{told['idle_mb']:>10,.0f}"
            f"{told['peak_mb']:>10,.0f}"
        )
    print(json.dumps(found))


def _apart(name: str, rows: int) -> dict[str, float]:
    needs = ROWS[name][0]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        if needs.split()[0] != "filled":
            make_file(path, needs.split()[0], rows)
        database = Database(f"sqlite:///{folder}/errands.db")
        database.upgrade()
        Base.metadata.create_all(database.engine)
        if "filled" in needs:
            _fill(database, rows)
        database.dispose()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
        command = [sys.executable, "-m", "benchmarks.kits.tables", "measure", name, str(rows), folder]
        told = subprocess.run(command, env=environment, cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout
        found: dict[str, float] = json.loads(told.splitlines()[-1])
        return found


def _measure(name: str, rows: int, folder: str) -> dict[str, float]:
    database = Database(f"sqlite:///{folder}/errands.db")
    work = ROWS[name][1]

    async def do() -> None:
        await work(database, Path(folder) / "file")
        await database.adispose()

    idle, busy, began = _peak(), _busy(), time.perf_counter()
    if work in (plain_import, plain_export):
        work(database, Path(folder) / "file")
    else:
        asyncio.run(do())
    return {
        "rows_per_s": rows / (time.perf_counter() - began), "us_per_row": 1e6 * (_busy() - busy) / rows,
        "idle_mb": idle, "peak_mb": _peak(),
    }  # fmt: skip


def _busy() -> float:
    """Seconds of processor time, of ended children too."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _peak() -> float:
    """The most memory that this process has held, in MB."""
    status = Path("/proc/self/status")
    if status.exists():  # what `getrusage` tells begins with what the parent held
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 * 1024)


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        print(json.dumps(_measure(sys.argv[2], int(sys.argv[3]), sys.argv[4])))
    else:
        typer.run(main)
