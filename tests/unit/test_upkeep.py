"""What a clean-up may say of itself, and the files and functions that it cleans up by."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Column, Date, DateTime, Index, Integer, MetaData, Table, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from structlog.testing import capture_logs

from errands import ConfigurationError, Discard, Errands, Settings
from errands.core import clock
from errands.kits import upkeep
from errands.kits.upkeep import Upkeep
from errands.kits.upkeep.rows import OldRows
from errands.store.types import UtcDateTime

DAYS = timedelta(days=30)
metadata = MetaData()
notes = Table(
    "notes", metadata, Column("id", Integer, primary_key=True), Column("at", UtcDateTime, index=True),
    Column("text", Text), Column("day", Date), Column("made", DateTime),
)  # fmt: skip
keyless = Table("keyless", metadata, Column("at", UtcDateTime))
other = Table("other", metadata, Column("id", Integer, primary_key=True), Column("at", UtcDateTime))


class Base(DeclarativeBase):
    pass


class Letter(Base):
    __tablename__ = "letters"
    id: Mapped[int] = mapped_column(primary_key=True)
    written: Mapped[datetime] = mapped_column("written_at", UtcDateTime)
    __table_args__ = (Index("letters_written", "written_at"),)


def rows(**changes: Any) -> dict[str, Any]:
    return {"table": notes, "column": notes.c.at, "older_than": DAYS, **changes}


async def remove() -> int:
    return 0


@pytest.mark.parametrize(
    ("name", "given", "why"),
    [
        ("", rows(), "a name has"),
        ("a/b", rows(), "no slash"),
        ("x", {"older_than": DAYS}, "one of table=, folder= and call="),
        ("x", rows(folder="/srv/tmp"), "not with table and folder"),
        ("x", rows(chunk=0), "chunk=0"),
        ("x", rows(chunk=-5), "chunk=-5"),
        ("x", rows(chunk=10_001), "1 to 10,000"),
        ("x", rows(chunk=True), "chunk=True"),
        ("x", rows(older_than=timedelta(days=-1)), "would go too"),
        ("x", rows(older_than=30), "write a timedelta"),
        ("x", rows(older_than=None), "how old it must be"),
        ("x", rows(column=None), "by which column"),
        ("x", rows(cron="every day"), "every day"),
        ("x", rows(cron="0 3 * * *", every=60), "with cron and every"),
        ("x", rows(every=0), "every=0"),
        ("x", rows(tz="Europe/Berlin"), "belongs to a cron line"),
        ("x", rows(cron="0 3 * * *", tz="Mars/Base"), "Mars/Base"),
        ("x", rows(pattern="*.tmp"), "pattern= belongs to folder="),
        ("x", {"folder": "/srv/tmp", "older_than": DAYS, "where": notes.c.id > 1}, "where= belongs to"),
        ("x", {"call": remove, "archive": print}, "archive= belongs to table="),
        ("x", {"folder": "/", "older_than": DAYS}, "far more than what may go"),
        ("x", {"folder": "~", "older_than": DAYS}, "far more than what may go"),
        ("x", {"call": 5}, "call=5 is no function"),
        ("x", rows(archive="a.csv"), "archive='a.csv' is no function"),
    ],
)  # fmt: skip
def test_a_contradiction_is_refused_with_its_name(name: str, given: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        Upkeep(name, **given)
    assert why in str(refused.value)
    assert repr(name) in str(refused.value)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (rows(column=other.c.at), "no column of the table 'notes'"),
        (rows(column="nothing"), "nothing is no column"),
        (rows(column=notes.c.text), "is no time"),
        (rows(table="notes"), "neither a Table nor a mapped class"),
        ({"table": keyless, "column": "at", "older_than": DAYS}, "no primary key"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_its_name(given: dict[str, Any], why: str) -> None:
    with pytest.raises(ConfigurationError, match="upkeep 'old_notes'") as refused:
        upkeep.kit([Upkeep("old_notes", **given)])
    assert why in str(refused.value)


def test_two_of_one_name_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="'x' is declared 2 times"):
        upkeep.kit([Upkeep("x", call=remove), Upkeep("x", **rows())])


def test_a_mapped_class_and_a_name_will_do() -> None:
    for column in (Letter.written, "written_at", Letter.__table__.c.written_at):
        found = OldRows(Upkeep("old_letters", table=Letter, column=column, older_than=DAYS))
        assert (found.table.name, found.column.name, found.indexed) == ("letters", "written_at", True)


def test_times_are_compared_as_the_column_keeps_them() -> None:
    with clock.use(clock.FakeClock()):
        assert OldRows(Upkeep("x", **rows())).before() == clock.now() - DAYS
        assert OldRows(Upkeep("x", **rows(column="made"))).before() == datetime(2025, 12, 2, 12)
        assert OldRows(Upkeep("x", **rows(column="day"))).before() == datetime(2025, 12, 2).date()


@pytest.fixture
def app(tmp_path: Path) -> Errands:
    return Errands("school", settings=Settings(inline=True, home=tmp_path))


def test_a_column_without_an_index_is_warned_of(app: Errands) -> None:
    with capture_logs() as logs:
        app.use(upkeep.kit([Upkeep("indexed", **rows()), Upkeep("plain", **rows(column="made"))]))
    (warning,) = logs
    assert (warning["log_level"], warning["upkeep"], warning["column"]) == ("warning", "plain", "notes.made")


def test_each_is_a_task_and_has_a_schedule(app: Errands) -> None:
    app.use(
        upkeep.kit(
            [
                Upkeep("nightly", **rows(cron="0 3 * * *", tz="Europe/Berlin")),
                Upkeep("hourly", call=remove, every=timedelta(hours=1), queue="upkeep"),
                Upkeep("by_hand", call=remove),
            ]
        )
    )
    app.check()
    assert {"nightly", "hourly", "by_hand"} <= set(app.tasks)
    schedules = app.declared_schedules
    assert {name: str(schedule.rule) for name, schedule in schedules.items()} == {
        "nightly": str(schedules["nightly"].rule),
        "hourly": "every 3600 s",
    }
    assert all(schedule.overlap == "skip" for schedule in schedules.values())
    assert app.tasks["hourly"].rules.queue == "upkeep"


# -- functions


def run(app: Errands, name: str, **arguments: Any) -> Any:
    return app.tasks[name].delay(**arguments).get()


class Shelf:
    """A resource of the application's own."""

    def __init__(self) -> None:
        self.asked: list[Any] = []

    def prune(self, before: datetime) -> int:
        self.asked.append(before)
        return 3


