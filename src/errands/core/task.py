"""What a task declares about itself."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from errands.core.errors import ConfigurationError
from errands.core.limits import Concurrency, Limit
from errands.core.retry import Retry
from errands.core.unique import Unique

NO_RETRY = Retry(times=0)

# Urgent first. What a message without a priority, or with 0 (as plain Celery writes it), gets is "normal".
LEVELS = ("high", "normal", "low")


def level_of(priority: int | None) -> str:
    """The level of a message with Celery's `priority`: 1-3 low, 4-6 normal, 7-9 high; 0 and None normal."""
    if not priority or 4 <= priority <= 6:
        return "normal"
    return "low" if priority < 4 else "high"


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
        priority: of its messages, 0 to 9; 9 goes first.
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
        if self.priority is not None and not 0 <= self.priority <= 9:
            raise ConfigurationError(f"priority {self.priority}: use 0 to 9")
        if self.retry is not None and not isinstance(self.retry, Retry):
            raise ConfigurationError(f"retry={self.retry!r}: use Retry(times, first=seconds, most=seconds)")

    def check(self, task: str, parameters: Collection[str]) -> None:
        """Refuse rules that cannot work for a task with these parameters.

        Args:
            task: its name.
            parameters: of its function, by name.

        Raises:
            ConfigurationError: it names the task and the rule.
        """
        for rule in (self.unique, *self.limits, self.at_most):
            if rule is not None:
                rule.check(task, parameters)

    @property
    def of_calls(self) -> bool:
        """Whether a rule has a say in the acceptance of calls."""
        return self.unique is not None or self.fair_by is not None

    @property
    def of_starts(self) -> bool:
        """Whether a rule has a say in the start of attempts."""
        return bool(self.limits) or self.at_most is not None

    @property
    def policy(self) -> Retry:
        """The retry policy; a task that declares none is tried once."""
        return self.retry or NO_RETRY
