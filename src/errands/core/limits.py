"""How often, and how many at once: limits that hold over all workers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limit:
    """At most so many in a time."""

    rate: str
    by: str | None = None
    counts: str | None = None

    def check(self, task: str, parameters: Collection[str]) -> None:
        """Refuse a rule that cannot work for `task`."""


@dataclass(frozen=True, slots=True)
class Concurrency:
    """At most so many at once."""

    at_once: int
    by: str | None = None

    def check(self, task: str, parameters: Collection[str]) -> None:
        """Refuse a rule that cannot work for `task`."""
