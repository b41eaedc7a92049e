"""The times of a call, as its message and its event tell them: when it is due, when it is over."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from errands import Errands, Settings, Unique
from errands.core.options import moment_of
from errands.sending.terms import Terms

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
AT = NOW.timestamp()
HOUR = 3600.0


@pytest.fixture
def app(tmp_path: Path) -> Errands:
    settings = Settings(home=tmp_path, broker_url="redis://127.0.0.1:1/0")
    return Errands("times", settings=settings, set_as_current=False)


def when(app: Errands, options: dict[str, Any], deadline: float | None = None, **rules: Any) -> Any:
    name = f"later-{len(app.tasks)}"

    @app.task(name=name, **rules)
    def later() -> None: ...

    terms = Terms(app.plan, name, app.tasks[name], options, "celery", None)
    return terms.when(AT, None if deadline is None else AT + deadline)


@pytest.mark.parametrize(
    ("options", "due", "wait"),
    [
        ({}, None, None),
        ({"countdown": 90}, 90.0, 90),
        ({"countdown": 400 * 24 * HOUR}, 400 * 24 * HOUR, 400 * 24 * HOUR),
        ({"countdown": 0}, None, None),
        ({"eta": NOW + timedelta(days=30)}, 30 * 24 * HOUR, None),
        ({"eta": (NOW + timedelta(hours=1)).isoformat()}, HOUR, None),
        ({"eta": NOW.replace(tzinfo=None) + timedelta(hours=1)}, HOUR, None),  # without a zone: UTC
        ({"eta": datetime(2026, 1, 1, 15, tzinfo=timezone(timedelta(hours=2)))}, HOUR, None),
    ],
)
def test_when_it_is_due(app: Errands, options: dict[str, Any], due: float | None, wait: float | None) -> None:
    """`wait` is what the server counts by its own clock; an ETA is a time of day."""
    told = when(app, options)
    assert (told.due, told.wait) == (None if due is None else AT + due, wait)


@pytest.mark.parametrize(
    ("options", "deadline", "ends"),
    [
        ({"expires": 60}, None, 60.0),
        ({"expires": NOW + timedelta(hours=2)}, None, 2 * HOUR),
        ({"expires": (NOW + timedelta(hours=2)).isoformat()}, None, 2 * HOUR),
        ({"countdown": 30, "expires": 60}, None, 60.0),  # counts from the call
        ({}, 100, 100.0),
        ({"expires": 60}, 100, 60.0),  # what comes first
        ({"expires": 200}, 100, 100.0),
        ({"expires": NOW - timedelta(hours=1)}, None, -HOUR),
    ],
)
def test_when_it_is_over(app: Errands, options: dict[str, Any], deadline: float | None, ends: float) -> None:
    told = when(app, options, deadline)
    assert told.ends == AT + ends
    assert datetime.fromisoformat(told.expires) == NOW + timedelta(seconds=ends)
    assert told.expiration == str(int(1000 * max(ends, 0)))


def test_a_debounced_call_is_put_off_unless_it_says_a_time_itself(app: Errands) -> None:
    rule: dict[str, Any] = {"unique": Unique(on_conflict="debounce", wait=5)}
    assert when(app, {}, **rule).due == AT + 5
    assert when(app, {"countdown": 60}, **rule).due == AT + 60
    assert when(app, {"eta": NOW + timedelta(hours=1)}, **rule).due == AT + HOUR


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        (None, None), (60, AT + 60), (0.5, AT + 0.5), (NOW + timedelta(hours=1), AT + HOUR),
        ((NOW + timedelta(hours=1)).isoformat(), AT + HOUR), ("2026-01-01T13:00:00", AT + HOUR),
    ],
)  # fmt: skip
def test_a_time_of_a_call_as_a_moment(value: Any, moment: float | None) -> None:
    assert moment_of(value, AT) == moment
