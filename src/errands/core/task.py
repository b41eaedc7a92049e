"""What a task declares about itself."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from errands.core.errors import ConfigurationError
from errands.core.fairness import check_fair_by
from errands.core.limits import Concurrency, Limit, Rule, check_all
from errands.core.retry import Retry
from errands.core.unique import Unique, is_time

NO_RETRY = Retry(times=0)

# Urgent first. What a message without a priority, or with 0 (as plain Celery writes it), gets is "normal".
LEVELS = ("high", "normal", "low")
_NUMBERS = {"high": 9, "normal": 5, "low": 1}


def level_of(priority: int | None) -> str:
    """The level of a message with Celery's `priority`: 1-3 low, 4-6 normal, 7-9 high; 0 and None normal."""
    if not priority or 4 <= priority <= 6:
        return "normal"
    return "low" if priority < 4 else "high"


def priority_of(priority: int | str | None) -> int | None:
    """Celery's number for a priority that was said by a number or by a word: high is 9, normal 5, low 1.

    Raises:
        ValueError: there is no such word.
    """
    if not isinstance(priority, str):
        return priority
    if priority not in _NUMBERS:
        raise ValueError(
            f"priority={priority!r}: use {', '.join(map(repr, LEVELS))} or Celery's numbers, 0 to 9"
        )
    return _NUMBERS[priority]


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue that the app declares.

    Args:
        name: as workers are asked for it (`-Q name`).
        cpu: its tasks compute rather than wait; such a queue is served by few processes that fetch one
            message at a time.
    """

    name: str
    cpu: bool = False

    def __post_init__(self) -> None:
        if not self.name or any(char in self.name for char in ",;\x06\x16 "):
            raise ConfigurationError(f"queue name {self.name!r}: use a name without commas or spaces")


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules of one task, beside Celery's own options.

    Args:
        queue: where its messages wait; None for the app's default queue.
        priority: of its messages, 0 to 9; 9 goes first. See `priority_of` for words.
        retry: when and how often it is tried again; None leaves retries to Celery's options.
        aliases: older names that messages may still carry.
        unique: what a second request for the same work gets.
        limits: how often it may start, over all workers.
        at_most: how many of its runs may be at work at once, over all workers.
        fair_by: the argument that tells whose run it is; those who ask for much wait for themselves alone.
        deadline: seconds after its acceptance at which a run is over, whatever it does.
        offload: arguments that are too large for a message go to the store of payloads.
    """

    queue: str | None = None
    priority: int | None = None
    retry: Retry | None = None
    aliases: tuple[str, ...] = ()
    unique: Unique | None = None
    limits: tuple[Limit, ...] = ()
    at_most: Concurrency | None = None
    fair_by: str | None = None
    deadline: float | None = None
    offload: bool = False

    def check(
        self, task: str, parameters: Collection[str], secrets: Collection[str] = (),
        hints: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Refuse rules that cannot work for a task with these parameters.

        Args:
            task: its name.
            parameters: of its function, by name.
            secrets: those of them that are secret.
            hints: their type hints, by name, as far as they are known.

        Raises:
            ConfigurationError: it names the task and the rule.
        """
        for problem in self._wrong_values():
            raise ConfigurationError(f"task {task!r}: {problem}")
        if self.unique is not None:
            if not isinstance(self.unique, Unique):
                raise ConfigurationError(f"task {task!r}: unique={self.unique!r}: use Unique(…)")
            self.unique.check(task, parameters, secrets, hints)
        check_all(task, self.limits, self.at_most, parameters, secrets, hints)
        if self.fair_by is not None:
            check_fair_by(task, self.fair_by, parameters, secrets, hints)
        wait = self.unique.wait if self.unique is not None else None
        if wait is not None and self.deadline is not None and wait >= self.deadline:
            raise ConfigurationError(
                f"task {task!r}: deadline={self.deadline!r} is over before unique's wait={wait!r} is"
            )

    def _wrong_values(self) -> Iterator[str]:
        priority: Any = self.priority
        retry: Any = self.retry
        offload: Any = self.offload
        deadline = self.deadline
        if self.queue is not None and not (isinstance(self.queue, str) and self.queue):
            yield f"queue={self.queue!r}: use the name of a queue"
        if priority is not None and not (type(priority) is int and 0 <= priority <= 9):
            yield f"priority={priority!r}: use 0 to 9, or {', '.join(map(repr, LEVELS))}"
        if retry is not None and not isinstance(retry, Retry):
            yield f"retry={retry!r}: use Retry(times, first=seconds, most=seconds)"
        if not isinstance(offload, bool):
            yield f"offload={offload!r}: use True or False"
        if deadline is not None and not is_time(deadline):
            yield f"deadline={deadline!r}: use the seconds that a run has, more than 0"

    @property
    def of_calls(self) -> bool:
        """Whether a rule has a say in the acceptance of calls."""
        return self.unique is not None

    @property
    def of_starts(self) -> bool:
        """Whether a rule has a say in the start of attempts."""
        return bool(self.limits) or self.at_most is not None

    @property
    def of_rates_and_slots(self) -> tuple[Rule, ...]:
        """The rules on how often it starts, and how many are at work at once."""
        return self.limits if self.at_most is None else (*self.limits, self.at_most)

    @property
    def policy(self) -> Retry:
        """The retry policy; a task that declares none is tried once."""
        return self.retry or NO_RETRY
