"""One run at a time for what is the same work: what a second request for it gets."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Unique:
    """A second request for the same work gets the run of the first one."""

    by: tuple[str, ...] = ()

    def check(self, task: str, parameters: Collection[str]) -> None:
        """Refuse a rule that cannot work for `task`."""
