"""What a task or a call cannot mean is refused at once, with the name of the task and of the rule."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import pytest
from pydantic import BaseModel, ConfigDict, PlainSerializer, field_serializer
from typing_extensions import TypedDict

from errands import Concurrency, Errands, Limit, Retry, Secret, Settings, Unique
from errands.core.errors import ConfigurationError, InvalidArguments
from errands.core.paths import dead_end
from errands.testing import capture


@pytest.fixture
def app(tmp_path: Path) -> Errands:
    # An address where nobody listens: whoever touches the broker fails.
    settings = Settings(home=tmp_path, broker_url="redis://127.0.0.1:1/0")
    return Errands("declared", settings=settings, set_as_current=False)


class Shop(BaseModel):
    city: str = "York"


class Order(BaseModel):
    id: int
    shop: Shop | None = None


_any: Any = Unique  # for what type checkers would refuse


def refused(app: Errands, options: dict[str, Any]) -> str:
    with pytest.raises(ConfigurationError) as caught:

        @app.task(name="orders.send", **options)
        def send(user_id: int, order: Order, to: tuple[str, ...] = ()) -> None: ...

    return str(caught.value)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"unique": _any(by=5)}, "unique: by=5: use names"),
        ({"unique": _any(by=(5,))}, "unique: by=5: use names"),
        ({"unique": _any(while_=5)}, "unique: while_=5: use states"),
        ({"unique": Unique(within=True)}, "unique: within=True: use seconds"),
        ({"unique": Unique(within=1e12)}, "unique: within=1000000000000.0: use seconds"),
        ({"limit": Concurrency(2)}, "limit=Concurrency("),
        ({"at_most": Limit("2/m")}, "at_most=Limit("),
        ({"at_most": 2}, "at_most=2: use"),
        ({"limit": None}, "limit=None: use"),
        ({"priority": 11}, "priority=11: use 0 to 9"),
        ({"priority": True}, "priority=True: use"),
        ({"priority": 2.5}, "priority=2.5: use"),
        ({"retry": 3}, "retry=3: use Retry("),
        ({"queue": 5}, "queue=5: use the name"),
        ({"queue": ""}, "queue='': use the name"),
        ({"offload": "yes"}, "offload='yes': use True"),
        ({"aliases": "old"}, "aliases='old': use a list"),
        ({"aliases": (5,)}, "aliases=(5,): use a list"),
        ({"deadline": float("inf")}, "deadline=inf: use"),
        ({"time_limit": 0}, "time_limit=0: use seconds"),
        ({"soft_time_limit": -1}, "soft_time_limit=-1: use seconds"),
        ({"soft_time_limit": "10"}, "soft_time_limit='10': use seconds"),
        ({"soft_time_limit": 9000}, "is longer than ERRANDS_TIME_LIMIT (1800)"),
        ({"expires": 0}, "expires=0: use seconds"),
        ({"expires": "tomorrow"}, "expires='tomorrow': use seconds"),
    ],
)
def test_values_that_make_no_sense(app: Errands, options: dict[str, Any], problem: str) -> None:
    text = refused(app, options)
    assert text.startswith("task 'orders.send': ")
    assert problem in text


@pytest.mark.parametrize(
    ("options", "say"),
    [
        ({"limits": Limit("1/m")}, "say limit=Limit("),
        ({"limits": [Limit("1/m")]}, "say limit=Limit("),
        ({"concurrency": Concurrency(1)}, "say at_most=Concurrency("),
        ({"uniqe": Unique()}, "say unique=Unique("),
        ({"retries": Retry(3)}, "say retry=Retry("),
    ],
)
def test_a_rule_under_a_word_that_nobody_reads(app: Errands, options: dict[str, Any], say: str) -> None:
    text = refused(app, options)
    assert f"task 'orders.send': there is no rule {next(iter(options))!r}" in text
    assert say in text


@pytest.mark.parametrize(
    ("options", "rule"),
    [
        ({"unique": Unique(by="order.idd")}, "unique: by='order.idd'"),
        ({"unique": Unique(by=("user_id", "order.shop.town"))}, "unique: by='order.shop.town'"),
        ({"limit": Limit("1/m", by="order.idd")}, "limit='1/m': by='order.idd'"),
        ({"limit": Limit("1/m", counts="order.idd")}, "limit='1/m': counts='order.idd'"),
        ({"at_most": Concurrency(1, by="order.idd")}, "at_most=1: by='order.idd'"),
        ({"fair_by": "user_id.school"}, "fair_by='user_id.school'"),
        ({"fair_by": "to.school"}, "fair_by='to.school'"),
    ],
)
def test_a_path_at_whose_end_nothing_can_ever_be(app: Errands, options: dict[str, Any], rule: str) -> None:
    """All calls would be one: the first would stand for everybody's, and all would share a limit."""
    text = refused(app, options)
    assert text.startswith(f"task 'orders.send': {rule} leads nowhere: ")


@dataclass
class Place:
    town: str


class Line(TypedDict):
    place: Place


class Pair(NamedTuple):
    left: int


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class Told(BaseModel):
    """Says itself how it becomes JSON."""

    place: int = 0
    plain: int = 0

    @field_serializer("place")
    def _place(self, place: int) -> dict[str, int]:
        return {"number": place}


