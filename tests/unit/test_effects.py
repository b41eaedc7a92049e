"""Outside effects: done once, or known not to be known. One suite for both places where they are kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from celery.exceptions import SoftTimeLimitExceeded

from errands import Database, Discard, EffectUnknown, Errands, OutcomeUnknown, Retry, Run, Settings, State
from errands.core import clock
from errands.core.clock import FakeClock
from errands.core.effects import EffectStore, Standing
from errands.core.errors import ConfigurationError, EffectBusy
from errands.core.events import Event, Kind
from errands.store.effects import SqlEffects
from errands.testing import inline
from errands.worker.effects import InlineEffects
from errands.worker.inline import InlineRuns
from errands.worker.run import current_run

RUN = "01a200a4-b400-7659-86b6-d6aedb9f3ad3"


@pytest.fixture(params=["sql", "inline"])
def store(request: pytest.FixtureRequest) -> EffectStore:
    if request.param == "inline":
        return InlineEffects()
    database: Database = request.getfixturevalue("sqlite_database")
    return SqlEffects(lambda: database)


@pytest.fixture(autouse=True)
def now() -> Iterator[FakeClock]:
    fake = FakeClock()
    with clock.use(fake):
        yield fake


@pytest.fixture
def make(store: EffectStore) -> Callable[..., Run]:
    """Makes attempts at a run."""

    def made(attempt: int = 1, id: str = RUN, log: Any = None) -> Run:
        return Run(id, "pay", attempt=attempt, effects=lambda: store, log=log)

    return made


class Gateway:
    """Somebody who takes money."""

    def __init__(self) -> None:
        self.charges: list[tuple[int, str]] = []
        self.raises: BaseException | None = None
        self.raises_after: BaseException | None = None

    def charge(self, amount: int, *, key: str = "") -> dict[str, Any]:
        if self.raises is not None:
            raise self.raises
        self.charges.append((amount, key))
        if self.raises_after is not None:
            raise self.raises_after
        return {"id": len(self.charges), "amount": amount}

    async def acharge(self, amount: int, *, key: str = "") -> dict[str, Any]:
        await asyncio.sleep(0)
        return self.charge(amount, key=key)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


def test_it_is_done_once_over_all_attempts(make: Callable[..., Run], gateway: Gateway) -> None:
    first, second = make(1), make(2)
    assert first.idempotency_key == second.idempotency_key == RUN
    receipt = first.once("charge", gateway.charge, 10, key=first.idempotency_key)
    assert receipt == {"id": 1, "amount": 10}
    assert second.once("charge", gateway.charge, 10, key=second.idempotency_key) == receipt
    assert first.once("charge", gateway.charge, 10) == receipt
    assert gateway.charges == [(10, RUN)]


async def test_async_functions_are_awaited(make: Callable[..., Run], gateway: Gateway) -> None:
    receipt = await make(1).once("charge", gateway.acharge, 10)
    assert await make(2).once("charge", gateway.acharge, 10) == receipt
    assert len(gateway.charges) == 1


def test_another_name_or_run_is_another_effect(make: Callable[..., Run], gateway: Gateway) -> None:
    make().once("charge", gateway.charge, 1)
    make().once("refund", gateway.charge, 2)
    make(id="other").once("charge", gateway.charge, 3)
    assert [amount for amount, _ in gateway.charges] == [1, 2, 3]


def test_runs_that_share_a_scope_share_the_effect_and_its_key(
    make: Callable[..., Run], gateway: Gateway
) -> None:
    effects = [make(id=run_id).effect("charge", scope="payment:17") for run_id in ("a", "b")]
    receipts = [effect.once(gateway.charge, 5, key=effect.key) for effect in effects]
    assert receipts[0] == receipts[1]
    assert gateway.charges == [(5, effects[1].key)]
    assert make(id="a").effect("charge").key != make(id="b").effect("charge").key
    assert make(id="a", attempt=3).effect("charge").key == make(id="a").effect("charge").key
    assert make().effect("charge").key != make().effect("mail").key


def test_an_error_says_that_it_did_not_happen(make: Callable[..., Run], gateway: Gateway) -> None:
    gateway.raises = ValueError("the card is refused")
    with pytest.raises(ValueError, match="refused"):
        make(1).once("charge", gateway.charge, 10)
    gateway.raises = None
    assert make(2).once("charge", gateway.charge, 10)["id"] == 1


@dataclass
class Unanswered(Exception):
    """A client's own error for a request that was sent."""


@pytest.mark.parametrize(
    "error",
    [TimeoutError("no answer"), ConnectionResetError(), OutcomeUnknown("sent"), Unanswered()],
    ids=repr,
)
def test_what_may_have_happened_is_not_repeated(
    make: Callable[..., Run], gateway: Gateway, store: EffectStore, error: Exception
) -> None:
    gateway.raises_after = error
    with pytest.raises(OutcomeUnknown):
        make(1).effect("charge", unknown=Unanswered).once(gateway.charge, 10)
    gateway.raises_after = None
    with pytest.raises(EffectUnknown, match="'charge' was begun at 2026-01-01 12:00:00 UTC by run 01a2"):
        make(2).once("charge", gateway.charge, 10)
    row = store.get(RUN, "charge")
    assert row is not None
    assert (row.state, row.attempt, row.task) == (Standing.UNKNOWN, 1, "pay")
    assert type(error).__name__ in (row.error or "")
    assert len(gateway.charges) == 1


