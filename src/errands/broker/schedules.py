"""Which due times of schedules were dealt with, as Valkey keeps it, by the server's clock."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from errands.broker.client import Client
from errands.broker.keys import Keys
from errands.broker.operations import RULES_OF_PUT, Operation, Verdict
from errands.broker.streams.scripts import Script
from errands.core.schedule import DueTime
from errands.core.states import FINAL

_CALL = Script("schedule", "schedule_call")
_FINAL = {state.value: True for state in FINAL}

Asked = Mapping[str, Any]


def ask_for(lead: str, time: DueTime, *, skip: bool = False) -> Asked:
    """What `lua/schedule.lua` reads.

    Args:
        lead: the lease of the beat that leads, as it is written: token and name.
        time: what is kept of the due time once it is dealt with.
        skip: refuse it while the schedule's run before is open.
    """
    state = _state(time)
    asked: dict[str, Any] = {"lead": lead, "name": time.schedule, "due": state["due"], "state": state}
    return {**asked, "skip": True, "final": _FINAL} if skip else asked


def only_if_due(operation: Operation, asked: Asked) -> Operation:
    """A `put` that is done where the due time is the leader's to send, and was not sent before."""
    said = list(operation)
    rules = json.loads(said[RULES_OF_PUT] or "{}")
    said[RULES_OF_PUT] = json.dumps({**rules, "schedule": asked}, separators=(",", ":"))
    return said


class DueTimes:
    """The due times of an app's schedules, as Valkey knows them."""

    def __init__(self, client: Client, keys: Keys) -> None:
        self._client: Any = client
        self._keys = keys

    def now(self) -> datetime:
        """The server's time: all beats have the same."""
        seconds, micros = self._client.time()
        return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=micros)

    def newest(self) -> dict[str, DueTime]:
        """Of each schedule the newest due time that was dealt with. What cannot be read is left out."""
        found = {}
        for name, text in self._client.hgetall(self._keys.schedule_state).items():
            schedule = name.decode()
            try:
                found[schedule] = _time(schedule, json.loads(text))
            except (ValueError, KeyError, TypeError):
                continue
        return found

    def ask(self, asked: Asked) -> tuple[Verdict, str]:
        """Whether the run of a due time may be sent; for brokers whose messages Valkey does not write."""
        return self._call("ask", asked)

    def note(self, asked: Asked) -> Verdict:
        """Keep what became of a due time. `FENCED` where another beat leads, and nothing is kept."""
        return self._call("note", asked)[0]

    def started_now(self, name: str, run_id: str) -> None:
        """A person started a run of the schedule, beside its due times."""
        self._client.hset(self._keys.schedule_now, name, run_id)

    def _call(self, what: str, asked: Asked) -> tuple[Verdict, str]:
        text = json.dumps(asked, separators=(",", ":"))
        verdict, about = _CALL.run(self._client, self._keys.prefix, what, text)
        return Verdict(verdict.decode()), about.decode()


def _state(time: DueTime) -> dict[str, Any]:
    state = {
        "due": _ms(time.due), "rule": time.rule, "outcome": time.outcome, "at": _ms(time.at),
        "late": time.late, "run": time.run_id, "reason": time.reason,
    }  # fmt: skip
    return {key: value for key, value in state.items() if value is not None}


def _time(schedule: str, state: dict[str, Any]) -> DueTime:
    return DueTime(
        schedule, _moment(state["due"]), str(state["rule"]), str(state["outcome"]), _moment(state["at"]),
        late=float(state.get("late", 0)), run_id=state.get("run"), reason=state.get("reason"),
    )  # fmt: skip


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def _moment(ms: float) -> datetime:
    return datetime.fromtimestamp(int(ms) // 1000, UTC) + timedelta(milliseconds=int(ms) % 1000)