def test_a_function_gets_what_it_asks_for(app: Errands) -> None:
    shelf = Shelf()
    app.provide(Shelf, lambda: shelf, scope="process")

    async def prune(before: datetime, dry_run: bool, *, shelf: Shelf) -> int:
        return 7 if dry_run else shelf.prune(before)

    def plain() -> int:
        return 4

    app.use(upkeep.kit([Upkeep("prune", call=prune, older_than=DAYS), Upkeep("plain", call=plain)]))
    with clock.use(clock.FakeClock()):
        assert run(app, "prune") == {"deleted": 3}
        assert shelf.asked == [clock.now() - DAYS]
    assert run(app, "prune", dry_run=True) == {"dry_run": True, "would_delete": 7}
    assert run(app, "plain") == {"deleted": 4}
    with pytest.raises(Discard, match="plain has no dry run"):
        run(app, "plain", dry_run=True)


def test_a_part_of_a_function_will_do_and_a_plain_one_does_not_hold_up_the_loop(app: Errands) -> None:
    threads: dict[str, int] = {}

    def prune(kind: str, *, shelf: Shelf) -> int:
        threads["plain"] = threading.get_ident()
        return len(kind)

    async def look(*, shelf: Shelf) -> int:
        threads["loop"] = threading.get_ident()
        return 0

    app.provide(Shelf, Shelf, scope="process")
    app.use(upkeep.kit([Upkeep("part", call=partial(prune, "four")), Upkeep("look", call=look)]))
    assert run(app, "part") == {"deleted": 4}
    assert run(app, "look") == {"deleted": 0}
    assert threads["plain"] != threads["loop"]


def _takes_before(before: datetime) -> int:
    return 0


def _takes_more(name: str) -> int:
    return 0


