"""The options of a call, held against what they can mean, before anything is made of them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from errands.core.errors import InvalidArguments
from errands.core.limits import Concurrency, Limit
from errands.core.retry import Retry
from errands.core.task import priority_of

_LONGEST = 100 * 366 * 86_400.0  # seconds: past some thousand years no calendar goes on
_TIMES = ("countdown", "expires", "time_limit", "soft_time_limit")
_OF_TASKS = (Limit, Concurrency, Retry)


def checked(name: str, options: dict[str, Any]) -> dict[str, Any]:
    """The options of a call of `name`, with a priority that is a word as Celery's number.

    Raises:
        InvalidArguments: a time is none, a word of priority is none, or a rule is given that only a task has.
    """
    for word in options.keys() & _TIMES:
        value = options[word]
        if value is not None and not (word == "expires" and isinstance(value, datetime | str)):
            _check_seconds(name, word, value)
    for word in ("eta", "expires"):
        if isinstance(options.get(word), str):
            _check_moment(name, word, options[word])
    if not isinstance(options.get("eta"), datetime | str | None):
        _refuse(name, f"eta={options['eta']!r}: use a datetime, or countdown=seconds")
    _check_limits(name, options)
    for word, value in options.items():
        if isinstance(value, _OF_TASKS) or (word == "fair_by" and value is not None):
            _refuse(name, f"{word}={value!r} is a rule of tasks, and no call can have one of its own")
    if not isinstance(options.get("priority"), str):
        return options
    try:
        return {**options, "priority": priority_of(options["priority"])}
    except ValueError as exc:
        raise InvalidArguments(name, [str(exc)]) from exc


def moment_of(value: Any, now: float) -> float | None:
    """A time of a call in seconds since 1970: seconds from `now`, a datetime or its ISO form (UTC without a
    zone); None where there is none."""
    if value is None or isinstance(value, int | float):
        return None if value is None else now + value
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return float((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _check_seconds(name: str, word: str, value: Any) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LONGEST < value < _LONGEST:
        more = ", or a datetime" if word == "expires" else ""
        _refuse(name, f"{word}={value!r}: use seconds{more}")


def _check_moment(name: str, word: str, value: str) -> None:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        _refuse(name, f"{word}={value!r}: use a datetime, or its ISO form")


def _check_limits(name: str, options: Mapping[str, Any]) -> None:
    soft, hard = options.get("soft_time_limit"), options.get("time_limit")
    for word, value in (("soft_time_limit", soft), ("time_limit", hard)):
        if value is not None and value <= 0:
            _refuse(name, f"{word}={value!r}: use seconds, more than 0")
    if soft is not None and hard is not None and soft > hard:
        _refuse(
            name, f"soft_time_limit={soft!r} is longer than time_limit={hard!r}; the soft limit comes first"
        )


def _refuse(name: str, problem: str) -> None:
    raise InvalidArguments(name, [problem])
