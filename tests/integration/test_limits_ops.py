"""Limits as people see and change them: for admins, in the audit trail, over HTTP and on the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select
from typer.testing import CliRunner

from errands import Concurrency, Errands, Limit, Settings
from errands.core.errors import ActionRefused
from errands.doors.cli import application
from errands.doors.cli.program import cli
from errands.doors.fastapi import Person, errands_router
from errands.ops.errors import NotAllowed
from errands.ops.limits import LimitOps
from errands.ops.views import Ops
from errands.store.engine import Database
from errands.store.tables import audit

ADMIN = Person("ada", frozenset({"admin"}))


@pytest.fixture
def app(valkey_url: str, sqlite_database: Database, tmp_path: Path) -> Errands:
    url = sqlite_database.url.render_as_string(hide_password=False)
    app = Errands("limits", settings=Settings(broker_url=valkey_url, database_url=url, home=tmp_path))

    @app.task(name="mail.send", queue="mail", limit=Limit("100/m", by="school_id"), at_most=Concurrency(2))
    def send(school_id: int) -> None: ...

    return app


def audited(app: Errands) -> list[tuple[Any, ...]]:
    with app.database.reading() as connection:
        rows = connection.execute(select(audit.c.actor, audit.c.action, audit.c.target, audit.c.reason))
        return [tuple(row) for row in rows]


def test_admins_change_limits_and_it_is_written_down(app: Errands) -> None:
    ops = LimitOps(app)
    assert ops.change(ADMIN, "mail.send", "50/m", reason="gateway is slow") == {
        "name": "mail.send",
        "now": "50/m",
    }
    assert {(each["declared"], each["now"], each["changed"], each["waiting"]) for each in ops.all(ADMIN)} == {
        ("100/m", "50/m", True, 0),
        ("2 at once", "2 at once", False, 0),
    }
    ops.reset(ADMIN, "mail.send")
    assert not any(each["changed"] for each in ops.all(ADMIN))
    assert audited(app) == [
        ("ada", "limit.change", "mail.send", "gateway is slow"),
        ("ada", "limit.reset", "mail.send", None),
    ]


def test_nobody_else_does_and_what_is_refused_is_not_written_down(app: Errands) -> None:
    ops, somebody = LimitOps(app), Person("bob")
    for deed in (
        ops.all,
        lambda who: ops.change(who, "mail.send", 3),
        lambda who: ops.reset(who, "mail.send"),
    ):
        with pytest.raises(NotAllowed):
            deed(somebody)
    with pytest.raises(ActionRefused, match="limit of zero"):
        ops.change(ADMIN, "mail.send", "0/m")
    assert audited(app) == []


def test_over_http(app: Errands) -> None:
    web = FastAPI()
    web.include_router(errands_router(app, lambda: ADMIN))
    client = TestClient(web)
    assert client.post("/api/limits/mail.send/change", json={"to": 3, "reason": "x"}).status_code == 202
    assert client.post("/api/limits/mail.send/change", json={"to": "9/m"}).json() == {
        "name": "mail.send",
        "now": "9/m",
    }
    assert {each["now"] for each in client.get("/api/limits").json()} == {"9/m", "3 at once"}
    assert client.post("/api/limits/mail.send/reset").status_code == 202
    assert client.post("/api/limits/nobody/change", json={"to": 3}).status_code == 404
    assert client.post("/api/limits/mail.send/change", json={"to": 0}).status_code == 409
    assert [row[1] for row in audited(app)] == ["limit.change", "limit.change", "limit.reset"]


def test_on_the_command_line(app: Errands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(application, "load_app", lambda name: app)

    def said(*words: str) -> str:
        result = CliRunner().invoke(cli, ["limits", *words], env={"ERRANDS_APP": "x:app"})
        assert result.exit_code == 0, result.output
        return result.output

    assert "mail.send: 100/m by school_id\n" in said()
    assert said("change", "mail.send", "50/m", "--reason", "slow") == "mail.send: 50/m.\n"
    assert "mail.send: 50/m by school_id (the code says 100/m)\n" in said()
    assert {each["now"] for each in json.loads(said("--json"))} == {"50/m", "2 at once"}
    said("reset", "mail.send")
    assert audited(app)[0][0].startswith("cli:")


def test_a_run_says_what_it_waits_for(app: Errands) -> None:
    from errands.core.events import Event, Kind

    run_id = app.tasks["mail.send"].delay(5).id
    note = "waits for its limit 100/m (school_id=5)"
    app._live_runs.record(Event(kind=Kind.LIMITED, run_id=run_id, at=100.0, note=note))
    found = Ops(app).run(ADMIN, run_id)
    assert (found["state"], found["waits_for"]) == ("queued", note)
    app._live_runs.record(Event(kind=Kind.STARTED, run_id=run_id, at=101.0), hop=0)
    assert Ops(app).run(ADMIN, run_id)["waits_for"] is None
