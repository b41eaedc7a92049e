"""Live states in the memory of this process, for inline mode: the same rules, and no broker."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import msgspec

from errands.broker.allowing import suffix_of
from errands.broker.runs import LiveRun, Reply, Result, Verdict, facts_of
from errands.core.batches import filling
from errands.core.events import Event, Kind
from errands.core.limits import Bound
from errands.core.states import State, may_move
from errands.worker.admission import InlineLimits
from errands.worker.inline_batches import InlineBatches
from errands.worker.inline_claims import Claims, Held, replacement

_MOST_RUNS = 10_000
_OF_ONE_ATTEMPT = frozenset({"eta", "error", "note", "progress", "result", "finished_at"})


_GOES_ON = frozenset({Kind.RETRYING, Kind.SNOOZED})  # with a message that has the newest arguments itself


def _claim_in(rules: str) -> dict[str, Any]:
    claim: dict[str, Any] = msgspec.json.decode(rules)["unique"]
    return claim


class InlineRuns:
    """Keeps the newest 10,000 runs and all that was said of them since `clear`."""

    def __init__(self) -> None:
        self._runs: OrderedDict[str, LiveRun] = OrderedDict()
        self._lock = threading.RLock()
        self.events: list[Event] = []
        self.batches = InlineBatches(self.record)
        self.limits = InlineLimits()
        self._claims = Claims(lambda run_id: run.state if (run := self._runs.get(run_id)) else None)
        self._renewed: dict[str, str] = {}  # events that gave waiting runs new arguments

    def record(
        self,
        event: Event,
        *,
        hop: int = -1,
        redelivered: bool = False,
        copy: bool = False,
        died: bool = False,
        neighbours: bool = False,
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
            block = filling.get()
            if event.kind is Kind.STARTED and live is None and block is not None:  # Celery's canvas, inline
                self.batches.join(event.run_id, block.id)
            if event.kind is Kind.STARTED and self.batches.is_revoked(event.run_id):
                note = "its batch was revoked"
                self.record(Event(kind=Kind.REVOKED, run_id=event.run_id, at=event.at, note=note))
                return Reply(Verdict.REFUSED, number, 1, "batch")
            if reopened and rules and (held := self._claims.claim(event.run_id, _claim_in(rules))):
                return Reply(Verdict.DUPLICATE, number, 1, held.run_id)
            if event.kind is Kind.STARTED and rules and (refusal := self.limits.admit(event.run_id, rules)):
                return Reply(Verdict.LIMITED, number, 1, refusal)
            if event.kind is Kind.STARTED:
                number += 1
            elif event.kind is Kind.QUEUED and not known:
                number = event.attempt or 0
            told = event if event.attempt is not None else msgspec.structs.replace(event, attempt=number)
            self.events.append(told)
            if event.kind is Kind.SNOOZED:
                number -= 1
            facts, left = facts_of(event), dict(live.facts) if live else {}
            if event.kind is Kind.STARTED:
                left = {name: value for name, value in left.items() if name not in _OF_ONE_ATTEMPT}
                if event.run_id in self._renewed:
                    facts = {name: value for name, value in facts.items() if name not in ("args", "kwargs")}
            if reopened and before is State.SUCCEEDED:  # all is to be done once more
                left.pop("checkpoint", None)
            facts = {**facts, **left} if known else {**left, **facts}
            new_state = (before if known else state) or before or State.QUEUED
            self._runs[event.run_id] = LiveRun(event.run_id, new_state, number, max(hop, 0), facts)
            while len(self._runs) > _MOST_RUNS:
                self._runs.popitem(last=False)
            if event.kind is Kind.QUEUED and rules and (batch := msgspec.json.decode(rules).get("batch")):
                self.batches.join(event.run_id, batch)
            self.batches.heard(event.run_id, before, None if known else state)
            if state and event.kind is not Kind.STARTED:
                self.limits.let_go(event.run_id)
            if event.kind in _GOES_ON:
                self._renewed.pop(event.run_id, None)
            newer = self._renewed.get(event.run_id, "") if event.kind is Kind.STARTED else ""
            return Reply(Verdict.KNOWN if known else Verdict.OK, number, 1, newer)

    def take(self, name: str, count: int, bound: Bound) -> tuple[int, float]:
        """As `LiveRuns.take`; nothing else can go on meanwhile, so what is not free passes the time."""
        return self.limits.take(suffix_of(name), count, bound), 0.0

    def claim(self, run_id: str, asked: dict[str, Any], *, patience: float | None = None) -> Reply:
        """As `LiveRuns.claim`."""
        with self._lock:
            held = self._claims.claim(run_id, asked)
            if held is None:
                return Reply(Verdict.OK, 0, 0)
            if asked["on"] != "look":
                self._heard_again(held, asked)
            return Reply(Verdict.DUPLICATE, 0, 0, held.run_id)

    def _heard_again(self, held: Held, asked: dict[str, Any]) -> None:
        if (first := self._runs.get(held.run_id)) is not None:
            first.facts["requests"] = first.facts.get("requests", 1) + 1
        if "new" in asked and self._claims.waits(held.run_id):
            event = replacement(held, asked)
            self._renewed[held.run_id] = event.to_json().decode()
            if first is not None:
                self.record(event)
        if "told" in asked:
            note = f"duplicate of {held.run_id}"
            error = {"type": "Duplicate", "message": note}
            self.record(msgspec.structs.replace(Event.from_json(asked["told"]), error=error, note=note))

    def tell(
        self, event: Event, *, hop: int, attempt: int, heard: Callable[[Reply], object], quiet: bool = False,
        wait: bool = False,
    ) -> None:  # fmt: skip
        """As `LiveRuns.tell`."""
        with self._lock:
            reply = self.check(event.run_id, hop=hop, attempt=attempt)
            if reply.verdict is Verdict.OK:
                told = len(self.events)
                reply = self.record(event, hop=hop, attempt=attempt)
                if quiet:
                    del self.events[told:]
        heard(reply)

    def check(self, run_id: str, *, hop: int, attempt: int) -> Reply:
        """As `LiveRuns.check`."""
        live = self._runs.get(run_id)
        verdict = Verdict.OK
        if live is not None and live.final:
            verdict = Verdict.REFUSED
        elif live is not None and (live.hop > hop or live.attempt != attempt):
            verdict = Verdict.STALE
        return Reply(verdict, live.attempt if live else 0, 0)

    def checkpoint(self, run_id: str) -> dict[str, Any] | None:
        """As `LiveRuns.checkpoint`."""
        live = self._runs.get(run_id)
        return live.facts.get("checkpoint") if live else None

    def get(self, run_id: str) -> LiveRun | None:
        """As `LiveRuns.get`."""
        return self._runs.get(run_id)

    def get_many(self, run_ids: list[str]) -> dict[str, LiveRun]:
        """As `LiveRuns.get_many`."""
        return {run_id: self._runs[run_id] for run_id in run_ids if run_id in self._runs}

    def known(self, run_id: str) -> bool:
        """As `LiveRuns.known`."""
        return run_id in self._runs

    def of_person(self, person: str) -> list[str]:
        """The runs that belong to a person or are about them."""
        with self._lock:
            return [
                run_id
                for run_id, run in self._runs.items()
                if person in (run.facts.get("owner"), run.facts.get("subject"))
            ]

    def forget(self, run_ids: list[str]) -> None:
        """Forget these runs, and what was told of them."""
        with self._lock:
            gone = set(run_ids)
            for run_id in gone:
                self._runs.pop(run_id, None)
            self.events[:] = [event for event in self.events if event.run_id not in gone]

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._runs.clear()
            self.events.clear()
            self.batches.clear()
            self.limits.clear()
            self._claims.clear()
            self._renewed.clear()
