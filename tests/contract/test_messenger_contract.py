"""What every provider of messages must do, the fake one included."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, ClassVar

import pytest

from errands import Discard
from errands.kits.messaging import (
    ConsoleMessenger,
    FakeMessenger,
    Messenger,
    PermanentMessageError,
    Template,
    TemporaryMessageError,
    Text,
    TwilioMessenger,
    WhatsAppMessenger,
)
from message_services import Service, Twilio, WhatsApp, meta_error, serving, twilio_error

ANN = "+491701234567"


class Setup:
    """A messenger, what has arrived by it as (number, what was said), and how to let it fail."""

    messenger: Messenger

    async def start(self, stack: AsyncExitStack, folder: Path) -> None:
        raise NotImplementedError

    def arrived(self) -> list[tuple[str, Any]]:
        raise NotImplementedError

    def fail(self, how: str) -> None:
        pytest.skip("it writes into a file, which does not fail like this")


class FakeSetup(Setup):
    async def start(self, stack: AsyncExitStack, folder: Path) -> None:
        self.fake = self.messenger = FakeMessenger()

    def arrived(self) -> list[tuple[str, Any]]:
        return [
            (to, content.body if isinstance(content, Text) else (content.name, content.named()))
            for to, content in self.fake.outbox
        ]

    def fail(self, how: str) -> None:
        errors = {"temporary": TemporaryMessageError("busy"), "permanent": PermanentMessageError("never")}
        self.fake.fail_with(errors[how])


class ConsoleSetup(Setup):
    async def start(self, stack: AsyncExitStack, folder: Path) -> None:
        self.console = self.messenger = ConsoleMessenger(folder / "home" / "messages.jsonl")

    def arrived(self) -> list[tuple[str, Any]]:
        return [
            (line["to"], line.get("text") or (line["template"], line["values"]))
            for line in self.console.lines()
        ]


class HttpSetup(Setup):
    service: Service
    answers: ClassVar[dict[str, Any]]

    def fail(self, how: str) -> None:
        self.service.answers.append(self.answers[how])


class WhatsAppSetup(HttpSetup):
    answers: ClassVar[dict[str, Any]] = {
        "temporary": meta_error(400, 131056, "pair rate limit hit"),
        "permanent": meta_error(400, 131026, "Message undeliverable"),
    }

    async def start(self, stack: AsyncExitStack, folder: Path) -> None:
        self.service = await stack.enter_async_context(serving(WhatsApp()))
        self.messenger = WhatsAppMessenger("good-token", "10654", url=f"{self.service.url}/v23.0")

    def arrived(self) -> list[tuple[str, Any]]:
        return [(request.body["to"], self._said(request.body)) for request in self.service.arrived]

    def _said(self, body: dict[str, Any]) -> Any:
        if body["type"] == "text":
            return body["text"]["body"]
        places = body["template"].get("components", [{"parameters": []}])[0]["parameters"]
        values = {place.get("parameter_name", str(n)): place["text"] for n, place in enumerate(places, 1)}
        return body["template"]["name"], values


class TwilioSetup(HttpSetup):
    answers: ClassVar[dict[str, Any]] = {
        "temporary": twilio_error(429, 20429, "Too Many Requests"),
        "permanent": twilio_error(400, 21211, "Invalid 'To' Phone Number"),
    }

    async def start(self, stack: AsyncExitStack, folder: Path) -> None:
        self.service = await stack.enter_async_context(serving(Twilio()))
        self.messenger = TwilioMessenger("AC1", "good-token", "+4930123456", url=self.service.url)

    def arrived(self) -> list[tuple[str, Any]]:
        import json

        return [
            (
                request.body["To"],
                request.body.get("Body")
                or (request.body["ContentSid"], json.loads(request.body["ContentVariables"])),
            )
            for request in self.service.arrived
        ]


@pytest.fixture(params=[FakeSetup, ConsoleSetup, WhatsAppSetup, TwilioSetup])
async def setup(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Setup]:
    made: Setup = request.param()
    async with AsyncExitStack() as stack:
        await made.start(stack, tmp_path)
        yield made
        await made.messenger.aclose()


async def test_a_text_arrives_as_it_is(setup: Setup) -> None:
    text = "Grüße, 世界 & Ä=+%\nzweite Zeile " + "x" * 900
    receipt = await setup.messenger.send(ANN, Text(text))
    assert receipt.id
    assert setup.arrived() == [(ANN, text)]


@pytest.mark.parametrize(
    ("values", "named"),
    [
        (["Ann", "Friday"], {"1": "Ann", "2": "Friday"}),
        ({"1": "Ann", "2": "Friday"}, {"1": "Ann", "2": "Friday"}),
        ({"name": "Ann"}, {"name": "Ann"}),
        ([], {}),
    ],
)
async def test_a_template_arrives_with_its_values(setup: Setup, values: Any, named: dict[str, str]) -> None:
    await setup.messenger.send(ANN, Template("closed_today", values))
    assert setup.arrived() == [(ANN, ("closed_today", named))]


async def test_each_message_has_an_id_of_its_own(setup: Setup) -> None:
    ids = {(await setup.messenger.send(ANN, Text("hello"))).id for _ in range(3)}
    assert len(ids) == 3


async def test_what_may_pass_can_be_sent_again(setup: Setup) -> None:
    setup.fail("temporary")
    with pytest.raises(TemporaryMessageError) as caught:
        await setup.messenger.send(ANN, Text("hello"))
    assert not isinstance(caught.value, Discard)
    assert (await setup.messenger.send(ANN, Text("hello"))).id


async def test_what_will_never_pass_ends_the_run(setup: Setup) -> None:
    setup.fail("permanent")
    with pytest.raises(PermanentMessageError) as caught:
        await setup.messenger.send(ANN, Text("hello"))
    assert isinstance(caught.value, Discard)


async def test_it_can_be_closed_twice_and_used_again(setup: Setup) -> None:
    for _ in range(2):
        await setup.messenger.send(ANN, Text("hello"))
        await setup.messenger.aclose()
        await setup.messenger.aclose()
    assert len(setup.arrived()) == 2
