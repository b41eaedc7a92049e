"""Limits: how they are said, what is refused when they are declared, and the same in inline mode."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from errands import Concurrency, Errands, InvalidArguments, Keyring, Limit, Run, Secret, Settings, State
from errands.broker.limits import LimitNotFound
from errands.core.clock import FakeClock
from errands.core.errors import ConfigurationError
from errands.core.events import Kind
from errands.core.limits import Bound, claims, key_of
from errands.testing import capture, events_of, inline
from errands.worker.inline import InlineRuns


@pytest.fixture
def app(tmp_path: Path) -> Errands:
    # An address where nobody listens: whoever touches the broker fails.
    settings = Settings(home=tmp_path, broker_url="redis://127.0.0.1:1/0", secret_keys=Keyring.new_key())
    return Errands("limits", settings=settings, set_as_current=False)


@pytest.fixture
def runs(app: Errands, errands_clock: FakeClock) -> Iterator[InlineRuns]:
    with inline(app) as found:
        yield found


# -- as it is said


@pytest.mark.parametrize(
    ("said", "means"),
    [
        ("100/m", (100, 60)), ("1/s", (1, 1)), ("5/h", (5, 3600)), ("9/d", (9, 86_400)), ("30/2s", (30, 2)),
        ("7/90s", (7, 90)), (" 20 / m ", (20, 60)), (2, (2, 0)), ("2", (2, 0)),
    ],
)  # fmt: skip
def test_a_bound_is_read(said: Any, means: tuple[int, int]) -> None:
    assert Bound.parse(said) == means
    assert Bound.parse(str(Bound(*means)).removesuffix(" at once")) == means


@pytest.mark.parametrize(
    "said",
    ["", "0/m", 0, "0", "-1/m", -1, "x", "5/w", "5/0s", "5/101d", "1.5/m", 1.5, True, None, "5m", 10**10],
)
def test_what_is_no_limit_is_refused(said: Any) -> None:
    with pytest.raises(ConfigurationError):
        Bound.parse(said)


def refused(app: Errands, **rules: Any) -> str:
    with pytest.raises(ConfigurationError) as caught:

        @app.task(name="mail.send", **rules)
        def send(school_id: int, to: list[str], token: Secret[str] = "") -> None: ...

        app.finalize()
        app.tasks["mail.send"].arguments  # noqa: B018 - Celery may put the making of a task off
    return str(caught.value)


@pytest.mark.parametrize(
    ("rules", "word"),
    [
        ({"limit": Limit("0/m")}, "limit of zero"),
        ({"limit": Limit("fast")}, "no limit"),
        ({"limit": Limit("5")}, "no period"),
        ({"limit": Limit("5/m", by="school")}, "by='school' names no argument"),
        ({"limit": Limit("5/m", by="")}, "names no argument"),
        ({"limit": Limit("5/m", by="token")}, "is a secret"),
        ({"limit": Limit("5/m", counts="people")}, "counts='people' names no argument"),
        ({"limit": Limit("5/m", counts="token")}, "is a secret"),
        ({"limit": Limit("5/m", name="a b")}, "name="),
        ({"limit": [Limit("5/m"), Limit("100/d")]}, "two of its limits have the name"),
        ({"limit": ["5/m"]}, "Limit("),
        ({"limit": "5/m"}, "'5/m': use limit=Limit("),
        ({"limit": 5}, "5: use limit=Limit("),
        ({"at_most": Concurrency(0)}, "limit of zero"),
        ({"at_most": Concurrency("5/m")}, "is a rate"),  # type: ignore[arg-type]
        ({"at_most": Concurrency(2, by="course")}, "by='course' names no argument"),
        ({"at_most": 2}, "Concurrency("),
    ],
)  # fmt: skip
def test_rules_that_cannot_work_are_refused_with_the_tasks_name(
    app: Errands, rules: dict[str, Any], word: str
) -> None:
    told = refused(app, **rules)
    assert "mail.send" in told
    assert word in told


def test_a_rule_must_not_go_by_what_the_worker_gives(app: Errands) -> None:
    @app.task(name="about", at_most=Concurrency(1, by="run"))
    def about(n: int, *, run: Run) -> None: ...

    with pytest.raises(ConfigurationError, match="by='run' names no argument"):
        about.delay(1)


def test_tasks_that_share_a_limit_say_the_same_of_it(app: Errands) -> None:
    @app.task(name="a", limit=Limit("5/m", name="gateway"))
    def a() -> None: ...

    @app.task(name="b", limit=Limit("6/m", name="gateway"))
    def b() -> None: ...

    with pytest.raises(ConfigurationError, match="'a' and 'b' share the limit 'gateway'"):
        app.finalize()


def test_what_a_call_asks_of_its_limits() -> None:
    call = {"order.shop": 5, "to": ["x", "y", "z"], "n": 4, "flag": True, "text": "hello", "map": {"a": 1}}
    value = call.get
    assert claims("t", [Limit("9/m", by="order.shop", counts="to")], value)[0][:2] == ("rate:t:5", 3)
    assert [
        claims("t", [Limit("9/m", counts=counts)], value)[0].cost
        for counts in ("n", "flag", "text", "map", "no")
    ] == [4, 1, 1, 1, 1]
    assert claims("t", [Limit("9/m", counts="n")], lambda _: 0) == []  # what counts nothing waits for nothing
    # What holds for some alone is waited for first.
    both = claims("a:b", [Limit("9/m"), Concurrency(2, by="order.shop", name="shops")], value)
    assert [claim.suffix for claim in both] == ["slots:shops:5", "rate:a%3Ab:"]
    assert [claim.name for claim in both] == ["slots:shops", "rate:a%3Ab"]


def test_keys() -> None:
    assert key_of(5) == key_of("5") == "5"
    assert key_of(None) == ""
    assert key_of({"b": 1, "a": 2}) == key_of({"a": 2, "b": 1}) == '{"a":2,"b":1}'
    assert len(key_of("x" * 1000)) == 33
    assert key_of("\0") != key_of("\1")


# -- in the caller


def test_a_call_that_could_never_start_is_refused_with_advice(app: Errands) -> None:
    @app.task(name="mail", limit=Limit("3/m", counts="to"))
    def mail(to: list[str]) -> None: ...

    with capture(app) as sent:
        with pytest.raises(InvalidArguments, match=r"counts 4, and the limit is 3/m in all.* at most 3"):
            mail.delay(["a", "b", "c", "d"])
        mail.delay(["a", "b", "c"])
    assert len(sent) == 1


def test_a_message_that_could_never_start_ends_with_the_same_advice(app: Errands, runs: InlineRuns) -> None:
    @app.task(name="mail", limit=Limit("3/m", counts="to"))
    def mail(to: list[str]) -> None: ...

    result = app.send_task("mail", [["a", "b", "c", "d"]])
    run = runs.get(result.id)
    assert run is not None
    assert (run.state, run.facts["error"]["type"]) == (State.DISCARDED, "InvalidArguments")
    assert mail.delay(["a", "b", "c"]).successful()  # it has not counted


# -- inline


def test_a_run_over_the_limit_starts_when_it_may(
    app: Errands, runs: InlineRuns, errands_clock: FakeClock
) -> None:
    begun = errands_clock.timestamp()
    starts = []

    @app.task(name="mail", limit=Limit("3/m", by="school", counts="to"))
    def mail(school: int, to: list[str], *, run: Run) -> None:
        starts.append((school, errands_clock.timestamp() - begun, run.attempt))

    mail.delay(1, ["a", "b"])
    errands_clock.advance(10)
    mail.delay(2, ["a", "b", "c"])
    mail.delay(1, ["a"])
    late = mail.delay(1, ["a"])
    assert starts == [(1, 0, 1), (2, 10, 1), (1, 10, 1), (1, 60, 1)]
    kinds = [event.kind for event in events_of(runs, late.id)]
    assert kinds == [Kind.QUEUED, Kind.LIMITED, Kind.STARTED, Kind.SUCCEEDED]
    assert events_of(runs, late.id)[1].note == "waits for its limit 3/m (school=1)"
    mail.delay(1, ["a", "b"])  # at 60 s, the one of 10 s and the one of just now leave room for one
    assert starts[-1] == (1, 70, 1)


def test_without_a_fake_clock_nobody_waits_in_inline_mode(app: Errands) -> None:
    @app.task(name="once", limit=Limit("1/d"))
    def once() -> int:
        return 1

    with inline(app):
        assert [once.delay().get() for _ in range(3)] == [1, 1, 1]


def test_a_run_that_waits_past_its_deadline_expires_inline(
    app: Errands, runs: InlineRuns, errands_clock: FakeClock
) -> None:
    """A worker would get it after its deadline, and not start it."""
    starts = []

    @app.task(name="code", limit=Limit("1/m"), deadline=30)
    def code(n: int) -> None:
        starts.append(n)

    with app.batch("codes") as batch:
        ids = [code.delay(n).id for n in range(2)]
    assert starts == [0]
    assert [run.state for run in map(runs.get, ids) if run] == [State.SUCCEEDED, State.EXPIRED]
    assert (batch.status().done, batch.status().failed) == (2, 1)
    code.delay(2)  # the one that expired has not counted
    assert starts == [0, 2]


def test_slots_are_given_back_inline(app: Errands, runs: InlineRuns) -> None:
    @app.task(name="one", at_most=Concurrency(1))
    def one(fails: bool = False) -> None:
        if fails:
            raise RuntimeError("no")

    for fails in (False, True, False):
        result = one.delay(fails)
        assert [event.kind for event in events_of(runs, result.id)][1] is Kind.STARTED


def test_a_run_within_a_run_of_the_same_slot_is_let_on_inline(app: Errands, runs: InlineRuns) -> None:
    """With workers it would wait for the outer one's end, which inline mode cannot."""

    @app.task(name="nested", at_most=Concurrency(1))
    def nested(depth: int) -> int:
        return depth if not depth else nested.delay(depth - 1).get(disable_sync_subtasks=False)

    assert nested.delay(2).get() == 0
    assert [event.kind for event in runs.events].count(Kind.LIMITED) == 2


def test_a_limit_is_changed_and_reset_inline(
    app: Errands, runs: InlineRuns, errands_clock: FakeClock
) -> None:
    begun = errands_clock.timestamp()

    @app.task(name="mail", limit=Limit("1/m", name="gateway"), at_most=Concurrency(4))
    def mail() -> float:
        return errands_clock.timestamp() - begun

    app.limits.change("gateway", "2/h")
    app.limits.change("mail", 2)
    assert [(each.name, each.declared, each.now, each.changed) for each in app.limits.all()] == [
        ("gateway", "1/m", "2/h", True),
        ("mail", "4 at once", "2 at once", True),
    ]
    assert [mail.delay().get() for _ in range(3)] == [0, 0, 3600]
    app.limits.reset("gateway")
    assert [mail.delay().get() for _ in range(2)] == [3660, 3720]
    for name, to in (("nobody", "1/m"), ("mail", "1/m"), ("gateway", 3)):
        with pytest.raises(LimitNotFound, match="there are"):
            app.limits.change(name, to)
    with pytest.raises(LimitNotFound):
        app.limits.reset("nobody")
    with pytest.raises(ConfigurationError):
        app.limits.change("mail", 0)