@pytest.mark.parametrize("error", [SoftTimeLimitExceeded(), asyncio.CancelledError(), SystemExit()], ids=repr)
def test_an_effect_that_is_interrupted_is_unknown(
    make: Callable[..., Run], gateway: Gateway, store: EffectStore, error: BaseException
) -> None:
    gateway.raises_after = error
    with pytest.raises(type(error)):
        make(1).once("charge", gateway.charge, 10)
    with pytest.raises(EffectUnknown):
        make(2).once("charge", gateway.charge, 10)


async def test_a_cancelled_effect_is_unknown(make: Callable[..., Run], store: EffectStore) -> None:
    async def never() -> None:
        await asyncio.Event().wait()

    doing = asyncio.ensure_future(make(1).once("charge", never))
    while store.get(RUN, "charge") is None:
        await asyncio.sleep(0)
    await asyncio.sleep(0.01)
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    row = store.get(RUN, "charge")
    assert row is not None
    assert row.state is Standing.UNKNOWN


def test_safe_to_repeat_is_done_again_until_it_is_known(make: Callable[..., Run], gateway: Gateway) -> None:
    """The other side knows the key again."""
    gateway.raises_after = TimeoutError()
    effect = make(1).effect("charge", safe_to_repeat=True)
    with pytest.raises(TimeoutError):
        effect.once(gateway.charge, 10, key=effect.key)
    gateway.raises_after = None
    again = make(2).effect("charge", safe_to_repeat=True)
    assert again.once(gateway.charge, 10, key=again.key) == again.once(gateway.charge, 10, key=again.key)
    assert gateway.charges == [(10, effect.key)] * 2


def test_safe_to_repeat_after_a_death_of_what_was_not(make: Callable[..., Run], gateway: Gateway) -> None:
    died(make(1))
    assert make(2).effect("charge", safe_to_repeat=True).once(gateway.charge, 10)["id"] == 1
    assert make(3).once("charge", gateway.charge, 10)["id"] == 1


def died(run: Run, **options: Any) -> None:
    """Leave the effect "charge" as a process does that is killed in it."""
    steps = run.effect("charge", **options)._steps()
    claim = next(steps)
    assert claim is not None
    assert steps.send(claim()) is None
    alive.append(steps)  # else it would end here, as an error does


alive: list[Any] = []


def test_what_a_killed_attempt_began_is_unknown_in_the_end(
    make: Callable[..., Run], gateway: Gateway, now: FakeClock, store: EffectStore
) -> None:
    died(make(1))
    with pytest.raises(EffectBusy) as busy:  # it may be a copy that is still at it
        make(2).once("charge", gateway.charge, 10)
    assert busy.value.seconds == 5
    now.advance(20)
    for _ in range(2):
        with pytest.raises(EffectUnknown, match=r"attempt 1 of run 01a2.* ended while it was at it"):
            make(2).once("charge", gateway.charge, 10)
    row = store.get(RUN, "charge")
    assert row is not None
    assert row.state is Standing.UNKNOWN
    assert gateway.charges == []


def test_a_late_attempt_that_ends_after_all_makes_it_known(
    make: Callable[..., Run], gateway: Gateway, now: FakeClock
) -> None:
    late = make(1)

    def charge_slowly() -> dict[str, Any]:
        now.advance(60)
        with pytest.raises(EffectUnknown):
            make(2).once("charge", gateway.charge, 1)
        return gateway.charge(10)

    late.once("charge", charge_slowly)
    assert make(3).once("charge", gateway.charge, 10) == {"id": 1, "amount": 10}


def test_of_two_at_once_one_does_it(make: Callable[..., Run]) -> None:
    inside, go = threading.Event(), threading.Event()
    done: list[str] = []

    def charge() -> str:
        inside.set()
        assert go.wait(20)
        done.append("charged")
        return "receipt"

    first = threading.Thread(target=lambda: make(1).once("charge", charge))
    first.start()
    assert inside.wait(20)
    with pytest.raises(EffectBusy, match="'charge' is at work"):
        make(2).once("charge", charge)
    go.set()
    first.join()
    assert make(2).once("charge", charge) == "receipt"
    assert done == ["charged"]