@pytest.mark.parametrize(
    ("call", "why"), [(_takes_before, "how old it must be"), (_takes_more, "takes 'name'")]
)
def test_a_function_that_asks_for_more_is_refused(app: Errands, call: Callable[..., int], why: str) -> None:
    with pytest.raises(ConfigurationError, match="upkeep 'x'") as refused:
        app.use(upkeep.kit([Upkeep("x", call=call)]))
    assert why in str(refused.value)


def test_a_resource_that_nobody_provides_is_refused_at_start(app: Errands) -> None:
    async def prune(*, shelf: Shelf) -> int:
        return 0

    with pytest.raises(ConfigurationError, match="prune"):
        app.use(upkeep.kit([Upkeep("prune", call=prune)]))
        app.check()


def test_a_function_that_does_not_count_is_told(app: Errands) -> None:
    def silent() -> None:
        return None

    app.use(upkeep.kit([Upkeep("silent", call=silent)]))
    with pytest.raises(TypeError, match="returns how many"):
        run(app, "silent")


# -- folders


def file(path: Path, *, days: float, text: str = "12345") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    when = clock.timestamp() - days * 24 * 3600
    os.utime(path, (when, when))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "temporary"


def cleans(app: Errands, folder: Path, **options: Any) -> None:
    app.use(upkeep.kit([Upkeep("clean", folder=folder, older_than=timedelta(days=1), **options)]))


def test_old_files_go_and_new_ones_stay(app: Errands, folder: Path) -> None:
    for number in range(7):
        file(folder / "deep" / f"old-{number}", days=2)
    new = file(folder / "new", days=0.5)
    cleans(app, folder, chunk=3)
    assert run(app, "clean", dry_run=True) == {"dry_run": True, "would_delete": 7, "bytes": 35}
    done = run(app, "clean")
    assert (done["deleted"], done["bytes"], done["chunks"], done["failed"]) == (7, 35, 3, 0)
    assert done["oldest_left"] == datetime.fromtimestamp(new.stat().st_mtime, clock.now().tzinfo).isoformat()
    assert [path for path in folder.rglob("*") if path.is_file()] == [new]
    assert run(app, "clean")["deleted"] == 0


def test_a_folder_that_has_been_empty_for_long_goes(app: Errands, folder: Path) -> None:
    for name in ("old", "new"):
        (folder / name).mkdir(parents=True)
    when = clock.timestamp() - 2 * 24 * 3600
    os.utime(folder / "old", (when, when))
    os.utime(folder, (when, when))
    cleans(app, folder)
    run(app, "clean")
    assert [path.name for path in folder.iterdir()] == ["new"]


def test_only_names_that_fit_go(app: Errands, folder: Path) -> None:
    for name in ("upload-1", "keep.txt"):
        file(folder / name, days=2)
    cleans(app, folder, pattern="upload-*")
    assert run(app, "clean")["deleted"] == 1
    assert [path.name for path in folder.iterdir()] == ["keep.txt"]


def test_a_link_goes_itself_and_leads_nowhere(app: Errands, folder: Path, tmp_path: Path) -> None:
    outside = file(tmp_path / "outside" / "precious", days=9)
    folder.mkdir()
    for name, target in (("file", outside), ("folder", outside.parent)):
        (folder / name).symlink_to(target)
        os.utime(folder / name, (0, 0), follow_symlinks=False)
    cleans(app, folder)
    assert run(app, "clean")["deleted"] == 1
    assert outside.exists()


def test_a_folder_that_is_not_there_is_clean(app: Errands, folder: Path) -> None:
    cleans(app, folder)
    assert run(app, "clean")["deleted"] == 0


def test_what_cannot_be_deleted_is_told(app: Errands, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stuck, free = file(folder / "stuck", days=3), file(folder / "free", days=2)
    unlink = Path.unlink

    def refuse(self: Path, missing_ok: bool = False) -> None:  # root may delete everything
        if self == stuck:
            raise PermissionError(13, "not yours", str(self))
        unlink(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", refuse)
    cleans(app, folder)
    done = run(app, "clean")
    assert (done["deleted"], done["failed"], free.exists(), stuck.exists()) == (1, 1, False, True)
    with pytest.raises(PermissionError):
        run(app, "clean")
