"""Events added up to rows: what a run becomes, whatever the order, however often they are read."""

from __future__ import annotations

import json
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import asdict
from sqlalchemy import Table

from errands.core.events import Event, Kind
from errands.store import bulk, tables
from errands.store.fold import Fold
from errands.store.ledger_event import LedgerEvent
from errands.store.row import Attempt, Run

T = 1_750_000_000.0


def event(kind: Kind, at: float, attempt: int | None = None, **facts: object) -> Event:
    return Event(kind=kind, run_id="r", at=T + at, attempt=attempt, task="t", **facts)  # type: ignore[arg-type]


def fold(*events: Event, into: Fold | None = None, doubtful: bool = False) -> Fold:
    result = into or Fold({}, {})
    for number, one in enumerate(events):
        result.add(f"{number}-0", LedgerEvent.of(one), doubtful=doubtful)
    return result


_JSON = ("args", "kwargs", "message", "result", "progress")


def run(result: Fold) -> dict[str, object]:
    values = {name: value for name, value in asdict(result.runs["r"]).items() if value is not None}
    return values | {name: json.loads(values[name]) for name in _JSON if name in values}


def attempts(result: Fold) -> list[Attempt]:
    return [row for _, row in sorted(result.attempts.items())]


def outcomes(result: Fold) -> list[object]:
    return [attempt.outcome for attempt in attempts(result)]


QUEUED = event(Kind.QUEUED, 0, 0, args=[1], kwargs={}, queue="emails", owner="7")
STARTED = event(Kind.STARTED, 1, 1, worker="w1")
SUCCEEDED = event(Kind.SUCCEEDED, 2, 1, worker="w1", result="ok", duration=1.0)
ERROR = {"type": "OSError", "message": "no", "traceback": "Traceback…"}
RETRYING = event(Kind.RETRYING, 2, 1, error=ERROR, eta=T + 62, duration=1.0)
FAILED = event(Kind.FAILED, 4, 2, error=ERROR, duration=1.0)
LIFE = [
    QUEUED, STARTED, RETRYING, event(Kind.STARTED, 3, 2), FAILED,
    event(Kind.REOPENED, 5, 2), event(Kind.STARTED, 6, 3), event(Kind.SNOOZED, 7, 3, eta=T + 9),
    event(Kind.STARTED, 9, 3), event(Kind.SUCCEEDED, 10, 3, result="late", duration=0.2),
]  # fmt: skip


def test_a_run_that_succeeds() -> None:
    result = fold(QUEUED, STARTED, SUCCEEDED)
    assert run(result)["state"] == "succeeded"
    assert run(result)["result"] == "ok"
    assert run(result)["owner"] == "7"
    assert outcomes(result) == ["succeeded"]
    assert result.counts == {("t", "queued"): 1, ("t", "running"): 1, ("t", "succeeded"): 1}
    assert result.buckets == {("t", 1.0): (1, 1.0)}


@pytest.mark.parametrize("order", list(permutations([QUEUED, STARTED, SUCCEEDED])))
def test_any_order_gives_the_same_rows_and_counts(order: tuple[Event, ...]) -> None:
    expected, result = fold(QUEUED, STARTED, SUCCEEDED), fold(*order)
    assert run(result) == run(expected)
    assert outcomes(result) == outcomes(expected)
    assert result.counts == expected.counts
    assert result.buckets == expected.buckets


def test_a_life_with_a_retry_a_failure_a_second_chance_and_a_snooze() -> None:
    result = fold(*LIFE)
    assert run(result)["state"] == "succeeded"
    assert run(result)["attempt"] == 3
    assert "error_message" not in run(result)
    assert outcomes(result) == ["retrying", "failed", "succeeded"]
    counts = {state: count for (_, state), count in result.counts.items()}
    assert counts == {
        "queued": 2, "running": 4, "retrying": 1, "failed": 1, "snoozed": 1, "succeeded": 1,
    }  # fmt: skip


@given(st.integers(0, len(LIFE)), st.integers(0, len(LIFE)))
def test_reading_again_changes_and_counts_nothing(cut: int, again: int) -> None:
    """The stream lost its end, or is read from its start: what the ledger had, it has."""
    once = fold(*LIFE)
    result = fold(*LIFE[:cut])
    fold(*LIFE[: min(cut, again)], into=result, doubtful=True)
    fold(*LIFE[cut:], into=result)
    fold(*LIFE, into=result, doubtful=True)
    assert run(result) == run(once)
    assert outcomes(result) == outcomes(once)
    assert result.counts == once.counts
    assert result.buckets == once.buckets


