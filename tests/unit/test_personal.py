"""Personal data and subjects: who sees them, what is noted, what erasing leaves."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel

from errands import (
    ConfigurationError,
    Errands,
    Keyring,
    Personal,
    Run,
    Secret,
    SecretError,
    Settings,
    Subject,
)
from errands.core.arguments import Arguments
from errands.core.personal import reveal
from errands.core.secrets import is_sealed, mask
from errands.ops.access import ADMIN, PERSONAL_DATA, Person
from errands.ops.erase import Erasing
from errands.ops.errors import NotAllowed
from errands.ops.views import Ops

RING = Keyring.parse(Keyring.new_key())
ADMIN_ = Person("root", frozenset({ADMIN}))
OFFICER = Person("dpo", frozenset({ADMIN, PERSONAL_DATA}))
ANN = Person("ann")


class Address(BaseModel):
    street: Personal[str]
    city: str


@pytest.fixture
def app() -> Errands:
    app = Errands("people", settings=Settings(inline=True, secret_keys=Keyring.new_key()))

    @app.task(name="letter")
    def letter(user_id: Subject[int], address: Address, pin: Secret[str], *, run: Run) -> str:
        run.progress(1, 1, f"to {address.street}")
        return f"sent to {address.street}"

    @app.task(name="plain")
    def plain(word: str) -> str:
        return word

    @app.task(name="leads")
    def leads(user_id: Subject[int]) -> str:
        return str(plain.delay("follows").id)

    return app


def test_personal_data_is_sealed_and_is_no_secret() -> None:
    def task(name: Personal[str], pin: Secret[str]) -> None: ...

    arguments = Arguments("t", task)
    (name, pin), _ = arguments.prepare(("Ann Smith", "123456"), {}, RING)
    assert is_sealed(name)
    assert mask([name, pin]) == ["***", "***"]
    assert reveal([name, {"p": pin}], RING, "t") == ["Ann Smith", {"p": "***"}]
    assert reveal(name, RING, "other") == "***"
    assert reveal(name, Keyring.parse(Keyring.new_key()), "t") == "***"
    assert arguments.restore((name, pin), {}, RING) == (("Ann Smith", "123456"), {})
    with pytest.raises(SecretError):  # one kind does not open as the other
        arguments.restore((pin, name), {}, RING)


def test_admins_are_not_shown_personal_data_and_who_may_is(app: Errands) -> None:
    run = app.tasks["letter"].apply_async(
        (7, {"street": "Elm Street 5", "city": "York"}, "123456"), owner="ann"
    )
    ops = Ops(app)
    for person in (ADMIN_, ANN):
        seen = ops.run(person, run.id)
        assert "Elm" not in str(seen)
        assert "123456" not in str(seen)
    assert ops.run(ADMIN_, run.id)["args"] == [7, {"street": "***", "city": "York"}, "***"]
    seen = ops.run(OFFICER, run.id)
    assert seen["args"] == [7, {"street": "Elm Street 5", "city": "York"}, "***"]
    assert seen["result"] == "sent to ***"
    assert seen["progress"]["note"] == "to ***"


def test_the_right_is_nothing_to_who_is_no_admin() -> None:
    assert not Person("eve", frozenset({PERSONAL_DATA})).sees_personal_data
    assert not ADMIN_.sees_personal_data


def test_a_run_notes_whom_it_is_about(app: Errands) -> None:
    app.tasks["letter"].delay(7, {"street": "x" * 9, "city": "York"}, "123456")
    app.tasks["plain"].delay("word")
    queued = {event.task: event.subject for event in app.live.events if event.kind == "queued"}  # type: ignore[attr-defined]
    assert queued == {"letter": "7", "plain": None}


def test_what_follows_a_run_is_about_the_same_person(app: Errands) -> None:
    app.tasks["leads"].delay(7)
    queued = {event.task: event.subject for event in app.live.events if event.kind == "queued"}  # type: ignore[attr-defined]
    assert queued == {"leads": "7", "plain": "7"}


def test_subjects_by_name_default_and_absence() -> None:
    def task(a: int, user_id: Subject[int | None] = None) -> None: ...

    arguments = Arguments("t", task)
    assert arguments.subject_of((1, 7), {}) == "7"
    assert arguments.subject_of((1,), {"user_id": "7"}) == "7"
    assert arguments.subject_of((1,), {}) is None
    assert arguments.subject_of((), {}) is None


def test_a_subject_that_cannot_be_one_is_refused() -> None:
    def two(a: Subject[int], b: Subject[int]) -> None: ...

    def sealed(a: Subject[Personal[str]]) -> None: ...

    def many(*a: Subject[int]) -> None: ...

    for function in (two, sealed, many):
        with pytest.raises(ConfigurationError, match=r"task .t..*Subject"):
            Arguments("t", function)


# -- erasing, inline


def test_erasing_forgets_runs_of_and_about_a_person(app: Errands) -> None:
    asked: list[Any] = []

    @app.on_erase
    def rows(person: str, run_ids: list[str]) -> int:
        asked.append((person, run_ids))
        return 3

    mine = app.tasks["plain"].apply_async(("word",), owner="7")
    about = app.tasks["letter"].apply_async((7, {"street": "Elm 5", "city": "York"}, "123456"), owner="ann")
    other = app.tasks["plain"].apply_async(("word",), owner="70")
    erasing = Erasing(app)
    assert erasing.erase_person(ADMIN_, "7", dry_run=True)["runs"] == 2
    assert not asked
    answer = erasing.erase_person(ADMIN_, "7")
    assert (answer["runs"], list(answer["erasers"].values())) == (2, [3])
    assert asked == [("7", [mine.id, about.id])]
    assert app.live.get(mine.id) is None
    assert app.live.get(about.id) is None
    assert app.live.get(other.id) is not None
    assert not [event for event in app.live.events if event.run_id in (mine.id, about.id)]  # type: ignore[attr-defined]
    assert erasing.erase_person(ADMIN_, "7")["runs"] == 0


def test_only_admins_erase(app: Errands) -> None:
    with pytest.raises(NotAllowed):
        Erasing(app).erase_person(ANN, "ann")
