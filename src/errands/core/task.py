"""What a task declares about itself."""

from __future__ import annotations

from dataclasses import dataclass

from errands.core.errors import ConfigurationError
from errands.core.retry import Retry

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
    """

    queue: str | None = None
    priority: int | None = None
    retry: Retry | None = None
    aliases: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.priority is not None and not 0 <= self.priority <= 9:
            raise ConfigurationError(f"priority {self.priority}: use 0 to 9")
        if self.retry is not None and not isinstance(self.retry, Retry):
            raise ConfigurationError(f"retry={self.retry!r}: use Retry(times, first=seconds, most=seconds)")

    @property
    def policy(self) -> Retry:
        """The retry policy; a task that declares none is tried once."""
        return self.retry or NO_RETRY
