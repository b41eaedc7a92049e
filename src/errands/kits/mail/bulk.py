"""One mail each to many people, with a row for each: who got it, who did not and why, who must not."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from errands import Discard, Limit, OutcomeUnknown, Retry, Run
from errands.deliveries import (
    Bounced,
    Deferred,
    Deliveries,
    Delivery,
    Failed,
    Halt,
    Outcome,
    Recipient,
    Sent,
    Totals,
    Unknown,
)
from errands.kits.mail.attachments import Attachments, Stored
from errands.kits.mail.errors import (
    InvalidMessage,
    PermanentMailError,
    ServerRefused,
    ServerUnavailable,
    TemplateError,
    TemporaryMailError,
)
from errands.kits.mail.message import Attachment, Message, parse_address, stable_message_id
from errands.kits.mail.provider import Mailer
from errands.kits.mail.templates import Rendered, Templates
from errands.kits.mail.unsubscribe import Unsubscribe

CHANNEL = "mail"
# Servers that grey-list want a try after some minutes; one that is full, after hours.
LATER = Retry(5, first=60, most=4 * 3600, factor=5)
_LONGEST = 320  # characters of an address


@dataclass(frozen=True, slots=True)
class To:
    """One to write to, with what is theirs alone.

    Args:
        address: `ann@example.com` or `Ann Lee <ann@example.com>`.
        values: for the template, over those for all.
        person: their id, by which `erase_person` finds the row.
        attachments: for them alone.
    """

    address: str
    values: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    person: str | None = None
    attachments: Sequence[Stored] = ()


class BulkMail:
    """Writes to many. Ask for it in a task's signature: `*, bulk: mail.BulkMail`.

    Args:
        mailer: sends.
        deliveries: keeps the rows.
        sender: whom mails are from (MAIL_FROM); its domain goes into their Message-IDs.
        templates: the mails.
        unsubscribe: makes the links; without it mails have none.
        attachments: reads stored files.
    """

    def __init__(
        self, mailer: Mailer, deliveries: Deliveries, *, sender: str, templates: Templates | None = None,
        unsubscribe: Unsubscribe | None = None, attachments: Attachments | None = None,
    ) -> None:  # fmt: skip
        self._mailer = mailer
        self._deliveries = deliveries
        self._sender = sender
        self._templates = templates
        self._unsubscribe = unsubscribe
        self._attachments = attachments

    async def send(
        self,
        run: Run,
        recipients: Iterable[str | To] | AsyncIterable[str | To],
        content: str | Rendered,
        *,
        values: Mapping[str, Any] | None = None,
        topic: str = "",
        attachments: Sequence[Attachment | Stored] = (),
        sender: str | None = None,
        reply_to: str | None = None,
        headers: Mapping[str, str] | None = None,
        at_once: int = 8,
        later: Retry = LATER,
        limit: Limit | None = None,
    ) -> Totals:
        """Write to each of `recipients` once, however often the run is tried.

        Args:
            run: the run that does it; its rows are at `/api/deliveries/<task id>`.
            recipients: the same ones in the same order at each attempt. Who comes twice (domains are compared
                without case), has opted out, or has no address is skipped.
            content: the name of a template, or a mail that is the same for all.
            values: for the template, for all; `address` and `unsubscribe_url` are there too.
            topic: what it is about, for those who opt out of that alone.
            attachments: for all.
            sender, reply_to, headers: as `Message` has them.
            at_once: mails on their way at the same time.
            later: when a recipient whose server said "not now" is tried again, and how often.
            limit: one that `app.add_limit` declared: each mail takes 1 of it.

        Returns:
            How many are in each state; none of them waits.

        Raises:
            InvalidMessage, TemplateError: the content cannot be sent to anybody.
            ServerUnavailable, ServerRefused: the server takes no mail at all; nobody's turn is lost.
            Snooze: some are tried again later; let it pass.
        """
        shared = dict(values or {})
        loaded = [await self._load(each) if isinstance(each, Stored) else each for each in attachments]
        letter = _Letter(
            self, run, content, shared, topic, tuple(loaded), sender, reply_to, dict(headers or {})
        )
        letter.check()
        await self._deliveries.begin(run, CHANNEL, recipients, read=_recipient, topic=topic)
        return await self._deliveries.deliver(run, letter.send, at_once=at_once, later=later, limit=limit)

    async def _load(self, stored: Stored) -> Attachment:
        if self._attachments is None:
            raise InvalidMessage(f"{stored.key!r} is in storage, and mail.kit(read=…) was not given a reader")
        return await self._attachments.load(stored)


@dataclass(frozen=True, slots=True)
class _Letter:
    """What one call of `send` sends, to whomever."""

    bulk: BulkMail
    run: Run
    content: str | Rendered
    values: dict[str, Any]
    topic: str
    attachments: tuple[Attachment, ...]
    sender: str | None
    reply_to: str | None
    headers: dict[str, str]

    def check(self) -> None:
        """Refuse what could be sent to nobody."""
        templates = self.bulk._templates
        given = self.content if isinstance(self.content, Rendered) else Rendered("", "", None)
        self._message("somebody@example.com", given, self.headers, self.attachments, None)
        if isinstance(self.content, Rendered):
            return
        if templates is None or self.content not in templates.names:
            known = ", ".join(sorted(templates.names)) if templates is not None else ""
            raise TemplateError(f"no mail template {self.content!r}; there are: {known or 'none'}")

    async def send(self, row: Delivery) -> Outcome:
        """Write to one, and say what came of it."""
        try:
            message = await self._write(row)
        except (InvalidMessage, TemplateError, Discard) as exc:
            return Failed(str(exc))
        except Exception as exc:  # noqa: BLE001 — a reader's: the store of files may be there again later
            return Deferred(f"an attachment could not be read: {type(exc).__name__}: {exc}"[:500])
        try:
            receipt = await self.bulk._mailer.send(message)
        except (ServerUnavailable, ServerRefused) as exc:
            return Halt(exc)
        except OutcomeUnknown as exc:
            return Unknown(str(exc))
        except InvalidMessage as exc:
            return Failed(str(exc))
        except PermanentMailError as exc:
            return Bounced(str(exc))
        except TemporaryMailError as exc:
            return Deferred(str(exc))
        return Sent(receipt.message_id)

    async def _write(self, row: Delivery) -> Message:
        assert row.address is not None  # noqa: S101 — what is erased is not sent
        data = row.data or {}
        own = [await self.bulk._load(Stored(*each)) for each in data.get("attachments", ())]
        unsubscribe = self.bulk._unsubscribe
        headers = dict(self.headers)
        values = {**self.values, **data.get("values", {}), "address": row.address}
        if unsubscribe is not None:
            headers |= unsubscribe.headers(row.address, self.topic)
            values["unsubscribe_url"] = headers["List-Unsubscribe"].strip("<>")
        content = self.content
        if not isinstance(content, Rendered):
            assert self.bulk._templates is not None  # noqa: S101 — see `check`
            content = self.bulk._templates.render(content, **values)
        return self._message(data.get("to", row.address), content, headers, (*self.attachments, *own), row.id)

    def _message(
        self, to: str, content: Rendered, headers: Mapping[str, str], attachments: tuple[Attachment, ...],
        key: str | None,
    ) -> Message:  # fmt: skip
        sender = self.sender or self.bulk._sender
        return Message(
            to=to, subject=content.subject, text=content.text, html=content.html, sender=sender,
            reply_to=self.reply_to, headers=headers, attachments=attachments,
            message_id=None if key is None else stable_message_id(key, parse_address(sender).domain),
        )  # fmt: skip


def same_address(text: str) -> str:
    """The one form of an address, in which the domain has no case, and no name stands before it.

    Raises:
        InvalidMessage: it is not exactly one address.
    """
    address = parse_address(text)
    return f"{address.username}@{address.domain.lower()}"


def _recipient(given: str | To) -> Recipient:
    to = To(given) if isinstance(given, str) else given
    data: dict[str, Any] = {}
    if to.values:
        data["values"] = dict(to.values)
    if to.attachments:
        data["attachments"] = [[each.key, each.filename, each.content_type] for each in to.attachments]
    try:
        address = same_address(to.address)
    except InvalidMessage as exc:
        return Recipient(to.address[:_LONGEST], person=to.person, skip=str(exc)[:500])
    if "<" in to.address:  # with a name
        data["to"] = to.address
    return Recipient(address, person=to.person, data=data or None)
