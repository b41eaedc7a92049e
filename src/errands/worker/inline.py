"""Live states in the memory of this process, for inline mode: the same rules, and no broker."""

from __future__ import annotations

import threading
from collections import OrderedDict

import msgspec

from errands.broker.runs import LiveRun, Reply, Result, Verdict, facts_of
from errands.core.events import Event, Kind
from errands.core.states import State, may_move

_MOST_RUNS = 10_000
_OF_ONE_ATTEMPT = frozenset({"eta", "error", "note", "progress", "result", "finished_at"})


class InlineRuns:
    """Keeps the newest 10,000 runs and all that was said of them since `clear`."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, LiveRun] = OrderedDict()
        self._lock = threading.RLock()
        self.events: list[Event] = []

    def record(
        self,
        event: Event,
        *,
        hop: int = -1,
        redelivered: bool = False,
        copy: bool = False,
        died: bool = False,
        time_limit: float = 0,
        attempt: int | None = None,
        result: Result | None = None,
        rules: str = "",
    ) -> Reply:
        """As `LiveRuns.record`. Results are with the callers, who wait for them here and now."""
        with self._lock:
            live = self._runs.get(event.run_id)
            before, number = (live.state, live.attempt) if live else (None, 0)
            state = event.state
            known = event.kind is Kind.QUEUED and live is not None
            reopened = event.kind is Kind.REOPENED
            if state and not known and not reopened and not may_move(before, state):
                return Reply(Verdict.REFUSED, number, 1)
            if event.kind is Kind.STARTED:
                number += 1
            told = event if event.attempt is not None else msgspec.structs.replace(event, attempt=number)
            self.events.append(told)
            if event.kind is Kind.SNOOZED:
                number -= 1
            facts, left = facts_of(event), dict(live.facts) if live else {}
            if event.kind is Kind.STARTED:
                left = {name: value for name, value in left.items() if name not in _OF_ONE_ATTEMPT}
            facts = {**facts, **left} if known else {**left, **facts}
            new_state = (before if known else state) or before or State.QUEUED
            self._runs[event.run_id] = LiveRun(event.run_id, new_state, number, max(hop, 0), facts)
            while len(self._runs) > _MOST_RUNS:
                self._runs.popitem(last=False)
            return Reply(Verdict.KNOWN if known else Verdict.OK, number, 1)

    def get(self, run_id: str) -> LiveRun | None:
        """As `LiveRuns.get`."""
        return self._runs.get(run_id)

    def get_many(self, run_ids: list[str]) -> dict[str, LiveRun]:
        """As `LiveRuns.get_many`."""
        return {run_id: self._runs[run_id] for run_id in run_ids if run_id in self._runs}

    def known(self, run_id: str) -> bool:
        """As `LiveRuns.known`."""
        return run_id in self._runs

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._runs.clear()
            self.events.clear()
