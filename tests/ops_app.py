"""An app whose tasks end in every way, for the tests of views, actions and endpoints.

`celery -A ops_app:app worker` makes one from the environment.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Header, HTTPException

from errands import Discard, Errands, Retry, Run, Secret, Settings
from errands.beat.recorder import Recorder
from errands.broker.events import EventStream
from errands.core.secrets import Keyring
from errands.doors.fastapi import Person, errands_router

SECRET_KEYS = Keyring.new_key()


def settings(broker_url: str, database: Any, **more: Any) -> Settings:
    url = database.url.render_as_string(hide_password=False).replace("+psycopg", "")
    values = {
        "broker_url": broker_url,
        "database_url": url,
        "secret_keys": SECRET_KEYS,
        "progress_interval": 0.0,
        "unknown_task_patience": 0.0,
    }
    return Settings(**{**values, "home": Path(os.environ.get("TMPDIR", "/tmp")) / "errands-unused", **more})


def make_app(settings: Settings) -> Errands:
    app = Errands("ops", settings=settings)

    @app.task(name="add", queue="sums")
    def add(x: int, y: int) -> int:
        return x + y

    @app.task(name="fail", queue="sums")
    def fail(word: str = "password=hunter2") -> None:
        raise RuntimeError(f"inside: {word}")

    @app.task(name="discard", queue="sums")
    def discard() -> None:
        raise Discard("The course is not complete yet.")

    @app.task(name="retry", queue="sums", retry=Retry(2, first=300, most=300))
    def retry() -> None:
        raise ConnectionError("mail.internal:25 refused")

    @app.task(name="hold", queue="sums")
    def hold(gate: str, *, run: Run) -> str:
        """Tells its progress, then waits until something is pushed to the list `gate`."""
        run.log("line one\nline two")
        run.progress(1, 2, "half")
        deadline = time.monotonic() + 60
        while not app.valkey.blpop([gate], timeout=1):
            if time.monotonic() > deadline:
                raise TimeoutError(gate)
        run.progress(2, 2, "done")
        return "held"

    @app.task(name="sign_in", queue="sums")
    def sign_in(token: Secret[str]) -> str:
        return "signed in"

    @app.task(name="unread", queue="unread")
    def unread() -> None: ...

    app.finalize()
    return app


def __getattr__(name: str) -> Any:
    if name == "app":
        return make_app(Settings())
    raise AttributeError(name)


def signed_in(x_person: str = Header(""), x_roles: str = Header("")) -> Person:
    """The person whom a request names itself: enough for tests."""
    if not x_person:
        raise HTTPException(401, "not signed in", headers={"WWW-Authenticate": "Bearer"})
    return Person(x_person, frozenset(filter(None, x_roles.split(","))))


def make_api(app: Errands) -> FastAPI:
    api = FastAPI()
    api.include_router(errands_router(app, person=signed_in))
    return api


def record(app: Errands) -> int:
    """What the beat does: move all events into the ledger."""
    recorder = Recorder(EventStream(app.valkey, app.keys.events), app.database, name=app.keys.events)
    moved = 0
    while count := recorder.step():
        moved += count
    return moved


def until(ready: Callable[[], Any], seconds: float = 30.0) -> Any:
    """What `ready` returns once it is true."""
    deadline = time.monotonic() + seconds
    while not (found := ready()):
        assert time.monotonic() < deadline, f"not within {seconds:g} s"
        time.sleep(0.02)
    return found


ANN = {"X-Person": "ann"}
BOB = {"X-Person": "bob"}
ROOT = {"X-Person": "root", "X-Roles": "admin"}
