"""How the command line finds an application and its seed, and what it says when it does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from celery import Celery
from typer.testing import CliRunner

from errands.core.secrets import Keyring
from errands.doors.cli.application import declared_queues, load_app, queues_by_kind
from errands.doors.cli.program import cli
from errands.doors.local.errors import LocalRunError
from errands.doors.local.prepare import run_seed

MODULE = """
import os, json
from celery import Celery
app = Celery("plain", set_as_current=False)
text = "no application"

@app.task(name="send", queue="emails")
def send(): ...

def seed():
    return {"admin_email": "a@example.com"}

async def seed_async():
    return {"admin_email": "async@example.com"}

def seed_file():
    with open(os.environ["ERRANDS_SEED_FILE"], "w") as file:
        json.dump({"admin_password": "from the file"}, file)

def seed_broken():
    raise AttributeError("a mistake of its own")
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    (folder / "plain_project.py").write_text(MODULE)
    (folder / "needs_more.py").write_text("import a_package_that_is_not_there")
    return folder


@pytest.fixture(autouse=True)
def _importable(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(project))
    monkeypatch.setenv("ERRANDS_SEED_FILE", "unused")


def test_a_plain_celery_application_is_loaded_with_its_queues() -> None:
    app = load_app("plain_project:app")
    assert isinstance(app, Celery)
    assert declared_queues(app) == ["celery", "emails"]
    assert queues_by_kind(app) == {"io": ["celery", "emails"], "cpu": []}


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("nowhere:app", "There is no module nowhere"),
        ("nowhere.tasks:app", r"There is no module nowhere\.tasks"),
        ("plain_project:missing", "The module plain_project has nothing called 'missing'"),
        ("plain_project:text", "'plain_project:text' is no application but a str"),
    ],
)
def test_what_is_no_application_is_told_in_one_line(reference: str, told: str) -> None:
    with pytest.raises(LocalRunError, match=told) as refusal:
        load_app(reference)
    assert "\n" not in str(refusal.value)


def test_a_mistake_inside_the_application_keeps_its_traceback() -> None:
    with pytest.raises(ModuleNotFoundError, match="a_package_that_is_not_there"):
        load_app("needs_more:app")


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("seed", {"admin_email": "a@example.com"}),
        ("seed_async", {"admin_email": "async@example.com"}),
        ("seed_file", {"admin_password": "from the file"}),
    ],
)
def test_a_seed_gives_fields_for_the_access_file(tmp_path: Path, name: str, fields: dict[str, Any]) -> None:
    file = tmp_path / "seed.json"
    assert run_seed(f"plain_project:{name}", file) == fields
    assert not file.exists()


def test_a_seed_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(LocalRunError, match="seed 'plain_project:missing' cannot be imported"):
        run_seed("plain_project:missing", tmp_path / "seed.json")


def test_a_mistake_inside_the_seed_keeps_its_traceback(tmp_path: Path) -> None:
    with pytest.raises(AttributeError, match="a mistake of its own"):
        run_seed("plain_project:seed_broken", tmp_path / "seed.json")


def test_a_worker_for_an_unknown_queue_is_refused_by_name() -> None:
    result = CliRunner().invoke(cli, ["worker", "--app", "plain_project:app", "--queues", "default"])
    assert isinstance(result.exception, LocalRunError)
    assert str(result.exception) == "No task uses the queue 'default'; declared are: celery, emails."


def test_a_command_without_application_says_how_to_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ERRANDS_APP", raising=False)
    result = CliRunner().invoke(cli, ["beat"])
    assert isinstance(result.exception, LocalRunError)
    assert "--app MODULE:NAME" in str(result.exception)


def test_a_new_key_is_one_that_the_settings_read() -> None:
    key = CliRunner().invoke(cli, ["keys", "new", "--id", "k2"]).output
    assert key.startswith("k2:")
    assert Keyring.parse(key)


def test_version() -> None:
    assert CliRunner().invoke(cli, ["version"]).output.startswith("errands ")
