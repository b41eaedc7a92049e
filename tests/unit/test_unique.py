"""The rule `unique` without a broker: what is refused, what is the same, and the test helpers."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from celery import chain, group
from pydantic import BaseModel

from errands import Errands, Keyring, Run, Secret, Settings, Unique
from errands.core import newest
from errands.core.clock import FakeClock
from errands.core.errors import ConfigurationError, UntrustedMessage
from errands.core.events import Event, Kind
from errands.core.signing import Signer
from errands.core.states import OPEN, State
from errands.core.unique import WAITING
from errands.store.fold import Fold, moment
from errands.store.ledger_event import LedgerEvent
from errands.testing import Enqueued, capture, inline
from errands.worker.inline import InlineRuns

KEYS = Keyring.new_key()


@pytest.fixture
def app(tmp_path: Path) -> Errands:
    # An address where nobody listens: whoever touches the broker fails.
    settings = Settings(home=tmp_path, broker_url="redis://127.0.0.1:1/0", secret_keys=KEYS)
    return Errands("unique", settings=settings, set_as_current=False)


@pytest.fixture
def runs(app: Errands, errands_clock: FakeClock) -> Iterator[InlineRuns]:
    with inline(app) as found:
        yield found


@pytest.fixture
def enqueued(app: Errands, errands_clock: FakeClock) -> Iterator[Enqueued]:
    with capture(app) as found:
        yield found


# -- what is refused


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ({"by": ("nobody",)}, "by='nobody' names no argument; the task takes user_id, password"),
        ({"by": "nobody.id"}, "by='nobody.id' names no argument"),
        ({"by": "user_id."}, "by='user_id.': use names of arguments"),
        ({"by": ()}, "by names no argument; leave it out"),
        ({"by": "password"}, "by='password' is a secret"),
        ({"within": 0}, "within=0: use seconds above 0"),
        ({"within": -1.5}, "within=-1.5"),
        ({"within": float("nan")}, "within=nan"),
        ({"within": "an hour"}, "within='an hour'"),
        ({"while_": ("waiting",)}, "while_: 'waiting' is not a valid State; use scheduled, queued, "),
        ({"while_": ()}, "while_ names no state"),
        ({"while_": ("queued", "succeeded")}, "while_ names succeeded, which a run never leaves"),
        ({"on_conflict": "ignore"}, "on_conflict='ignore': use 'keep', 'replace', 'debounce'"),
        ({"wait": 5}, "wait and most belong to on_conflict='debounce'"),
        ({"on_conflict": "replace", "by": "user_id", "most": 5}, "wait and most belong to"),
        ({"on_conflict": "debounce"}, "needs wait=seconds above 0, not None"),
        ({"on_conflict": "debounce", "wait": 0}, "needs wait=seconds above 0, not 0"),
        ({"on_conflict": "debounce", "wait": 5, "most": 4}, "most=4: use seconds, and not less than wait=5"),
        ({"on_conflict": "replace"}, "on_conflict='replace' needs by"),
        (
            {"on_conflict": "replace", "by": "user_id", "while_": "running"},
            "needs a state in while_ in which",
        ),
    ],
)
def test_what_cannot_work_is_refused_at_declaration(app: Errands, rule: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigurationError) as refused:

        @app.task(name="letters.send", unique=Unique(**rule))
        def send(user_id: int, password: Secret[str] = "") -> None: ...

    assert str(refused.value).startswith("task 'letters.send': unique: ")
    assert problem in str(refused.value)


def test_what_is_no_rule_is_refused(app: Errands) -> None:
    with pytest.raises(ConfigurationError, match=r"task 't': unique=True: use Unique\(…\)"):

        @app.task(name="t", unique=True)  # type: ignore[call-overload, untyped-decorator]
        def t() -> None: ...


def test_what_the_worker_gives_is_no_argument(app: Errands) -> None:
    @app.task(name="t", unique=Unique(by="run"))
    def t(n: int, *, run: Run) -> None: ...

    with pytest.raises(ConfigurationError, match="by='run' names no argument; the task takes n"):
        t.delay(1)


def test_a_call_may_say_no_other_rule(app: Errands, enqueued: Enqueued) -> None:
    @app.task(name="t", unique=Unique())
    def t() -> None: ...

    with pytest.raises(ConfigurationError, match="a call can say unique=False"):
        t.apply_async(unique=Unique(within=5))


def test_in_which_states_a_run_stands_for_others() -> None:
    assert Unique().states == OPEN
    assert Unique(on_conflict="replace", by="x").states == WAITING
    assert Unique(on_conflict="debounce", wait=1).states == WAITING
    assert Unique(while_=["queued", State.RUNNING]).states == {State.QUEUED, State.RUNNING}


# -- what is the same


class Order(BaseModel):
    id: int
    note: str = ""


def same(enqueued: Enqueued, task: Any, *calls: tuple[tuple[Any, ...], dict[str, Any]]) -> bool:
    """Whether all calls are one run; each pair of them is, or none is."""
    ids = {task.apply_async(args, kwargs).id for args, kwargs in calls}
    assert len(ids) in (1, len(calls))
    return len(ids) == 1


def test_calls_are_compared_as_they_are_sent(app: Errands, enqueued: Enqueued) -> None:
    @app.task(name="t", unique=Unique())
    def t(
        n: int, day: date = date(2026, 1, 1), more: dict[str, Any] | None = None, ratio: float = 1
    ) -> None: ...

    assert same(
        enqueued, t, ((1,), {}), (("1",), {}), ((), {"n": 1}), ((1, "2026-01-01"), {}),
        ((1, date(2026, 1, 1), None), {}), ((1,), {"ratio": 1}), ((1,), {"ratio": 1.0}),
    )  # fmt: skip
    assert same(enqueued, t, ((2,), {"more": {"a": 1, "b": 2}}), ((2,), {"more": {"b": 2, "a": 1}}))
    assert not same(enqueued, t, ((3,), {}), ((4,), {}), ((3, "2026-01-02"), {}), ((3,), {"more": {}}))


def test_arguments_that_are_not_named_do_not_count(app: Errands, enqueued: Enqueued) -> None:
    @app.task(name="t", unique=Unique(by=("order.id", "kind")))
    def t(order: Order, kind: str = "a", *, note: str = "") -> None: ...

    first = {"id": 7, "note": "first"}
    assert same(enqueued, t, ((first,), {}), ((Order(id=7),), {}), ((first, "a"), {"note": "x"}))
    assert not same(enqueued, t, (({"id": 8},), {}), (({"id": 8}, "b"), {}), (({"id": 9},), {}))


def test_a_way_that_ends_before_is_compared_as_nothing(app: Errands, enqueued: Enqueued) -> None:
    @app.task(name="t", unique=Unique(by="data.user.id"))
    def t(data: dict[str, Any]) -> None: ...

    assert same(enqueued, t, (({},), {}), (({"user": 5},), {}), (({"user": {"id": None}},), {}))


def test_secrets_do_not_count(app: Errands, enqueued: Enqueued) -> None:
    @app.task(name="t", unique=Unique())
    def t(user_id: int, password: Secret[str] = "none") -> None: ...

    assert same(enqueued, t, ((1, "a"), {}), ((1, "b"), {}), ((1,), {}))


def test_variadic_arguments_count(app: Errands, enqueued: Enqueued) -> None:
    @app.task(name="t", unique=Unique())
    def t(*names: str, **more: int) -> None: ...

    assert same(enqueued, t, (("a", "b"), {"x": 1}), (("a", "b"), {"x": "1"}))
    assert not same(enqueued, t, (("a",), {}), ((), {}), (("a",), {"x": 2}))


def test_tasks_do_not_share_their_claims_and_aliases_do(app: Errands, enqueued: Enqueued) -> None:
    @app.task(name="new", aliases=("old",), unique=Unique())
    def new(n: int) -> None: ...

    @app.task(name="other", unique=Unique())
    def other(n: int) -> None: ...

    app.finalize()
    first = new.delay(1)
    assert app.send_task("old", ("1",)).id == first.id
    assert other.delay(1).id != first.id


# -- within, and what a second request does


def test_within_counts_from_the_first(app: Errands, runs: InlineRuns, errands_clock: FakeClock) -> None:
    @app.task(name="t", unique=Unique(within=3600, while_=("queued", "running", "succeeded")))
    def t(n: int) -> int:
        return n * 2

    first = t.delay(4)
    errands_clock.advance(3599)
    second = t.delay(4)
    assert (second.id, second.duplicate, second.get()) == (first.id, True, 8)
    errands_clock.advance(1)
    third = t.delay(4)
    assert (third.id != first.id, third.duplicate) == (True, False)
    run = runs.get(first.id)
    assert run is not None
    assert run.facts["requests"] == 2


def test_a_run_that_failed_stands_for_nobody(app: Errands, runs: InlineRuns) -> None:
    @app.task(name="t", unique=Unique(within=3600, while_=("queued", "running", "succeeded")))
    def t() -> None:
        raise ValueError("no")

    assert t.delay().id != t.delay().id


def test_a_run_that_sends_itself_gets_itself(app: Errands, runs: InlineRuns) -> None:
    seen = []

    @app.task(name="t", unique=Unique())
    def t() -> None:
        seen.append(t.delay())

    first = t.delay()
    assert [(again.id, again.duplicate) for again in seen] == [(first.id, True)]


def test_replace_gives_a_waiting_run_new_arguments(app: Errands, enqueued: Enqueued) -> None:
    @app.task(name="t", unique=Unique(by="user_id", on_conflict="replace"))
    def t(user_id: int, text: str) -> str:
        return text

    first, second = t.delay(1, "old"), t.delay(1, text="new")
    assert (second.id, second.duplicate) == (first.id, True)
    (done,) = enqueued.drain()
    assert done.value == "new"


def test_debounce_puts_the_start_off_again(
    app: Errands, enqueued: Enqueued, errands_clock: FakeClock
) -> None:
    @app.task(name="t", unique=Unique(by="user_id", on_conflict="debounce", wait=10, most=25))
    def t(user_id: int, n: int) -> int:
        return n

    starts = []
    for n in range(4):
        t.delay(1, n)
        (sent,) = enqueued.sent
        starts.append(errands_clock.timestamp() + (sent.countdown or 0))
        errands_clock.advance(6)
    assert [start - starts[0] for start in starts] == [0, 6, 12, 15]
    assert enqueued.sent[0].args == (1, 3)
    assert [done.value for done in enqueued.drain()] == [3]
    assert not t.delay(1, 9).duplicate  # that one has ended


def test_debounce_of_a_call_with_a_time_of_its_own(app: Errands, enqueued: Enqueued) -> None:
    @app.task(name="t", unique=Unique(on_conflict="debounce", wait=10))
    def t() -> None: ...

    t.apply_async(countdown=100)
    assert enqueued.sent[0].countdown == 100
    t.delay()
    assert enqueued.sent[0].countdown == pytest.approx(10)


# -- who is under the rule


def test_captured_calls_are_one_until_they_ran(app: Errands, enqueued: Enqueued) -> None:
    @app.task(name="t", unique=Unique())
    def t(n: int) -> None: ...

    first = t.delay(1)
    assert t.delay(1).id == first.id
    assert len(set(t.delay_many([(1,), (2,), (2,)]))) == 2
    assert len(enqueued) == 2
    enqueued.drain()
    assert not t.delay(1).duplicate


def test_a_call_can_do_without(app: Errands, enqueued: Enqueued) -> None:
    @app.task(name="t", unique=Unique())
    def t() -> None: ...

    first = t.delay()
    assert t.apply_async(unique=False).id != first.id
    assert t.delay().id == first.id
    assert all("unique" not in item for item in enqueued._items)


def test_members_of_a_canvas_are_no_duplicates(app: Errands, runs: InlineRuns) -> None:
    done = []

    @app.task(name="t", unique=Unique(within=60, while_=("queued", "running", "succeeded")))
    def t(n: int) -> int:
        done.append(n)
        return n

    t.delay(1)
    assert group(t.s(1), t.s(1)).apply_async().get() == [1, 1]
    assert chain(t.s(1), t.s()).apply_async().get() == 1
    assert t.delay(1).duplicate
    assert done == [1, 1, 1, 1, 1]


# -- newest arguments, signed


def told(signer: Signer | None, args: list[Any], task: str = "t") -> str:
    queued = Event(kind=Kind.QUEUED, run_id="a", at=1.0, task=task)
    return f'{{"kind":"replaced","run_id":"r",{newest.tell(queued, args, {}, signer)}}}'


def test_the_newest_arguments_are_trusted_only_when_signed() -> None:
    signer = Signer([("k1", b"1" * 32)])
    signed = told(signer, [1, "é"])
    assert newest.read(signed, "t", signer) == ([1, "é"], {})
    assert newest.read(told(None, [1]), "t", None) == ([1], {})
    for text, task in ((told(None, [1]), "t"), (signed.replace("[1,", "[2,"), "t"), (signed, "other")):
        with pytest.raises(UntrustedMessage):
            newest.read(text, task, signer)


# -- the ledger


def test_the_ledger_keeps_the_newest_arguments() -> None:
    def told(kind: Kind, at: float, **facts: Any) -> LedgerEvent:
        return LedgerEvent.of(Event(kind=kind, run_id="r", at=1_750_000_000 + at, task="t", **facts))

    queued = told(Kind.QUEUED, 0, args=[1, "a"], kwargs={}, eta=1_750_000_030)
    replaced = told(Kind.REPLACED, 10, args=[1, "b"], kwargs={}, eta=1_750_000_040)
    started = told(Kind.STARTED, 50, attempt=1, args=[1, "a"], kwargs={})
    late = told(Kind.SUCCEEDED, 60, attempt=1)
    for doubtful in (False, True):
        fold = Fold({}, {}, moment)
        fold.add("1-0", queued)
        fold.add("2-0", replaced)
        run = fold.runs["r"]
        assert (run.state, run.args, run.eta) == ("scheduled", '[1,"b"]', moment(1_750_000_040))
        fold.add("3-0", started)
        fold.add("2-0", replaced, doubtful=doubtful)
        assert (run.state, run.args, run.eta) == ("running", '[1,"b"]', None)
        fold.add("4-0", late)
        fold.add("5-0", told(Kind.REPLACED, 55, args=[1, "too late"], kwargs={}))
        assert (run.state, run.args) == ("succeeded", '[1,"b"]')
