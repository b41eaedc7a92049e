"""Imports and exports whose workers are killed in the middle: real processes, real signals."""

from __future__ import annotations

import asyncio
import gc
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, insert, select

from errands import Database, Errands, Keyring, State
from errands.kits.storage import Storage, StoredFile
from errands.ops.access import ADMIN, Person
from errands.ops.actions import Actions
from processes import SAMPLE, Worker
from work_rig import POOLS, Work

ROOT = Person("root", frozenset({ADMIN}))


class Tables(Work):
    tables: dict[str, Any]

    def start(self, *, concurrency: int = 2, timeout: float = 5) -> Worker:
        command = (
            "-m", "errands", "worker", "--app", "tables_app:app", "--pool", self.pool,
            "--concurrency", str(concurrency),
        )  # fmt: skip
        environment = {**self.environment, "ERRANDS_SHUTDOWN_TIMEOUT": str(timeout)}
        worker = Worker(environment, self.folder / f"worker-{len(self.workers)}.log", command=command)
        self.workers.append(worker)
        return worker.wait_until_ready()

    def store(self, content: bytes) -> str:
        storage: Any = self.app.resources.instance(Storage)  # type: ignore[type-abstract]
        file: StoredFile = asyncio.run(storage.put(content, content_type="text/csv", suffix=".csv"))
        return file.key

    def read(self, key: str) -> bytes:
        storage: Any = self.app.resources.instance(Storage)  # type: ignore[type-abstract]
        content: bytes = asyncio.run(storage.read(key))
        return content

    def count(self, name: str) -> int:
        with self.app.database.reading() as connection:
            return connection.scalar(select(func.count()).select_from(self.tables[name])) or 0

    @property
    def stored(self) -> list[Path]:
        return list((self.folder / "files" / "exports").glob("*.json"))


@pytest.fixture(params=POOLS)
def work(
    request: pytest.FixtureRequest, database: Database, valkey_url: str, tmp_path: Path
) -> Iterator[Tables]:
    environment = {
        "ERRANDS_HOME": str(tmp_path), "ERRANDS_BROKER_URL": valkey_url, "ERRANDS_RESULT_URL": valkey_url,
        "ERRANDS_VALKEY_URL": valkey_url, "ERRANDS_SECRET_KEYS": Keyring.new_key(),
        "ERRANDS_DATABASE_URL": database.url.render_as_string(hide_password=False).replace("+psycopg", ""),
        "SAMPLE_EFFECTS": str(tmp_path / "effects"),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        found = runpy.run_path(str(SAMPLE / "tables_app.py"))
        app: Errands = found["app"]
        app.finalize()
        found["metadata"].create_all(database.engine)
    work = Tables(environment, tmp_path, app, request.param)
    work.tables = found
    try:
        yield work
    finally:
        for worker in work.workers:
            if worker.process.poll() is None:
                worker.kill()
        gc.collect()
        app.database.dispose()
        app.close()


def file_of(n: int) -> bytes:
    return b"cadet_id,name\n" + b"".join(
        b"%s%d,Name %d\n" % (b"x" if i == 7 else b"C", i, i) for i in range(n)
    )


def test_a_worker_killed_in_mid_import(work: Tables) -> None:
    """Ten chunks, killed with the sixth written and not committed: each row is there once, each chunk was
    written once, and the counts are those of one import."""
    key = work.store(file_of(1001))
    run_id = work.send("import_cadets", key, "C550", str(work.go), 7)
    worker = work.start()
    work.wait_for("waits")
    assert work.count("cadets") == work.count("chunks") * 100 == 500
    worker.kill()
    work.go.touch()
    work.start()
    run = work.ended(run_id)
    assert (run.state, run.attempt) == (State.SUCCEEDED, 2)
    result: Any = run.facts["result"]
    counts = {name: result[name] for name in ("rows", "created", "unchanged", "refused", "duplicates")}
    assert result["status"] == "done"
    assert counts == {"rows": 1001, "created": 1000, "unchanged": 0, "refused": 1, "duplicates": 0}
    assert work.count("cadets") == 1000
    assert work.count("chunks") == 10
    assert [(one["row"], one["reasons"][0]["field"]) for one in result["refusals"]] == [(9, "cadet_id")]
    assert b"row 9: cadet_id" in work.read(result["refused_file"])


def test_a_worker_killed_in_mid_export_leaves_no_half_file(work: Tables) -> None:
    with work.app.database.writing() as connection:
        rows = [{"cadet_id": f"C{n}", "name": "N"} for n in range(3000)]
        connection.execute(insert(work.tables["cadets"]), rows)
    worker = work.start()
    run_id = work.send("export_cadets", "C2500", str(work.go))
    work.wait_for("waits")
    worker.kill()
    assert work.stored == []
    work.go.touch()
    work.start()
    run = work.ended(run_id)
    result: Any = run.facts["result"]
    assert (run.state, result["rows"], len(work.stored)) == (State.SUCCEEDED, 3000, 1)
    assert work.read(result["file"]).count(b"\r\n") == 3001
    assert result["link"].startswith("http")


def test_an_export_that_is_revoked_ends_between_two_thousands(work: Tables) -> None:
    with work.app.database.writing() as connection:
        rows = [{"cadet_id": f"C{n}", "name": "N"} for n in range(3000)]
        connection.execute(insert(work.tables["cadets"]), rows)
    work.start()
    run_id = work.send("export_cadets", "C500", str(work.go))
    work.wait_for("waits")
    Actions(work.app).revoke(ROOT, run_id)
    work.go.touch()
    assert work.ended(run_id).state is State.REVOKED
    assert work.stored == []
