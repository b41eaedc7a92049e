"""One run for what is the same work: which requests are the same, and what a second one gets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from errands.core.errors import ConfigurationError
from errands.core.paths import dead_end
from errands.core.states import FINAL, OPEN, State

KEEP, REPLACE, DEBOUNCE = "keep", "replace", "debounce"
_CHOICES = (KEEP, REPLACE, DEBOUNCE)
WAITING = frozenset({State.SCHEDULED, State.QUEUED, State.RETRYING})
_LONGEST = 100 * 366 * 86_400  # seconds
_encode = json.JSONEncoder(sort_keys=True, separators=(",", ":"), default=str).encode


@dataclass(frozen=True, slots=True)
class Unique:
    """A second request for the same work gets the run of the first one, its id included.

    Two requests of a task are the same where the arguments that `by` names are: as JSON, after they were
    checked, defaults included.

    Args:
        by: names of arguments; with dots into one (`"order.id"`). None: all that are not secret.
        within: seconds since the first request was accepted for which its run stands for others. None: as
            long as it is in one of the states of `while_`.
        while_: the states of the first run in which it stands for others. By default all but the final ones;
            with `replace` and `debounce`, those in which it waits for a worker, since a run that is at work
            takes no new arguments. Final states, for "not again within the hour", need `within`.
        on_conflict: what a second request does. `"keep"`: nothing. `"replace"`: a run that waits takes the
            new arguments. `"debounce"`: the same, and its start is put off again.
        wait: with `debounce`, seconds from the newest request to the start.
        most: with `debounce`, seconds from the first request to the start at the most; None: no end.
    """

    by: str | Collection[str] | None = None
    within: float | None = None
    while_: Collection[State | str] | None = None
    on_conflict: str = KEEP
    wait: float | None = None
    most: float | None = None

    def __post_init__(self) -> None:
        # Lists and sets do as well as tuples; the rule itself is a value, and has to stay the same.
        for name in ("by", "while_"):
            given = getattr(self, name)
            if isinstance(given, Iterable) and not isinstance(given, str):
                object.__setattr__(
                    self, name, tuple(sorted(given) if isinstance(given, AbstractSet) else given)
                )

    @property
    def names(self) -> tuple[str, ...]:
        """What `by` names; () for all arguments."""
        return (self.by,) if isinstance(self.by, str) else tuple(self.by or ())

    @property
    def states(self) -> frozenset[State]:
        """The states in which a run stands for later requests."""
        if self.while_ is None:
            return OPEN if self.on_conflict == KEEP else WAITING
        given = (self.while_,) if isinstance(self.while_, str) else self.while_
        return frozenset(State(state) for state in given)

    @property
    def replaces(self) -> bool:
        """Whether a second request has a say in what the first one's run does."""
        return self.on_conflict != KEEP

    def check(
        self, task: str, parameters: Collection[str], secrets: Collection[str] = (),
        hints: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Refuse a rule that cannot work for `task`.

        Args:
            task: its name.
            parameters: of its function, by name.
            secrets: those of them that are secret.
            hints: their type hints, by name.

        Raises:
            ConfigurationError: it names the task and what is wrong.
        """
        for problem in (
            self._wrong_names(parameters, secrets, hints or {}), self._wrong_states(), self._wrong_choice(),
        ):  # fmt: skip
            if problem:
                raise ConfigurationError(f"task {task!r}: unique: {problem}")

    def _wrong_names(
        self, parameters: Collection[str], secrets: Collection[str], hints: Mapping[str, Any]
    ) -> str | None:
        if self.by is not None and not isinstance(self.by, str | tuple):
            return f"by={self.by!r}: use names of arguments"
        if self.by is not None and not self.names:
            return "by names no argument; leave it out to compare all of them"
        for name in self.names:
            if not isinstance(name, str) or not all(name.split(".")):
                return f"by={name!r}: use names of arguments"
            argument = name.partition(".")[0]
            if argument not in parameters:
                return f"by={name!r} names no argument; the task takes {', '.join(parameters) or 'none'}"
            if argument in secrets:
                return f"by={name!r} is a secret, which is never compared; name another argument"
            if why := dead_end(name, hints):
                return f"by={name!r} leads nowhere: {why}"
        return None

    def _wrong_states(self) -> str | None:
        if self.within is not None and not is_time(self.within):
            return f"within={self.within!r}: use seconds above 0"
        if self.while_ is not None and not isinstance(self.while_, str | tuple):
            return f"while_={self.while_!r}: use states: {', '.join(State)}"
        try:
            states = self.states
        except ValueError as exc:
            return f"while_: {exc}; use {', '.join(State)}"
        if not states:
            return "while_ names no state, so that no run would ever stand for another"
        final = sorted(states & FINAL)
        if final and self.within is None:
            return (
                f"while_ names {', '.join(final)}, which a run never leaves: say with within=seconds how "
                "long it stands for others"
            )
        return None

    def _wrong_choice(self) -> str | None:
        if self.on_conflict not in _CHOICES:
            return f"on_conflict={self.on_conflict!r}: use {', '.join(map(repr, _CHOICES))}"
        debounces = self.on_conflict == DEBOUNCE
        if not debounces and (self.wait is not None or self.most is not None):
            return f"wait and most belong to on_conflict='debounce', not to {self.on_conflict!r}"
        if debounces and not is_time(self.wait):
            return f"on_conflict='debounce' needs wait=seconds above 0, not {self.wait!r}"
        if self.most is not None and not (is_time(self.most) and self.most >= (self.wait or 0)):
            return f"most={self.most!r}: use seconds, and not less than wait={self.wait!r}"
        if self.on_conflict == REPLACE and self.by is None:
            return (
                "on_conflict='replace' needs by: where all arguments are the same there is nothing to replace"
            )
        if self.replaces and not self.states & WAITING:
            return f"on_conflict={self.on_conflict!r} needs a state in while_ in which a run waits"
        return None

    def key(self, task: str, values: Mapping[str, Any]) -> str:
        """What is the same for all requests of the same work: the task's name and a digest.

        Args:
            values: the arguments as JSON has them, by name, defaults included and secrets left out.
        """
        compared = {name: _at(values, name) for name in self.names} if self.names else values
        digest = hashlib.blake2b(_encode(compared).encode(), digest_size=16).hexdigest()
        return f"{task}:{digest}"


def is_time(seconds: Any) -> bool:
    """Whether that can be a time: seconds, more than 0 and less than a hundred years."""
    return not isinstance(seconds, bool) and isinstance(seconds, int | float) and 0 < seconds < _LONGEST


def _at(values: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path; None where the way ends before."""
    value: Any = values
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
