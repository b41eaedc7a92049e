"""What keeps processes small, and how the command line tells them to log."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from celery import Celery
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Session

from errands import Errands, Settings
from errands.doors.cli.application import log_level
from errands.store.sessions import is_session
from errands.task import session_parameter
from errands.worker.resources import Resources
from processes import ROOT


def test_the_parent_of_several_workers_imports_the_standard_library_alone() -> None:
    listing = "import errands.doors.cli.supervisor, json, sys; print(json.dumps(list(sys.modules)))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    output = subprocess.run([sys.executable, "-c", listing], env=environment, check=True, capture_output=True)
    modules = {name.partition(".")[0] for name in json.loads(output.stdout)}
    # What starts with an underscore may be a file that pip left for the start of any Python.
    assert {name for name in modules if not name.startswith("_")} - sys.stdlib_module_names == {"errands"}
    assert "asyncio" not in modules


def test_sessions_are_known_by_name() -> None:
    class Other(Session): ...

    assert is_session(Session)
    assert is_session(AsyncSession)
    assert not is_session(Other)
    assert not is_session("sqlalchemy.orm.session.Session")
    assert not is_session(list[Session])

    def by_session(session: Session, x: int) -> None: ...

    def by_number(x: int, session: Session) -> None: ...

    assert session_parameter(by_session) == "session"
    assert session_parameter(by_number) is None


def test_a_resource_under_its_name_is_found_by_its_type() -> None:
    resources = Resources()
    resources.provide("decimal.Decimal", lambda: 1, scope="process")
    from decimal import Decimal

    assert resources.has(Decimal)
    assert resources.instance(Decimal) == 1
    with resources.replaced(Decimal, 2):
        assert resources.instance(Decimal) == 2
    assert resources.instance(Decimal) == 1
    resources.provide(Decimal, lambda: 3, scope="process")
    assert resources.instance(Decimal) == 3


@pytest.mark.parametrize(
    ("given", "configured", "expected"),
    [(None, "ERROR", "ERROR"), ("WARNING", "ERROR", "WARNING"), ("DEBUG", "INFO", "DEBUG")],
)
def test_the_log_level_of_the_command_line_wins(given: str | None, configured: str, expected: str) -> None:
    app = Errands("t", settings=Settings(log_level=configured), set_as_current=False)
    assert log_level(app, given) == expected
    assert app.settings.log_level == expected


def test_a_plain_application_logs_as_the_command_line_or_the_environment_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = Celery("plain", set_as_current=False)
    monkeypatch.delenv("ERRANDS_LOG_LEVEL", raising=False)
    assert log_level(app, None) == "INFO"
    monkeypatch.setenv("ERRANDS_LOG_LEVEL", "ERROR")
    assert log_level(app, None) == "ERROR"
    assert log_level(app, "DEBUG") == "DEBUG"