def test_a_snoozed_attempt_says_so_and_its_number_is_used_again() -> None:
    result = fold(QUEUED, STARTED, event(Kind.SNOOZED, 2, 1, eta=T + 30))
    assert run(result)["state"] == "retrying"
    assert outcomes(result) == ["snoozed"]
    fold(event(Kind.STARTED, 30, 1), into=result)
    assert run(result)["state"] == "running"
    assert run(result)["attempt"] == 1
    assert outcomes(result) == [None]


def test_an_attempt_whose_worker_died_is_lost() -> None:
    result = fold(QUEUED, STARTED, event(Kind.STARTED, 9, 2, worker="w2"))
    assert outcomes(result) == ["lost", None]
    assert attempts(result)[0].error_type == "WorkerLost"
    assert run(result)["worker"] == "w2"


def test_a_start_read_late_moves_nothing_back() -> None:
    assert run(fold(QUEUED, STARTED, RETRYING, STARTED))["state"] == "retrying"
    assert run(fold(QUEUED, SUCCEEDED, STARTED))["state"] == "succeeded"
    assert run(fold(QUEUED, event(Kind.REVOKED, 1), STARTED))["state"] == "revoked"


def test_the_first_end_stands() -> None:
    result = fold(QUEUED, STARTED, SUCCEEDED, event(Kind.REVOKED, 3), event(Kind.FAILED, 4, 1, error=ERROR))
    assert run(result)["state"] == "succeeded"
    assert "error_type" not in run(result)
    assert ("t", "revoked") not in result.counts


def test_a_later_attempt_takes_an_ended_run_up_again() -> None:
    """Its REOPENED was lost with the server's data; a worker is at it all the same."""
    result = fold(QUEUED, STARTED, event(Kind.FAILED, 2, 1, error=ERROR), event(Kind.STARTED, 9, 2))
    assert run(result)["state"] == "running"
    assert "finished_at" not in run(result)


def test_a_scheduled_run_and_one_revoked_while_it_ran() -> None:
    assert run(fold(event(Kind.QUEUED, 0, eta=T + 60)))["state"] == "scheduled"
    result = fold(QUEUED, STARTED, event(Kind.REVOKED, 2, 1, note="asked"))
    assert run(result)["state"] == "revoked"
    assert outcomes(result) == ["revoked"]
    assert run(fold(QUEUED, event(Kind.EXPIRED, 2, 0)))["state"] == "expired"


def test_progress_stays_until_the_next_attempt() -> None:
    result = fold(QUEUED, STARTED, event(Kind.PROGRESS, 1.5, 1, progress={"current": 1}))
    assert run(result)["progress"] == {"current": 1}
    fold(event(Kind.STARTED, 9, 2), into=result)
    assert "progress" not in run(result)
    fold(event(Kind.PROGRESS, 9.5, 1, progress={"current": 2}), into=result)
    assert "progress" not in run(result)


def test_secrets_are_masked_in_what_is_shown_and_kept_in_what_is_sent() -> None:
    sealed = "sealed:v1:k1:c2VjcmV0"
    values = run(fold(event(Kind.QUEUED, 0, args=[sealed], kwargs={"deep": [{"token": sealed}]})))
    assert values["args"] == ["***"]
    assert values["kwargs"] == {"deep": [{"token": "***"}]}
    assert values["message"] == {"args": [sealed], "kwargs": {"deep": [{"token": sealed}]}, "options": {}}


@pytest.mark.parametrize(
    "bad",
    [
        Event(kind=Kind.STARTED, run_id="", at=T),
        Event(kind=Kind.STARTED, run_id="x" * 300, at=T),
        Event(kind=Kind.STARTED, run_id="r", at=1e20),
        Event(kind=Kind.STARTED, run_id="r", at=T, task={"no": "name"}),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_have_happened_is_refused(bad: Event) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - its text is for people
        fold(bad)


@pytest.mark.parametrize(("row", "table"), [(Run, tables.runs), (Attempt, tables.attempts)])
def test_rows_have_the_tables_columns_in_their_order(row: type[Run | Attempt], table: Table) -> None:
    assert list(row.__struct_fields__) == table.c.keys()
    keys = {column.name for column in table.primary_key}
    grouped = [name for group in bulk._GROUPS[table.name] for name in group]
    assert sorted(grouped) == sorted(set(table.c.keys()) - keys)


def test_what_strict_json_has_no_room_for_is_read_all_the_same() -> None:
    raw = b'{"kind":"queued","run_id":"r","at":1.0,"args":["\\ud800"],"kwargs":{"rate":NaN,"n":1}}'
    heard = LedgerEvent.from_json(raw)
    values = run_of(heard)
    assert json.loads(values["args"]) == ["\ud800"]
    assert json.loads(values["kwargs"]) == {"rate": None, "n": 1}


def run_of(heard: LedgerEvent) -> dict[str, str]:
    result = Fold({}, {})
    result.add("1-0", heard)
    return asdict(result.runs["r"])
