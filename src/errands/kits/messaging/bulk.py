"""One message each to many people, under one limit, with a row for each."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any

from errands import Limit, OutcomeUnknown, Retry, Run
from errands.deliveries import (
    Deferred,
    Deliveries,
    Delivery,
    Failed,
    Halt,
    Outcome,
    Recipient,
    Sent,
    Skipped,
    Totals,
    Unknown,
)
from errands.kits.messaging.errors import (
    InvalidMessage,
    InvalidNumber,
    PermanentMessageError,
    ProviderRefused,
    ProviderUnavailable,
    RecipientOptedOut,
    TemporaryMessageError,
    UnknownOutcomeError,
)
from errands.kits.messaging.numbers import LONGEST, normalised
from errands.kits.messaging.provider import Content, Messenger, Template, Text

CHANNEL = "messages"
LATER = Retry(4, first=60, most=3600, factor=4)


@dataclass(frozen=True, slots=True)
class To:
    """One to send to, with what is theirs alone.

    Args:
        number: as people write it.
        values: of a template, over those for all.
        person: their id, by which `erase_person` finds the row.
    """

    number: str
    values: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    person: str | None = None


class BulkMessages:
    """Sends to one or many. Ask for it in a task's signature: `*, messages: messaging.BulkMessages`.

    Args:
        messenger: sends.
        deliveries: keeps the rows.
        region: the country of numbers that name none: "DE". None takes only those with a `+`.
        limit: one that `app.add_limit` declared: each message takes 1 of it. None: as fast as it goes.
    """

    def __init__(
        self, messenger: Messenger, deliveries: Deliveries, *, region: str | None = None,
        limit: Limit | None = None,
    ) -> None:  # fmt: skip
        self._messenger = messenger
        self._deliveries = deliveries
        self._region = region
        self._limit = limit

    async def send(
        self,
        run: Run,
        recipients: Iterable[str | To] | AsyncIterable[str | To],
        content: str | Content,
        *,
        topic: str = "",
        at_once: int = 10,
        later: Retry = LATER,
    ) -> Totals:
        """Send to each of `recipients` once, however often the run is tried.

        Args:
            run: the run that does it; its rows are at `/api/deliveries/<task id>`.
            recipients: the same ones in the same order at each attempt. Who comes twice (in whatever form),
                has opted out, or has no number is skipped.
            content: what to send; a text is 1 to 1,000 characters.
            topic: what it is about, for those who opt out of that alone.
            at_once: messages on their way at the same time.
            later: when a recipient of whom the provider said "not now" is tried again, and how often.

        Returns:
            How many are in each state; none of them waits.

        Raises:
            InvalidMessage: the content cannot be sent to anybody.
            ProviderUnavailable, ProviderRefused: the provider takes no message at all; nobody's turn is lost.
            Snooze: the limit is reached, or some are tried again later; let it pass.
        """
        said = Text(content) if isinstance(content, str) else content

        async def send(row: Delivery) -> Outcome:
            return await self._send(row, said)

        await self._deliveries.begin(run, CHANNEL, recipients, read=self._recipient, topic=topic)
        return await self._deliveries.deliver(run, send, at_once=at_once, later=later, limit=self._limit)

    async def send_template(
        self, run: Run, number: str, template: str, values: Sequence[str] | Mapping[str, str] = (), *,
        language: str = "en", later: Retry = LATER,
    ) -> str:  # fmt: skip
        """Send one message by a template. Returns what the provider calls it.

        Raises:
            PermanentMessageError: it will never be taken; the text has the provider's reason.
            UnknownOutcomeError: nobody can say whether it was taken.
            And what `send` raises.
        """
        content = Template(template, values, language)
        await self.send(run, [number], content, later=later)
        (row,) = await self._deliveries.rows(run.id, limit=1)
        if row.state == "unknown":
            raise UnknownOutcomeError(row.reason or "nobody can say whether it was taken")
        if row.state != "sent":
            raise PermanentMessageError(f"it is {row.state}: {row.reason}")
        return row.provider_id or ""

    async def _send(self, row: Delivery, content: Content) -> Outcome:
        assert row.address is not None  # noqa: S101 — what is erased is not sent
        try:
            receipt = await self._messenger.send(row.address, _for(row, content))
        except (ProviderUnavailable, ProviderRefused) as exc:
            return Halt(exc)
        except OutcomeUnknown as exc:
            return Unknown(str(exc))
        except RecipientOptedOut as exc:
            await self._deliveries.opt_out(CHANNEL, row.address, source="provider")
            return Skipped(str(exc))
        except PermanentMessageError as exc:
            return Failed(str(exc))
        except TemporaryMessageError as exc:
            return Deferred(str(exc), exc.retry_after)
        return Sent(receipt.id)

    def _recipient(self, given: str | To) -> Recipient:
        to = To(given) if isinstance(given, str) else given
        data: dict[str, Any] | None = {"values": dict(to.values)} if to.values else None
        try:
            number = normalised(to.number, self._region)
        except InvalidNumber as exc:
            return Recipient(to.number[:LONGEST], person=to.person, skip=str(exc)[:500])
        return Recipient(number, person=to.person, data=data)


def _for(row: Delivery, content: Content) -> Content:
    own = (row.data or {}).get("values")
    if not own:
        return content
    if not isinstance(content, Template):
        raise InvalidMessage("values are for templates: a text is the same for all")
    return replace(content, values={**content.named(), **own})
