"""The rows of recipients, on each kind of database: what is written when, and who is never sent to twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import timedelta

import pytest
from sqlalchemy import text

from errands import Limit, Retry, Run, Snooze
from errands.broker.client import Clients
from errands.broker.keys import Keys
from errands.broker.runs import LiveRuns
from errands.core import clock
from errands.core.clock import FakeClock
from errands.deliveries import (
    Bounced,
    Deferred,
    Deliveries,
    Delivery,
    DeliveryState,
    Failed,
    Halt,
    Outcome,
    Recipient,
    Sent,
    Skipped,
    Unknown,
    masked,
)
from errands.store.engine import Database

State = DeliveryState


@pytest.fixture
def deliveries(database: Database) -> Deliveries:
    return Deliveries(lambda: database)


def people(count: int) -> list[Recipient]:
    return [Recipient(f"p{n}@example.com") for n in range(count)]


def attempt(number: int = 1, run_id: str = "r") -> Run:
    return Run(run_id, "send", attempt=number)


class Sender:
    """Keeps whom it was called for; answers by address."""

    def __init__(self, answers: dict[str, Outcome | Exception] | None = None) -> None:
        self.called: list[str] = []
        self.answers = answers or {}

    async def __call__(self, row: Delivery) -> Outcome:
        assert row.address is not None
        self.called.append(row.address)
        await asyncio.sleep(0)
        answer = self.answers.get(row.address, Sent(f"id-{row.position}"))
        if isinstance(answer, Exception):
            raise answer
        return answer


async def told(deliveries: Deliveries) -> dict[str, tuple[str, str | None]]:
    return {str(row.address): (row.state.value, row.reason) for row in await deliveries.rows("r")}


# -- beginning


async def test_rows_are_written_once_and_who_is_not_to_be_sent_to_is_skipped(deliveries: Deliveries) -> None:
    await deliveries.opt_out("mail", "out@example.com", source="a link")
    await deliveries.opt_out("mail", "no-news@example.com", "news")
    await deliveries.opt_out("messages", "p1@example.com")
    recipients = [
        *people(5), Recipient("out@example.com"), Recipient("p3@example.com"),
        Recipient("no-news@example.com"), Recipient("nobody", skip="no address"), *people(2),
    ]  # fmt: skip
    for _ in range(2):
        totals = await deliveries.begin(attempt(), "mail", recipients, topic="news", chunk=3)
        assert (totals.recipients, totals["queued"], totals["skipped"]) == (11, 5, 6)
    reasons = [(row.address, row.reason) for row in await deliveries.rows("r") if row.reason]
    assert reasons == [
        ("out@example.com", "opted out"), ("p3@example.com", "in the list already"),
        ("no-news@example.com", "opted out"), ("nobody", "no address"),
        ("p0@example.com", "in the list already"), ("p1@example.com", "in the list already"),
    ]  # fmt: skip


async def test_a_further_attempt_writes_what_is_missing(deliveries: Deliveries) -> None:
    class Ends(Exception): ...

    def half() -> Iterator[Recipient]:
        yield from people(250)
        raise Ends

    with pytest.raises(Ends):
        await deliveries.begin(attempt(), "mail", half(), chunk=100)
    assert (await deliveries.totals("r")).recipients == 200
    read: list[int] = []

    def recipient(n: int) -> Recipient:
        read.append(n)
        return Recipient(f"p{n}@example.com", data={"n": n})

    totals = await deliveries.begin(attempt(2), "mail", range(450), read=recipient, chunk=100)
    assert (totals.recipients, totals["queued"]) == (450, 450)
    assert read == list(range(200, 450))
    rows = await deliveries.rows("r", after=198, limit=2)
    assert [(row.position, row.data) for row in rows] == [(199, None), (200, {"n": 200})]


async def test_recipients_may_come_from_asynchronous_code(deliveries: Deliveries) -> None:
    async def found() -> AsyncIterator[Recipient]:
        for each in people(25):
            yield each

    for _ in range(2):
        assert (await deliveries.begin(attempt(), "mail", found(), chunk=10)).recipients == 25


# -- sending


async def test_each_outcome_is_kept(deliveries: Deliveries) -> None:
    sender = Sender(
        {
            "p1@example.com": Bounced("550 no such user"),
            "p2@example.com": Failed("template"),
            "p3@example.com": Unknown("no answer"),
            "p4@example.com": Skipped("opted out there"),
        }
    )
    await deliveries.begin(attempt(), "mail", people(100))
    totals = await deliveries.deliver(attempt(), sender, at_once=7)
    assert totals.as_dict() == {
        "recipients": 100, "queued": 0, "sending": 0, "sent": 96, "deferred": 0, "bounced": 1, "failed": 1,
        "unknown": 1, "skipped": 1,
    }  # fmt: skip
    assert len(sender.called) == len(set(sender.called)) == 100
    rows = await deliveries.rows("r", limit=5)
    assert [(row.state.value, row.reason, row.provider_id, row.tries) for row in rows] == [
        ("sent", None, "id-0", 1), ("bounced", "550 no such user", None, 1), ("failed", "template", None, 1),
        ("unknown", "no answer", None, 1), ("skipped", "opted out there", None, 1),
    ]  # fmt: skip
    # Once more: there is nothing left to do.
    assert (await deliveries.deliver(attempt(2), sender)).open == 0
    assert len(sender.called) == 100


async def test_no_more_than_so_many_at_once_and_each_is_marked_before(deliveries: Deliveries) -> None:
    at_work, most, marked = 0, 0, []

    async def send(row: Delivery) -> Outcome:
        nonlocal at_work, most
        at_work += 1
        most = max(most, at_work)
        marked.append((await deliveries.rows("r", after=row.position - 1, limit=1))[0].state)
        at_work -= 1
        return Sent()

    await deliveries.begin(attempt(), "mail", people(40))
    await deliveries.deliver(attempt(), send, at_once=4)
    assert 1 < most <= 4
    assert set(marked) == {State.SENDING}


async def test_who_is_deferred_is_tried_again_alone_and_given_up_in_the_end(deliveries: Deliveries) -> None:
    sender = Sender({"p1@example.com": Deferred("450 busy"), "p2@example.com": Deferred("451", wait=500)})
    later = Retry(1, first=60, most=60, jitter=0)
    await deliveries.begin(attempt(), "mail", people(4))
    with clock.use(FakeClock()) as now:
        assert isinstance(now, FakeClock)
        with pytest.raises(Snooze, match="2 recipients are tried again later") as snooze:
            await deliveries.deliver(attempt(), sender, later=later)
        assert snooze.value.seconds == 60
        now.advance(60)
        with pytest.raises(Snooze) as snooze:
            await deliveries.deliver(attempt(), sender, later=later)
        assert snooze.value.seconds == 440
        assert sender.called.count("p1@example.com") == 2
        del sender.answers["p2@example.com"]
        now.advance(440)
        totals = await deliveries.deliver(attempt(), sender, later=later)
    assert (totals["sent"], totals["failed"]) == (3, 1)
    assert (await told(deliveries))["p1@example.com"] == ("failed", "given up after 2 tries: 450 busy")
    assert sorted(sender.called) == [f"p{n}@example.com" for n in (0, 1, 1, 2, 2, 3)]


async def test_inline_what_is_deferred_is_due_at_once(database: Database) -> None:
    deliveries = Deliveries(lambda: database, inline=True)
    sender = Sender({"p0@example.com": Deferred("450")})
    await deliveries.begin(attempt(), "mail", people(1))
    with pytest.raises(Snooze):
        await deliveries.deliver(attempt(), sender)
    sender.answers.clear()
    assert (await deliveries.deliver(attempt(), sender))["sent"] == 1


async def test_a_provider_that_is_away_ends_the_attempt_and_costs_nobody_a_try(
    deliveries: Deliveries,
) -> None:
    away = ConnectionError("nobody answers")
    sender = Sender({"p3@example.com": Halt(away)})
    await deliveries.begin(attempt(), "mail", people(10))
    with pytest.raises(ConnectionError, match="nobody answers"):
        await deliveries.deliver(attempt(), sender, at_once=1)
    assert len(sender.called) == 4
    row = (await deliveries.rows("r", after=2, limit=1))[0]
    assert (row.state, row.tries, row.reason) == (State.QUEUED, 0, "ConnectionError: nobody answers")
    sender.answers.clear()
    assert (await deliveries.deliver(attempt(2), sender))["sent"] == 10
    assert sender.called.count("p3@example.com") == 2


async def test_an_error_that_nobody_explained_ends_the_attempt_and_its_row_is_unknown(
    deliveries: Deliveries,
) -> None:
    sender = Sender({"p2@example.com": ZeroDivisionError("a bug")})
    await deliveries.begin(attempt(), "mail", people(10))
    with pytest.raises(ZeroDivisionError):
        await deliveries.deliver(attempt(), sender, at_once=1)
    assert (await told(deliveries))["p2@example.com"] == ("unknown", "ZeroDivisionError: a bug")
    totals = await deliveries.deliver(attempt(2), sender)
    assert (totals["sent"], totals["unknown"]) == (9, 1)
    assert sender.called.count("p2@example.com") == 1


# -- cut off


async def test_what_is_under_way_when_an_attempt_is_cut_off_may_end(deliveries: Deliveries) -> None:
    go = asyncio.Event()

    async def send(row: Delivery) -> Outcome:
        if row.position >= 5:
            await go.wait()
        return Sent()

    await deliveries.begin(attempt(), "mail", people(10))
    work = asyncio.create_task(deliveries.deliver(attempt(), send, at_once=2))
    while (await deliveries.totals("r"))["sent"] < 5:
        await asyncio.sleep(0.005)
    work.cancel()
    await asyncio.sleep(0)
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await work
    totals = await deliveries.totals("r")
    assert (totals["sending"], totals["unknown"]) == (0, 0)
    assert totals["sent"] + totals["queued"] == 10
    assert totals["queued"] >= 3


async def test_what_does_not_end_then_is_unknown(
    deliveries: Deliveries, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("errands.deliveries.line._GRACE", 0.01)

    async def send(row: Delivery) -> Outcome:
        await asyncio.Event().wait()
        return Sent()

    await deliveries.begin(attempt(), "mail", people(10))
    work = asyncio.create_task(deliveries.deliver(attempt(), send, at_once=2))
    while not (await deliveries.totals("r"))["sending"]:
        await asyncio.sleep(0.005)
    work.cancel()
    with pytest.raises(asyncio.CancelledError):
        await work
    totals = await deliveries.totals("r")
    assert (totals["unknown"], totals["queued"]) == (2, 8)


async def test_two_attempts_at_once_send_to_nobody_twice(deliveries: Deliveries) -> None:
    """A worker that was cut off and comes back, beside the one that took over."""
    sender = Sender()
    await deliveries.begin(attempt(), "mail", people(300))
    await asyncio.gather(*(deliveries.deliver(attempt(n), sender, at_once=5) for n in (1, 2)))
    assert sorted(sender.called) == sorted(f"p{n}@example.com" for n in range(300))
    totals = await deliveries.totals("r")
    assert totals["sent"] + totals["unknown"] == 300


async def test_who_was_taken_for_lost_and_comes_back_knows_better(deliveries: Deliveries) -> None:
    go = asyncio.Event()

    async def slow(row: Delivery) -> Outcome:
        await go.wait()
        return Sent("late")

    await deliveries.begin(attempt(), "mail", people(3))
    first = asyncio.create_task(deliveries.deliver(attempt(1), slow, at_once=1))
    while not (await deliveries.totals("r"))["sending"]:
        await asyncio.sleep(0.005)
    sender = Sender()
    totals = await deliveries.deliver(attempt(2), sender)
    assert (totals["sent"], totals["unknown"]) == (2, 1)
    assert (await told(deliveries))["p0@example.com"] == (
        "unknown", "its worker ended while it was under way",
    )  # fmt: skip
    go.set()
    assert (await first)["sent"] == 3
    assert sender.called == ["p1@example.com", "p2@example.com"]


async def test_a_run_that_is_at_work_for_long_lets_others_have_their_turn(deliveries: Deliveries) -> None:
    await deliveries.begin(attempt(), "mail", people(10))
    with pytest.raises(Snooze, match="others have their turn") as snooze:
        await deliveries.deliver(attempt(), Sender(), turn=0)
    assert snooze.value.seconds == 0
    assert (await deliveries.deliver(attempt(), Sender()))["sent"] == 10


# -- a limit


@pytest.fixture
def limited(valkey_url: str, key_prefix: str) -> Callable[[str], Run]:
    live = LiveRuns(Clients(valkey_url), Keys(key_prefix))
    limits = {"fast": Limit("6/1s", name="fast"), "slow": Limit("6/m", name="slow")}
    return lambda run_id: Run(run_id, "send", log=live, limits=limits)


async def test_a_limit_is_taken_from_by_row_and_short_waits_are_waited_for(
    deliveries: Deliveries, limited: Callable[[str], Run]
) -> None:
    run = limited("r")
    await deliveries.begin(run, "messages", people(15))
    begun = asyncio.get_running_loop().time()
    totals = await deliveries.deliver(run, Sender(), at_once=10, limit=Limit("6/1s", name="fast"))
    assert totals["sent"] == 15
    assert asyncio.get_running_loop().time() - begun > 1.9  # 6, 6, 3


async def test_for_a_long_wait_the_run_is_snoozed(
    deliveries: Deliveries, limited: Callable[[str], Run]
) -> None:
    run, sender = limited("r"), Sender()
    await deliveries.begin(run, "messages", people(15))
    with pytest.raises(Snooze, match="waits for the limit slow") as snooze:
        await deliveries.deliver(run, sender, at_once=4, limit=Limit("6/m", name="slow"))
    assert 30 < snooze.value.seconds <= 60
    assert 4 <= len(sender.called) <= 6
    assert (await deliveries.totals("r"))["sending"] == 0


# -- people


async def test_who_opts_out_while_a_run_is_on_its_way_is_not_sent_to(deliveries: Deliveries) -> None:
    await deliveries.begin(attempt(), "mail", people(3), topic="news")
    await deliveries.opt_out("mail", "p0@example.com", "news")
    await deliveries.opt_out("mail", "p1@example.com", "offers")
    assert await deliveries.opted_out("mail", "p0@example.com", "news")
    assert not await deliveries.opted_out("mail", "p0@example.com", "offers")
    sender = Sender()
    await deliveries.deliver(attempt(), sender)
    assert sender.called == ["p1@example.com", "p2@example.com"]
    assert (await told(deliveries))["p0@example.com"] == ("skipped", "opted out")
    assert await deliveries.opt_in("mail", "p0@example.com")
    assert not await deliveries.opt_in("mail", "p0@example.com")


async def test_an_address_is_erased_wherever_it_is(deliveries: Deliveries) -> None:
    await deliveries.begin(attempt(), "mail", people(3))
    await deliveries.deliver(attempt(), Sender({"p1@example.com": Bounced("550 <p1@example.com> no")}))
    await deliveries.begin(attempt(run_id="s"), "mail", people(2))
    assert await deliveries.erase_address("p1@example.com") == 2
    rows = [*(await deliveries.rows("r")), *(await deliveries.rows("s"))]
    assert [(row.address, row.state.value, row.reason) for row in rows if row.position == 1] == [
        (None, "bounced", None), (None, "skipped", "erased"),
    ]  # fmt: skip
    sender = Sender()
    await deliveries.deliver(attempt(run_id="s"), sender)
    assert sender.called == ["p0@example.com"]


async def test_rows_go_when_their_runs_do(deliveries: Deliveries, database: Database) -> None:
    from errands.beat.pruner import Pruner

    for run_id in ("old", "new"):
        await deliveries.begin(attempt(run_id=run_id), "mail", people(25))
    with database.writing() as connection:
        for run_id, days in (("old", 40), ("new", 3)):
            at = clock.now() - timedelta(days=days)
            connection.execute(
                text(
                    "INSERT INTO errands_runs (id, state, attempt, created_at, updated_at, finished_at) "
                    "VALUES (:id, 'succeeded', 1, :at, :at, :at)"
                ),
                {"id": run_id, "at": at if database.dialect == "postgresql" else at.replace(tzinfo=None)},
            )
    Pruner(database, chunk=10).step()
    assert [(await deliveries.totals(run_id)).recipients for run_id in ("old", "new")] == [0, 25]


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("ann@example.com", "a***@example.com"), ("+491701234567", "+49***67"), ("12345", "***"), ("", "***"),
        (None, "***"),
    ],
)  # fmt: skip
def test_addresses_are_masked_for_others(address: str | None, shown: str) -> None:
    assert masked(address) == shown
