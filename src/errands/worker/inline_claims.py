"""Claims of unique runs in the memory of this process: `lua/unique.lua` for inline mode and for tests."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from errands.core import clock
from errands.core.events import Event
from errands.core.states import State
from errands.core.unique import WAITING

_MOST = 10_000
_GRACE = 30.0  # seconds; see `lua/unique.lua`


@dataclass(frozen=True, slots=True)
class Held:
    """A claim: the run that stands for some work, when it was accepted, and until when that holds."""

    run_id: str
    at: float
    until: float | None


class Claims:
    """Which run stands for which work. Not locked: whoever calls it holds a lock where there are threads.

    Args:
        state_of: the state of a run; None where nobody knows it (yet).
    """

    def __init__(self, state_of: Callable[[str], State | None]) -> None:
        self._state_of = state_of
        self._held: OrderedDict[str, Held] = OrderedDict()

    def claim(self, run_id: str, claim: dict[str, Any]) -> Held | None:
        """Let a run stand for its work; or the claim of the run that does already.

        Args:
            run_id: the run.
            claim: what its rule says, as `lua/unique.lua` reads it.
        """
        now = clock.timestamp()
        held = self._held.get(claim["key"])
        if held is not None and held.run_id != run_id and (held.until is None or now < held.until):
            state = self._state_of(held.run_id)
            if state in claim["states"] if state is not None else now - held.at < _GRACE:
                return held
        if claim["on"] != "look":
            within = claim.get("within")
            self._held[claim["key"]] = Held(run_id, now, None if within is None else now + within / 1000)
            self._held.move_to_end(claim["key"])
            while len(self._held) > _MOST:
                self._held.popitem(last=False)
        return None

    def waits(self, run_id: str) -> bool:
        """Whether the run takes new arguments."""
        state = self._state_of(run_id)
        return state is None or state in WAITING

    def clear(self) -> None:
        """Forget everything."""
        self._held.clear()


def replacement(held: Held, claim: dict[str, Any]) -> Event:
    """The event that gives the run of `held` the arguments of a later request."""
    now, eta = clock.timestamp(), ""
    if "wait" in claim:
        due = now + claim["wait"] / 1000
        if "most" in claim:
            due = min(due, held.at + claim["most"] / 1000)
        eta = f'"eta":{due},'
    run_id = held.run_id.replace("\\", "\\\\").replace('"', '\\"')
    return Event.from_json(f'{{"kind":"replaced","run_id":"{run_id}",{eta}{claim["new"]}}}')