def test_of_many_at_once_one_does_it(make: Callable[..., Run]) -> None:
    done: list[int] = []
    told: list[str] = []
    barrier = threading.Barrier(8)

    def one(n: int) -> None:
        barrier.wait()
        try:
            told.append(
                make(1, id=f"run-{n}").effect("charge", scope="payment:1").once(lambda: done.append(n))
            )
        except EffectBusy:
            told.append("busy")

    threads = [threading.Thread(target=one, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) == 1
    assert set(told) <= {None, "busy"}
    assert len(told) == 8


def test_another_run_that_lives_is_waited_for(make: Callable[..., Run], now: FakeClock) -> None:
    log = InlineRuns()
    log.record(Event(kind=Kind.STARTED, run_id="a", at=now.timestamp()), hop=0)
    died(make(1, id="a", log=log), scope="payment:1")
    now.advance(3600)
    other = make(1, id="b", log=log).effect("charge", scope="payment:1")
    with pytest.raises(EffectBusy):
        other.once(print)
    log.record(Event(kind=Kind.FAILED, run_id="a", at=now.timestamp()), hop=0)
    with pytest.raises(EffectUnknown, match="'charge' of 'payment:1'"):
        other.once(print)


def test_results_come_back_as_json_the_first_time_as_well(make: Callable[..., Run]) -> None:
    @dataclass
    class Receipt:
        number: int
        parts: tuple[str, ...]

    first = make(1).once("charge", lambda: Receipt(7, ("a",)))
    assert first == make(2).once("charge", print) == {"number": 7, "parts": ["a"]}
    large = make(1).once("large", lambda: "x" * 70_000)
    assert large == make(2).once("large", print) == {"truncated": True, "bytes": 70_002}
    strange = make(1).once("strange", object)
    assert strange == make(2).once("strange", print)
    assert strange.startswith("<object object")


def test_a_coroutine_out_of_a_plain_function_is_refused_before_it_runs(
    make: Callable[..., Run], gateway: Gateway
) -> None:
    with pytest.raises(TypeError, match=r"run.once\('charge'\): .*<lambda> returned something to be awaited"):
        make(1).once("charge", lambda: gateway.acharge(10))
    assert gateway.charges == []
    assert make(1).once("charge", gateway.charge, 10)["id"] == 1


@pytest.mark.parametrize("name", ["", "x" * 201, "a\nb"])
def test_names_that_cannot_be_kept_are_refused(make: Callable[..., Run], name: str) -> None:
    with pytest.raises(ConfigurationError, match="1 to 200 printable characters"):
        make().once(name, print)
    with pytest.raises(ConfigurationError, match="the scope must be"):
        make().effect("charge", scope=name)


def test_a_time_limit_while_it_is_noted_does_not_forget_it(store: EffectStore, gateway: Gateway) -> None:
    class Interrupted:
        """Notes nothing the first time."""

        def __init__(self) -> None:
            self.times = 0

        def put(self, row: Any, *, token: str | None) -> bool:
            self.times += 1
            if self.times == 1:
                raise SoftTimeLimitExceeded
            return store.put(row, token=token)

        def __getattr__(self, name: str) -> Any:
            return getattr(store, name)

    interrupted: Any = Interrupted()
    with pytest.raises(SoftTimeLimitExceeded):
        Run(RUN, "pay", effects=lambda: interrupted).once("charge", gateway.charge, 10)
    assert Run(RUN, "pay", attempt=2, effects=lambda: store).once("charge", gateway.charge, 10)["id"] == 1


def test_a_run_made_by_hand_keeps_its_effects_itself(gateway: Gateway) -> None:
    run = Run("1", "pay")
    assert run.once("charge", gateway.charge, 1) == run.once("charge", gateway.charge, 1)
    assert len(gateway.charges) == 1


# -- in inline mode


@pytest.fixture
def app() -> Errands:
    return Errands("test", settings=Settings(inline=True))


def test_a_retry_does_not_charge_again(app: Errands, gateway: Gateway) -> None:
    @app.task(name="pay", retry=Retry(3))
    async def pay(amount: int, *, run: Run) -> str:
        receipt = await run.once("charge", gateway.acharge, amount, key=run.idempotency_key)
        if run.attempt < 3:
            raise ConnectionError("the mail server is away")
        return f"receipt {receipt['id']}"

    with inline(app):
        assert pay.delay(10).get() == "receipt 1"
        assert pay.delay(10).get() == "receipt 2"
    assert len({key for _, key in gateway.charges}) == 2


def test_helpers_without_the_run_find_it(app: Errands, gateway: Gateway) -> None:
    def charge(amount: int) -> Any:
        run = current_run()
        assert run is not None
        return run.once("charge", gateway.charge, amount)

    @app.task(name="pay", retry=Retry(1))
    def pay() -> Any:
        charge(1)
        return charge(1)

    with inline(app):
        assert pay.delay().get() == {"id": 1, "amount": 1}


def test_an_unknown_outcome_ends_the_run_at_once_and_is_a_dead_letter(app: Errands, gateway: Gateway) -> None:
    @app.task(name="pay", retry=Retry(3))
    def pay(*, run: Run) -> None:
        run.once("charge", gateway.charge, 10)

    gateway.raises_after = TimeoutError("no answer")
    with inline(app) as runs:
        result = pay.apply()
        found = runs.get(result.id)
        letters = [event for event in runs.events if event.kind is Kind.DEAD_LETTER]
    assert found is not None
    assert found.state is State.DISCARDED
    assert found.facts["error"]["type"] == "EffectUnknown"
    assert isinstance(result.result, Discard)
    assert len(letters) == len(gateway.charges) == 1
