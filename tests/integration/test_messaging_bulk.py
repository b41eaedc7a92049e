"""Bulk messages against a local server that answers by number, on each kind of database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from errands import Deliveries, Run, Snooze
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits import messaging
from errands.store.engine import Database
from message_services import GATEWAY, SILENT, Service, WhatsApp, meta_error, serving

NUMBERS = [f"+4917012345{n:02}" for n in range(10)]


class Rig:
    def __init__(self, database: Database, service: Service) -> None:
        self.deliveries = Deliveries(lambda: database)
        self.service = service
        self.messenger = messaging.WhatsAppMessenger(
            "good-token", "10654", url=f"{service.url}/v23.0", timeout=0.5
        )
        self.messages = messaging.BulkMessages(self.messenger, self.deliveries, region="DE")

    async def send(self, to: Any, content: Any = "Closed", attempt: int = 1, run: str = "r") -> Any:
        return await self.messages.send(Run(run, "send", attempt=attempt), to, content)

    async def rows(self) -> dict[str, tuple[str, str | None]]:
        rows = await self.deliveries.rows("r")
        return {str(row.address): (row.state.value, row.reason) for row in rows}

    def asked(self) -> list[str]:
        return sorted(request.body["to"] for request in self.service.arrived)


@pytest.fixture
async def rig(database: Database) -> AsyncIterator[Rig]:
    async with serving(WhatsApp()) as service:
        rig = Rig(database, service)
        yield rig
        await rig.messenger.aclose()


async def test_each_number_gets_one_message_in_whatever_form_it_came(rig: Rig) -> None:
    to = [*NUMBERS, "0170 1234500", "+49 (0)170 12345-01", "no number", "+49 12"]
    totals = await rig.send(to)
    assert (totals["sent"], totals["skipped"]) == (10, 4)
    assert rig.asked() == NUMBERS
    rows = await rig.deliveries.rows("r")
    assert [row.reason for row in rows[10:12]] == ["in the list already"] * 2
    assert "is no phone number" in str(rows[12].reason)
    assert all(str(row.provider_id).startswith("wamid.") for row in rows[:10])


async def test_the_provider_answers_for_each_and_only_who_may_is_tried_again(rig: Rig) -> None:
    rig.service.by_number = {
        NUMBERS[1]: meta_error(400, 131056, "pair rate limit hit", Retry_After="90"),
        NUMBERS[2]: meta_error(400, 131026, "Message undeliverable", "Not on WhatsApp."),
        NUMBERS[3]: SILENT,
        NUMBERS[4]: GATEWAY,
        NUMBERS[5]: meta_error(400, 131050, "User stopped marketing messages"),
    }
    with clock.use(FakeClock()) as now:
        assert isinstance(now, FakeClock)
        with pytest.raises(Snooze, match="1 recipients are tried again later") as snooze:
            await rig.send(NUMBERS)
        assert snooze.value.seconds == 90
        rows = await rig.rows()
        assert [rows[number][0] for number in NUMBERS[:6]] == [
            "sent", "deferred", "failed", "unknown", "unknown", "skipped",
        ]  # fmt: skip
        assert rows[NUMBERS[2]][1] == "WhatsApp answered 131026: Not on WhatsApp."
        rig.service.by_number.clear()
        rig.service.arrived.clear()
        now.advance(90)
        totals = await rig.send(NUMBERS, attempt=2)
    assert rig.asked() == [NUMBERS[1]]
    assert (totals["sent"], totals["unknown"], totals["failed"], totals["skipped"]) == (6, 2, 1, 1)
    # Who told the provider that they want nothing gets nothing from the next run either.
    assert (await rig.send(NUMBERS[5:7], run="next"))["skipped"] == 1


async def test_a_provider_that_is_busy_costs_nobody_their_turn(rig: Rig) -> None:
    rig.service.answers = [meta_error(429, 130429, "Rate limit hit", Retry_After="7")] * 10
    with pytest.raises(messaging.ProviderUnavailable) as busy:
        await rig.send(NUMBERS)
    assert busy.value.retry_after == 7
    assert {state for state, _ in (await rig.rows()).values()} == {"queued"}
    rig.service.answers.clear()
    assert (await rig.send(NUMBERS, attempt=2))["sent"] == 10
    assert {row.tries for row in await rig.deliveries.rows("r")} == {1}


async def test_a_token_that_is_not_right_fails_nobody(rig: Rig) -> None:
    rig.service.answers = [meta_error(401, 190, "Access token has expired")] * 10
    with pytest.raises(messaging.ProviderRefused, match="WHATSAPP_TOKEN"):
        await rig.send(NUMBERS)
    assert {state for state, _ in (await rig.rows()).values()} == {"queued"}


async def test_templates_have_values_for_all_and_for_each(rig: Rig) -> None:
    to = [
        messaging.To(NUMBERS[0], {"name": "Ann"}, person="1"),
        messaging.To(NUMBERS[1], {"name": "Bob", "day": "Monday"}),
        NUMBERS[2],
    ]
    await rig.send(to, messaging.Template("closed", {"name": "you", "day": "Friday"}))
    said = {
        request.body["to"]: {
            place["parameter_name"]: place["text"]
            for place in request.body["template"]["components"][0]["parameters"]
        }
        for request in rig.service.arrived
    }
    assert said == {
        NUMBERS[0]: {"name": "Ann", "day": "Friday"}, NUMBERS[1]: {"name": "Bob", "day": "Monday"},
        NUMBERS[2]: {"name": "you", "day": "Friday"},
    }  # fmt: skip
    assert [row.person for row in await rig.deliveries.rows("r")] == ["1", None, None]


async def test_values_for_a_text_fail_for_that_one(rig: Rig) -> None:
    totals = await rig.send([messaging.To(NUMBERS[0], {"name": "Ann"}), NUMBERS[1]])
    assert (totals["failed"], totals["sent"]) == (1, 1)


@pytest.mark.parametrize("text", ["", "x" * 1001])
async def test_a_text_that_nobody_may_get_is_refused_before_anything_is_written(rig: Rig, text: str) -> None:
    with pytest.raises(messaging.InvalidMessage):
        await rig.send(NUMBERS, text)
    assert await rig.rows() == {}
