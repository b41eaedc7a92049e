"""The app of `sample/people_app.py` with a ledger and real workers: for tests of dead letters and erasing."""

from __future__ import annotations

import runpy
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from errands import Errands, Keyring, State
from errands.store import reads
from errands.store.engine import Database
from ops_app import ROOT, make_api, record
from processes import SAMPLE, Worker, until

KEY = Keyring.new_key("k1")


@dataclass
class Rig:
    """The sample app in this process, with a ledger; `record` is what the beat does."""

    app: Errands
    client: TestClient
    folder: Path
    environment: dict[str, str]
    queue: str

    def effects(self) -> list[str]:
        path = self.folder / "effects"
        return path.read_text().splitlines() if path.exists() else []

    def ends(self, run_id: str, state: State) -> None:
        def there() -> bool:
            run = self.app.live.get(run_id)
            return run is not None and run.state is state

        until(there, what=f"{run_id} is {state}")

    def letters(self, **query: Any) -> list[dict[str, Any]]:
        record(self.app)
        answer = self.client.get("/api/dead-letters", headers=ROOT, params=query)
        assert answer.status_code == 200, answer.text
        found: list[dict[str, Any]] = answer.json()
        return found

    def letter_of(self, run_id: str) -> dict[str, Any]:
        def found() -> dict[str, Any] | None:
            return next((letter for letter in self.letters() if letter["task_id"] == run_id), None)

        letter: dict[str, Any] = until(found, what=f"a dead letter of {run_id}")
        return letter

    def post(self, path: str, **body: Any) -> Any:
        return self.client.post(path, headers=ROOT, json=body)

    def audit(self, action: str) -> list[Any]:
        with self.app.database.reading() as connection:
            return [row for row in reads.audit(connection) if row.action == action]

    @contextmanager
    def working(self, pool: str = "asyncio") -> Iterator[Worker]:
        log = self.folder / f"{uuid.uuid4().hex[:6]}.log"
        command = ("-m", "errands", "worker", "--app", "people_app:app", "--pool", pool, "-c", "2")
        worker = Worker(self.environment, log, command=(*command, "--name", log.stem))
        try:
            worker.wait_until_ready()
            yield worker
        finally:
            worker.stop()


@contextmanager
def rig_on(database: Database, valkey_url: str, folder: Path, **more: str) -> Iterator[Rig]:
    """The sample app on these servers."""
    queue = f"people-{uuid.uuid4().hex[:8]}"
    url = database.url.render_as_string(hide_password=False).replace("+psycopg", "")
    environment = {
        "ERRANDS_HOME": str(folder), "ERRANDS_BROKER_URL": valkey_url, "ERRANDS_DATABASE_URL": url,
        "ERRANDS_SECRET_KEYS": Keyring.new_key(), "ERRANDS_SIGNING_KEYS": KEY, "SAMPLE_QUEUE": queue,
        "SAMPLE_EFFECTS": str(folder / "effects"), "SAMPLE_MENDED": str(folder / "mended"),
        "ERRANDS_UNKNOWN_TASK_PATIENCE": "0", **more,
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        app: Errands = runpy.run_path(str(SAMPLE / "people_app.py"))["app"]
        app.finalize()
    with TestClient(make_api(app)) as client:
        yield Rig(app, client, folder, environment, queue)
    app.close()
    app.database.dispose()
