"""What the decorator of a task is told: our rules among Celery's options, and what of it cannot be meant."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from errands.core.arguments import secrets_among
from errands.core.errors import ConfigurationError
from errands.core.limits import Concurrency, Limit
from errands.core.paths import hints_of, values_of
from errands.core.retry import Retry
from errands.core.task import Rules, priority_of
from errands.core.unique import Unique

_SAID_AS: dict[type, str] = {Unique: "unique", Limit: "limit", Concurrency: "at_most", Retry: "retry"}
_OURS = ("queue", "retry", "unique", "at_most", "fair_by", "deadline", "offload")


def take_rules(task: str, options: dict[str, Any]) -> Rules:
    """Our rules out of the options of a task; what is left is Celery's.

    Raises:
        ConfigurationError: a word of priority that there is not; `aliases` is no list.
    """
    limits, aliases = options.pop("limit", ()), options.pop("aliases", ())
    if isinstance(aliases, str) or not all(isinstance(alias, str) for alias in _listed(aliases)):
        raise ConfigurationError(f"task {task!r}: aliases={aliases!r}: use a list of older names")
    try:
        priority = priority_of(options.pop("priority", None))
    except ValueError as exc:
        raise ConfigurationError(f"task {task!r}: {exc}") from exc
    return Rules(
        priority=priority, aliases=tuple(_listed(aliases)), limits=tuple(_listed(limits)),
        **{word: options.pop(word) for word in _OURS if word in options},
    )  # fmt: skip


def check_options(task: str, options: Mapping[str, Any], longest: float) -> None:
    """Refuse Celery's options where they contradict themselves, and rules under a word that nobody reads.

    Args:
        task: its name.
        options: what is left by `take_rules`.
        longest: the hard time limit of tasks that say none, in seconds.

    Raises:
        ConfigurationError: it names the task and the option.
    """
    for word, value in options.items():
        for each in _listed(value):
            if (meant := _SAID_AS.get(type(each))) is not None:
                raise ConfigurationError(
                    f"task {task!r}: there is no rule {word!r}, and {word}={each!r} would do nothing: "
                    f"say {meant}={each!r}"
                )
    soft, hard = (_seconds(task, word, options.get(word)) for word in ("soft_time_limit", "time_limit"))
    if soft is not None and soft > (longest if hard is None else hard):
        told = (
            f"time_limit={options['time_limit']}" if hard is not None else f"ERRANDS_TIME_LIMIT ({longest:g})"
        )
        raise ConfigurationError(
            f"task {task!r}: soft_time_limit={soft:g} is longer than {told}; the soft limit comes first"
        )
    if not isinstance(options.get("expires"), datetime):
        _seconds(task, "expires", options.get("expires"))


def check_rules(task: str, rules: Rules, function: Callable[..., Any], *, skip_first: bool) -> None:
    """Refuse rules that cannot work for `function`, as far as its type hints can be read by now.

    Raises:
        ConfigurationError: it names the task and the rule.
    """
    parameters = list(inspect.signature(function).parameters.values())[skip_first:]
    hints = hints_of(function)
    names = [parameter.name for parameter in parameters]
    rules.check(task, names, secrets_among(hints), values_of(parameters, hints))


def _seconds(task: str, word: str, value: Any) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise ConfigurationError(f"task {task!r}: {word}={value!r}: use seconds, more than 0")
    return value


def _listed(value: Any) -> list[Any] | tuple[Any, ...]:
    return value if isinstance(value, list | tuple) else (value,)
