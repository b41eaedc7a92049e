"""What is kept of an outside effect."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol


class Standing(StrEnum):
    """What is known of an effect."""

    BEGUN = "begun"  # somebody is at it, or was when it died
    DONE = "done"
    UNKNOWN = "unknown"  # it may have happened or not; a person settles it


@dataclass(frozen=True, slots=True)
class EffectRow:
    """An effect as it is kept. `token` names the attempt that claimed it last."""

    scope: str
    name: str
    state: Standing
    run_id: str
    attempt: int
    token: str
    at: datetime
    task: str | None = None
    result: Any = None
    error: str | None = None

    @property
    def key(self) -> tuple[str, str]:
        """What it is known by."""
        return self.scope, self.name


class EffectStore(Protocol):
    """Where effects are kept: in SQL, or in the memory of this process in inline mode.

    Each method is one transaction; those for asyncio code begin with `a`.
    """

    def claim(self, row: EffectRow) -> EffectRow | None:
        """Keep `row`, unless one with its key is there; then return that one."""

    def get(self, scope: str, name: str) -> EffectRow | None: ...

    def put(self, row: EffectRow, *, token: str | None) -> bool:
        """Replace the row if `token` holds it (None: whoever does, or nobody). Whether it was replaced."""

    def drop(self, row: EffectRow) -> None:
        """Forget the row, if its token still holds it."""

    def of_run(self, run_id: str) -> list[EffectRow]:
        """The effects that a run claimed last, in the order of their beginning."""
        ...

    def checkpoint(self, run_id: str) -> dict[str, Any] | None:
        """How far the ledger knows that the run's loops came."""

    async def apart(self, function: Callable[[], Any]) -> Any:
        """Call one of the above without holding up the event loop."""
