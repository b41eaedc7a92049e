"""The demo of the school, as far as it goes without one: what it uploads, and how it tells that it failed."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import phonenumbers
import pytest
from PIL import Image
from pydantic import ValidationError
from rich.console import Console
from typer import Typer
from typer.testing import CliRunner

from school.demo import making
from school.demo.__main__ import main, walk
from school.demo.chapter import Chapter, Steps
from school.demo.client import DemoError, School, wait_for
from school.demo.screen import Step, draw, keep
from school.demo.services import MESSAGES, NO_NUMBER, TWICE, numbers
from school.students.lists import STUDENTS_IN, StudentRow
from web import response, web

program = Typer()
program.command()(main)


class Story(Chapter):
    """Three steps, of which the second does what a test wants."""

    title = "A story"

    def __init__(self, second: Callable[[], str]) -> None:
        self.second = second

    def steps(self) -> Steps:
        return [("First", lambda: "well"), ("Second", self.second), ("Third", lambda: "never")]


def fail(error: Exception) -> Callable[[], str]:
    def step() -> str:
        raise error

    return step


@pytest.mark.parametrize(
    ("error", "words"),
    [(DemoError("it came to 7"), "it came to 7"), (httpx.ReadTimeout(""), "ReadTimeout")],
)
def test_a_step_that_fails_ends_the_walk_and_says_why(error: Exception, words: str) -> None:
    chapter = Story(fail(error))
    steps = [Step(title) for title, _ in chapter.steps()]
    assert not walk(chapter, steps, lambda: None)
    assert [(step.state, step.told) for step in steps] == [
        ("done", "well"),
        ("failed", words),
        ("waiting", ""),
    ]


def test_how_far_a_step_is_is_drawn_as_a_bar() -> None:
    seen: list[str] = []

    def second() -> str:
        chapter.tell("[half]", 40, 80)
        return "all"

    chapter = Story(second)
    steps = [Step(title) for title, _ in chapter.steps()]

    def refresh() -> None:
        console = Console(width=100, file=io.StringIO(), record=True)
        console.print(draw(chapter.title, steps))
        seen.append(console.export_text())

    assert walk(chapter, steps, refresh)
    [half] = [text for text in seen if "40 of 80  [half]" in text]
    assert "━" * 16 in half
    assert "of 80" not in seen[-1]
    assert steps[1].as_dict("A story").keys() == {"chapter", "title", "state", "told", "seconds"}


def test_the_picture_has_all_chapters(tmp_path: Path) -> None:
    tables = [draw(title, [Step("Step", "done", "well", 1.5)]) for title in ("One", "Two")]
    keep(tables, tmp_path / "demo.svg")
    drawn = (tmp_path / "demo.svg").read_text()
    assert all(word in drawn for word in ("One", "Two", "1,500"))


def test_without_a_school_it_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRANDS_HOME", str(tmp_path))
    nothing = CliRunner().invoke(program, ["--json"])
    assert nothing.exit_code == 1
    assert "make up" in nothing.stderr
    (tmp_path / "access.json").write_text(json.dumps({"url": "http://127.0.0.1:1"}))
    silent = CliRunner().invoke(program, [])
    assert (silent.exit_code, "make up" in silent.stdout) == (1, True)


def test_a_school_that_answers_nonsense_is_told_as_a_failed_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ERRANDS_HOME", str(tmp_path))
    with web() as server:
        server.pages["/healthz"] = response(b"{}", "application/json")
        server.pages["/login"] = response(b'{"detail": "broken"}', "application/json", status=500)
        access = {
            "url": server.url(""),
            "admin_email": "a",
            "admin_password": "b",
            "webhooks_url": "http://x",
        }
        (tmp_path / "access.json").write_text(json.dumps(access))
        ended = CliRunner().invoke(program, ["--json"])
    answer: dict[str, Any] = json.loads(ended.stdout)
    assert (ended.exit_code, answer["ok"]) == (1, False)
    assert answer["steps"][0]["state"] == "failed"
    assert "POST /login answered 500" in answer["steps"][0]["told"]
    assert {step["state"] for step in answer["steps"][1:]} == {"waiting"}


def test_a_run_that_failed_fails_the_step(tmp_path: Path) -> None:
    with web() as server:
        server.pages["/healthz"] = response(b"{}", "application/json")
        (tmp_path / "access.json").write_text(json.dumps({"url": server.url("")}))
        seen = {"status": "failed", "error": "The task failed (OSError).", "result": None}
        server.pages["/api/tasks/1/progress"] = response(json.dumps(seen).encode(), "application/json")
        with School(tmp_path) as school, pytest.raises(DemoError, match="OSError"):
            school.result("1", "token")


def test_what_never_happens_is_not_waited_for_forever() -> None:
    with pytest.raises(DemoError, match="the end did not happen within 0 s"):
        wait_for(lambda: None, "the end", seconds=0)


def test_the_list_has_as_many_good_and_bad_rows_as_it_says() -> None:
    rows = list(csv.DictReader(io.StringIO(making.students().decode())))
    bad = 0
    for row in rows:
        given = {"email": row["email"], "full_name": row["full name"], "is_active": row["active"]}
        try:
            StudentRow.model_validate({name: value for name, value in given.items() if value})
        except ValidationError:
            bad += 1
    assert (bad, len(rows) - bad) == (making.BAD, making.GOOD)
    assert STUDENTS_IN.threshold.too_many_refused(bad, len(rows)) is None
    assert making.students() == making.students()


def test_the_photo_and_the_letter_are_pictures() -> None:
    photo, letter = (Image.open(io.BytesIO(made)) for made in (making.photo(), making.letter()))
    assert (photo.format, photo.size, photo.getexif()[0x0112]) == ("JPEG", (3000, 2000), 6)
    assert (letter.format, letter.mode) == ("PNG", "L")


def test_the_numbers_are_nobodys_and_the_right_ones_are_skipped() -> None:
    given = numbers()
    good = {
        phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
        for number in (phonenumbers.parse(each, None) for each in given)
        if phonenumbers.is_valid_number(number)
    }
    assert (len(given), len(good)) == (MESSAGES, MESSAGES - TWICE - NO_NUMBER)
    # Ofcom: "Telephone numbers for use in TV and radio drama programmes"
    assert all(number.startswith(("+442079460", "+441134960")) for number in good)
