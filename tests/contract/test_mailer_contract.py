"""What every mailer must do, the fake one included."""

import asyncio
import json
from dataclasses import dataclass
from email import message_from_bytes, policy

import pytest
from aiosmtpd.smtp import SMTP

from errands.core.errors import Discard
from errands.kits.mail.errors import InvalidMessage, PermanentMailError, TemporaryMailError
from errands.kits.mail.fake import FakeMailer
from errands.kits.mail.firebase import FirebaseMailer
from errands.kits.mail.message import Attachment, Message
from errands.kits.mail.smtp import SmtpMailer

SENDER = "School <school@example.com>"


@dataclass
class Arrived:
    to: list[str]
    sender: str
    subject: str
    text: str
    html: str
    message_id: str
    attachments: list[str]


class FakeSetup:
    async def start(self):
        self.mailer = FakeMailer(SENDER)

    def fail(self, kind):
        error = {"temporary": TemporaryMailError, "permanent": PermanentMailError}[kind]
        self.mailer.fail_with(error("no"))

    @property
    def arrived(self):
        return [
            Arrived(
                list(m.recipients), m.sender or SENDER, m.subject, m.text, m.html, m.message_id,
                [a.filename for a in m.attachments],
            )
            for m in self.mailer.outbox
        ]  # fmt: skip

    async def stop(self):
        pass


class SmtpSetup:
    async def start(self):
        self.arrived = []
        self.answers = []
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(lambda: SMTP(self, hostname="mx.example.com"), "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        self.mailer = SmtpMailer("127.0.0.1", port, starttls=False, sender=SENDER)

    def fail(self, kind):
        self.answers.append({"temporary": "451 later", "permanent": "550 never"}[kind])

    async def handle_DATA(self, server, session, envelope):
        if self.answers:
            return self.answers.pop()
        mail = message_from_bytes(envelope.content, policy=policy.default)
        self.arrived.append(
            Arrived(
                envelope.rcpt_tos, mail["From"], mail["Subject"],
                mail.get_body(("plain",)).get_content().strip(),
                mail.get_body(("html",)).get_content().strip(), mail["Message-ID"],
                [part.get_filename() for part in mail.iter_attachments()],
            )
        )  # fmt: skip
        return "250 ok"

    async def stop(self):
        self.server.close()


class FirebaseSetup:
    """A cloud function as small as can be: HTTP/1.1, one request a connection."""

    async def start(self):
        self.arrived = []
        self.answers = []
        self.server = await asyncio.start_server(self.answer, "127.0.0.1", 0)
        port = self.server.sockets[0].getsockname()[1]
        self.mailer = FirebaseMailer(f"http://127.0.0.1:{port}/sendMail", sender=SENDER)

    def fail(self, kind):
        self.answers.append({"temporary": 503, "permanent": 400}[kind])

    async def answer(self, reader, writer):
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.split("content-length: ")[1].split("\r\n")[0])
        mail = json.loads(await reader.readexactly(length))
        status = self.answers.pop() if self.answers else 200
        if status == 200:
            assert f"idempotency-key: {mail['messageId']}".lower() in head
            self.arrived.append(
                Arrived(
                    mail["to"], mail["from"], mail["subject"], mail["text"], mail["html"], mail["messageId"],
                    [a["filename"] for a in mail["attachments"]],
                )
            )  # fmt: skip
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async def stop(self):
        self.server.close()


@pytest.fixture(params=[FakeSetup, SmtpSetup, FirebaseSetup])
async def setup(request):
    setup = request.param()
    await setup.start()
    yield setup
    await setup.mailer.aclose()
    await setup.stop()


def message(**values):
    return Message(
        **{
            "to": ["ann@example.com", "bob@example.com"],
            "subject": "Grüße, 世界",
            "text": "Hallo",
            "html": "<p>Hallo</p>",
            "message_id": "<one@example.com>",
            "attachments": (Attachment("a.pdf", "application/pdf", b"%PDF"),),
        }
        | values
    )


async def test_what_is_sent_arrives(setup):
    receipt = await setup.mailer.send(message())
    assert receipt.message_id == "<one@example.com>"
    (arrived,) = setup.arrived
    assert arrived == Arrived(
        to=["ann@example.com", "bob@example.com"],
        sender=SENDER,
        subject="Grüße, 世界",
        text="Hallo",
        html="<p>Hallo</p>",
        message_id="<one@example.com>",
        attachments=["a.pdf"],
    )


async def test_a_message_may_name_its_own_sender(setup):
    await setup.mailer.send(message(sender="Office <office@example.com>"))
    assert setup.arrived[0].sender == "Office <office@example.com>"


async def test_a_mail_without_an_id_gets_one(setup):
    first = await setup.mailer.send(message(message_id=None))
    second = await setup.mailer.send(message(message_id=None))
    assert first.message_id != second.message_id
    assert first.message_id.endswith("@example.com>")


async def test_a_passing_failure_can_be_sent_again(setup):
    setup.fail("temporary")
    with pytest.raises(TemporaryMailError) as caught:
        await setup.mailer.send(message())
    assert not isinstance(caught.value, Discard)
    assert setup.arrived == []
    await setup.mailer.send(message())
    assert len(setup.arrived) == 1


async def test_a_final_failure_ends_the_run(setup):
    setup.fail("permanent")
    with pytest.raises(PermanentMailError) as caught:
        await setup.mailer.send(message())
    assert isinstance(caught.value, Discard)
    assert setup.arrived == []


async def test_no_message_with_a_line_break_in_a_header_reaches_a_mailer(setup):
    with pytest.raises(InvalidMessage):
        await setup.mailer.send(message(subject="x\r\nBcc: victim@example.com"))
    assert setup.arrived == []


async def test_closing_twice_is_harmless_and_sending_opens_again(setup):
    await setup.mailer.send(message())
    await setup.mailer.aclose()
    await setup.mailer.aclose()
    await setup.mailer.send(message())
    assert len(setup.arrived) == 2
