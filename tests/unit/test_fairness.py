"""Whose turn it is: what may be declared, who a run's tenant is; and words of priority."""

from __future__ import annotations

from typing import Any

import pytest

from errands import Errands, Secret
from errands.core.errors import ConfigurationError
from errands.core.fairness import lane, tenant_of
from errands.core.task import level_of, priority_of
from errands.sending import rules


@pytest.fixture
def app() -> Errands:
    return Errands("turns")


@pytest.mark.parametrize(("fair_by", "problem"), [
    ("school", "fair_by='school' names no argument of the task; it has school_id, order"),
    ("", "fair_by='': name an argument"),
    ("order..id", "fair_by='order..id': name an argument"),
    (("school_id",), "name an argument"),
])  # fmt: skip
def test_what_names_no_argument_is_refused_at_the_task(app: Errands, fair_by: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match="task 'serve': ") as caught:

        @app.task(name="serve", fair_by=fair_by)
        def serve(school_id: int, order: dict[str, Any]) -> None: ...

        app.finalize()
    assert problem in str(caught.value)


def test_a_secret_is_no_tenant(app: Errands) -> None:
    with pytest.raises(ConfigurationError, match="task 'serve': fair_by='token' is a secret"):

        @app.task(name="serve", fair_by="token")
        def serve(token: Secret[str]) -> None: ...

        app.finalize()


@pytest.mark.parametrize(("args", "kwargs", "tenant"), [
    ((7,), {}, "7"),
    ((), {"school_id": 7}, "7"),
    ((), {}, "1"),  # the default
    ((None,), {}, ""),
    ((7, 8, 9, 10), {"odd": 1}, "7"),  # a call that does not fit is the worker's to refuse
])  # fmt: skip
def test_the_tenant_is_an_argument(app: Errands, args: Any, kwargs: Any, tenant: str) -> None:
    @app.task(name="serve", fair_by="school_id")
    def serve(school_id: int | None = 1, *, number: int = 0) -> None: ...

    assert rules.tenant(app.tasks["serve"], args, kwargs) == tenant


def test_the_tenant_is_inside_of_an_argument(app: Errands) -> None:
    @app.task(name="serve", fair_by="order.school.id")
    def serve(number: int, order: dict[str, Any]) -> None: ...

    task = app.tasks["serve"]
    assert rules.tenant(task, (1, {"school": {"id": "a"}}), {}) == "a"
    assert rules.tenant(task, (1,), {"order": {"school": None}}) == ""
    assert rules.tenant(task, (1,), {}) == rules.tenant(task, (), {}) == ""


def test_without_the_rule_nobody_is_a_tenant(app: Errands) -> None:
    @app.task(name="serve")
    def serve(school_id: int) -> None: ...

    assert rules.tenant(app.tasks["serve"], (7,), {}) == ""
    assert rules.tenant(None, (7,), {}) == ""


@pytest.mark.parametrize("value", ["x" * 65, "a\0b", "a\x01b", "a\nb", {"a": "x" * 60}, "\ud800"])
def test_what_cannot_stand_in_a_key_is_known_by_a_digest(value: Any) -> None:
    tenant = tenant_of(value)
    assert tenant.startswith("#")
    assert len(tenant) == 33
    assert tenant_of(tenant) == tenant
    assert tenant != tenant_of([value])


def test_a_lane_is_a_level_and_a_tenant() -> None:
    assert lane("high", "a") == "high\x01a"
    assert lane("low", "") == lane("low", None) == lane("low", 7) == "low"
    assert lane("low", "a\x01b").count("\x01") == 1, "whatever somebody writes into a header"


@pytest.mark.parametrize("word", ["high", "normal", "low"])
def test_a_word_is_a_number_of_its_level(word: str) -> None:
    assert level_of(priority_of(word)) == word


def test_numbers_stay_as_they_are_and_other_words_are_refused(app: Errands) -> None:
    assert [priority_of(number) for number in (None, 0, 3, 9)] == [None, 0, 3, 9]
    with pytest.raises(
        ValueError, match="priority='urgent': use 'high', 'normal', 'low' or Celery's numbers"
    ):
        priority_of("urgent")
    for wrong in ("urgent", 10, -1, 2.5):
        with pytest.raises(ConfigurationError, match=r"priority"):
            app.task(name="serve", priority=wrong)(lambda: None)


def test_inline_nothing_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ERRANDS_INLINE", "true")
    app = Errands("inline")

    @app.task(name="serve", fair_by="school_id", priority="high")
    def serve(school_id: int) -> int:
        return school_id

    app.check()
    assert serve.delay(3).get() == 3
    assert serve.apply_async((4,), priority="low").get() == 4
    found = app.live.get(serve.delay(5).id)
    assert found is not None
    assert found.facts["options"]["fair"] == "5"
