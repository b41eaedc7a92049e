"""What a task declares about itself."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from errands.core.errors import ConfigurationError
from errands.core.fairness import check_fair_by
from errands.core.limits import Concurrency, Limit, Rule, check_all
from errands.core.retry import Retry
from errands.core.unique import Unique

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

    def __post_init__(self) -> None:
        if self.priority is not None and not (isinstance(self.priority, int) and 0 <= self.priority <= 9):
            raise ConfigurationError(f"priority {self.priority!r}: use 0 to 9, or {', '.join(LEVELS)}")
        if self.retry is not None and not isinstance(self.retry, Retry):
            raise ConfigurationError(f"retry={self.retry!r}: use Retry(times, first=seconds, most=seconds)")

    def check(self, task: str, parameters: Collection[str], secrets: Collection[str] = ()) -> None:
        """Refuse rules that cannot work for a task with these parameters.

        Args:
            task: its name.
            parameters: of its function, by name.
            secrets: those of them that are secret.

        Raises:
            ConfigurationError: it names the task and the rule.
        """
        if self.unique is not None:
            if not isinstance(self.unique, Unique):
                raise ConfigurationError(f"task {task!r}: unique={self.unique!r}: use Unique(…)")
            self.unique.check(task, parameters, secrets)
        check_all(task, self.of_rates_and_slots, parameters, secrets)
        if self.fair_by is not None:
            check_fair_by(task, self.fair_by, parameters, secrets)
        if self.deadline is not None:
            self._check_deadline(task, self.deadline)

    def _check_deadline(self, task: str, deadline: object) -> None:
        if isinstance(deadline, bool) or not isinstance(deadline, int | float) or not deadline > 0:
            raise ConfigurationError(
                f"task {task!r}: deadline={deadline!r}: use the seconds that a run has, more than 0"
            )
        wait = self.unique.wait if self.unique is not None else None
        if wait is not None and wait >= deadline:
            raise ConfigurationError(
                f"task {task!r}: deadline={deadline!r} is over before unique's wait={wait!r} is"
            )

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