Shown = Annotated[int, PlainSerializer(lambda number: {"number": number})]


@pytest.mark.parametrize(
    ("path", "hint", "why"),
    [
        ("a", int, None),
        ("a.b", Any, None),
        ("a.b.c", dict[str, Any], None),
        ("a.b", Open, None),
        ("a.number", Shown, None),
        ("a.place.number", Told, None),
        ("a.plain.number", Told, "there is no 'number' in a value of type int"),
        ("a.b", "NotKnownYet", None),
        ("a.id", Annotated[Order, "marked"], None),
        ("a.shop.city", Order | None, None),
        ("a.id", Order | str, None),
        ("a.place.town", Line, None),
        ("a.id.x", Order, "there is no 'x' in a value of type int"),
        ("a.shop.town", Order, "Shop has no 'town'; it has city"),
        ("a.place.city", Line, "Place has no 'city'; it has town"),
        ("a.b", int | str, "there is no 'b' in a value of type int"),
        ("a.left", Pair, "there is no 'left' in a value of type Pair"),
        ("a.b", list[Order], "there is no 'b' in a value of type list"),
    ],
)
def test_paths_are_held_against_type_hints(path: str, hint: Any, why: str | None) -> None:
    assert dead_end(path, {"a": hint}) == why


def test_all_that_comes_by_name_is_one_argument_with_a_name_for_each(app: Errands) -> None:
    @app.task(name="counts", unique=Unique(by=("numbers", "more.site")))
    def counts(*numbers: int, **more: str) -> None: ...

    with capture(app):
        first = counts.delay(1, 2, site="a", note="x")
        assert counts.delay(1, 2, site="a", note="y").id == first.id
        assert counts.delay(1, 2, site="b").id != first.id
    with pytest.raises(ConfigurationError, match=r"by='numbers\.site' leads nowhere"):

        @app.task(name="other", unique=Unique(by="numbers.site"))
        def other(*numbers: int) -> None: ...


def test_a_path_is_looked_at_again_when_hints_can_be_read(app: Errands) -> None:
    @app.task(name="late", unique=Unique(by="order.idd"))
    def late(order: LateOrder) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    app.finalize()
    globals()["LateOrder"] = Order
    try:
        with pytest.raises(ConfigurationError, match=r"'late': unique: by='order\.idd' leads nowhere"):
            late.delay(Order(id=1))
    finally:
        del globals()["LateOrder"]


def test_lists_and_sets_name_arguments_and_states_as_tuples_do(app: Errands) -> None:
    @app.task(name="index", unique=Unique(by=["page", "site"], while_={"queued", "running"}))
    def index(page: int, site: str, text: str) -> None: ...

    assert Unique(by={"b", "a"}) == Unique(by=("a", "b"))
    with capture(app):
        assert index.delay(1, "x", "a").id == index.delay(1, "x", "b").id
        assert index.delay(2, "x", "a").id != index.delay(1, "x", "b").id


def test_one_decorator_may_make_several_tasks(app: Errands) -> None:
    declare = app.task(queue="letters", unique=Unique(), limit=Limit("1/m"))

    def one(secret: Secret[str] = "") -> None: ...

    def two() -> None: ...

    first, second = declare(one), declare(two)
    app.finalize()
    assert first.rules.queue == second.rules.queue == "letters"
    assert first.rules.limits == second.rules.limits == (Limit("1/m"),)


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"countdown": "soon"}, "countdown='soon': use seconds"),
        ({"countdown": float("nan")}, "countdown=nan: use seconds"),
        ({"countdown": 1e12}, "use seconds"),
        ({"countdown": timedelta(days=1)}, "use seconds"),
        ({"eta": "tomorrow"}, "eta='tomorrow': use a datetime"),
        ({"eta": 5}, "eta=5: use a datetime"),
        ({"expires": timedelta(days=1)}, "use seconds, or a datetime"),
        ({"expires": "tomorrow"}, "expires='tomorrow': use a datetime"),
        ({"deadline": float("inf")}, "deadline=inf"),
        ({"deadline": float("nan")}, "deadline=nan"),
        ({"time_limit": 0}, "time_limit=0: use seconds, more than 0"),
        ({"soft_time_limit": 10, "time_limit": 5}, "soft_time_limit=10 is longer than time_limit=5"),
        ({"priority": "urgent"}, "priority='urgent'"),
        ({"limit": Limit("1/m")}, "is a rule of tasks"),
        ({"at_most": Concurrency(1)}, "is a rule of tasks"),
        ({"fair_by": "n"}, "is a rule of tasks"),
        ({"retry": Retry(3)}, "is a rule of tasks"),
    ],
)
def test_options_of_a_call_that_make_no_sense(app: Errands, options: dict[str, Any], problem: str) -> None:
    @app.task(name="plain")
    def plain(n: int) -> None: ...

    with capture(app):
        for send in (
            lambda: plain.apply_async((1,), **options),
            lambda: app.send_task("plain", (1,), **options),
            lambda: plain.delay_many([(1,)], **options),
        ):
            with pytest.raises(InvalidArguments) as caught:
                send()
            assert str(caught.value).startswith("plain: ")
            assert problem in str(caught.value)
    with pytest.raises(InvalidArguments) as direct:  # as it goes to a broker
        plain.apply_async((1,), **options)
    assert problem in str(direct.value)
