"""A mail as a value and on the wire."""

import email
import email.policy

import pytest

from errands.core.errors import Discard
from errands.kits.mail.errors import InvalidMessage
from errands.kits.mail.message import Attachment, Message, parse_address, stable_message_id


def wire(message: Message) -> email.message.EmailMessage:
    data = message.build("Errands <errands@example.com>").as_bytes()
    assert data.isascii()
    assert max(map(len, data.split(b"\r\n"))) <= 998
    return email.message_from_bytes(data, policy=email.policy.default)


def test_a_mail_in_many_scripts_arrives_as_written():
    mail = wire(
        Message(
            to=[
                "Zoë Ångström <zoe@example.com>",
                '"Lee, Ann" <ann@example.com>',
                "李小龙 <li@bücher.example>",
            ],
            subject="Ваш курс «Основы» завершён 🎓",
            text="Grüße\n.\nمرحبا",
            html="<p>नमस्ते</p>",
            reply_to="Office <office@example.com>",
            headers={"List-Unsubscribe": "<https://example.com/u>"},
            attachments=(Attachment("Zertifikat Ω.pdf", "application/pdf", b"%PDF\x00\xff"),),
        )
    )
    assert [(a.display_name, a.addr_spec) for a in mail["To"].addresses] == [
        ("Zoë Ångström", "zoe@example.com"),
        ("Lee, Ann", "ann@example.com"),
        ("李小龙", "li@xn--bcher-kva.example"),
    ]
    assert mail["Subject"] == "Ваш курс «Основы» завершён 🎓"
    assert mail["From"] == "Errands <errands@example.com>"
    assert mail["Reply-To"] == "Office <office@example.com>"
    assert mail["List-Unsubscribe"] == "<https://example.com/u>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail["Message-ID"].endswith("@example.com>")
    assert mail.get_body(("plain",)).get_content().splitlines() == ["Grüße", ".", "مرحبا"]
    assert mail.get_body(("html",)).get_content().strip() == "<p>नमस्ते</p>"
    (file,) = mail.iter_attachments()
    assert (file.get_filename(), file.get_content_type()) == ("Zertifikat Ω.pdf", "application/pdf")
    assert file.get_content() == b"%PDF\x00\xff"


@pytest.mark.parametrize(
    "breaker",
    ["\r\n", "\n", "\r", "\x0b", "\x0c", "\x1c", "\x1e", "\x85", "\u2028", "\u2029", "\x00", "\ud800"],
)
@pytest.mark.parametrize("field", ["to", "subject", "sender", "reply_to", "header"])
def test_nothing_that_could_begin_another_header_gets_in(field, breaker):
    evil = f"x{breaker}Bcc: victim@example.com"
    change = {
        "header": {"headers": {"X-Note": evil}},
        "subject": {"subject": evil},
    }.get(field, {field: f"{evil} <a@example.com>"})
    with pytest.raises(InvalidMessage, match="one line") as caught:
        Message(**{"to": "a@example.com", "subject": "s", "text": "t"} | change)
    assert isinstance(caught.value, Discard)


@pytest.mark.parametrize(
    "address",
    [
        "", " ", "ann", "@example.com", "ann@", "ann@example..com", "a b@example.com", "ann@exa mple.com",
        "ann@example.com, bob@example.com", "ann@example.com>", "<ann@example.com", "<<ann@example.com>>",
        "ann@example.org)bob@example.org", "Ann <ann@example.com> bob@example.com", "ann@-example.com",
        ".ann@example.com", "a..b@example.com", "ann.@example.com", "ann@[127.0.0.1]",
        f"{'a' * 65}@example.com", f"ann@{'a' * 64}.com", "ann@example.com BODY=8BITMIME",
    ],
)  # fmt: skip
def test_what_is_not_one_address_is_refused(address):
    with pytest.raises(InvalidMessage, match="not one mail address"):
        parse_address(address)


@pytest.mark.parametrize(
    "values",
    [
        {"to": []},
        {"headers": {"Bcc": "x@example.com"}},
        {"headers": {"From": "x@example.com"}},
        {"headers": {"X Note": "x"}},
        {"headers": {"": "x"}},
        {"message_id": "nothing"},
        {"message_id": "<a b@c>"},
        {"text": "\ud800"},
        {"html": "\ud800"},
    ],
)
def test_a_message_that_cannot_be_sent_is_refused_when_it_is_made(values):
    with pytest.raises(InvalidMessage):
        Message(**{"to": "a@example.com", "subject": "s", "text": "t"} | values)


@pytest.mark.parametrize("name", ["", "a\r\nb", "a\nb", "a\x85b"])
def test_an_attachment_needs_a_name_of_one_line(name):
    with pytest.raises(InvalidMessage):
        Attachment(name, "text/plain", b"")


@pytest.mark.parametrize("content_type", ["", "pdf", "a/b; x=y", "a/b\r\nc", "a/b/c"])
def test_an_attachment_needs_a_media_type(content_type):
    with pytest.raises(InvalidMessage):
        Attachment("a.pdf", content_type, b"")


def test_a_mail_without_any_sender_is_refused():
    with pytest.raises(InvalidMessage, match="MAIL_FROM"):
        Message(to="a@example.com", subject="s", text="t").build()


def test_a_long_subject_of_a_hostile_length_stays_one_header():
    subject = "Überraschung " * 200
    assert wire(Message(to="a@example.com", subject=subject, text="t"))["Subject"].split() == subject.split()


def test_the_same_key_gives_the_same_message_id():
    first = stable_message_id("run-1", "example.com")
    assert first == stable_message_id("run-1", "example.com")
    assert first != stable_message_id("run-2", "example.com")
    mail = wire(Message(to="a@example.com", subject="s", text="t", message_id=first))
    assert mail["Message-ID"] == first


LONG = "https://school.example/unsubscribe/" + "x" * 200


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"headers": {"List-Unsubscribe": f"<{LONG}>"}}, f"List-Unsubscribe: <{LONG}>"),
        ({"message_id": f"<{'y' * 150}@example.com>"}, f"Message-ID: <{'y' * 150}@example.com>"),
        ({"subject": "z" * 300}, f"Subject: {'z' * 300}"),
        ({"subject": "a  b" + " c" * 60}, None),
        ({"subject": " spaces  at both ends" + " " * 90}, None),
        ({"to": [f"Person Number {n} <p{n}@example.com>" for n in range(20)]}, None),
    ],
)
def test_what_is_longer_than_a_line_is_broken_at_spaces_and_never_encoded(values, line):
    """Nobody may decode what stands in most headers (RFC 2047, 5): a link in them would be none any more."""
    message = Message(**{"to": "ann@example.com", "subject": "s", "text": "t"} | values)
    head = message.build("Errands <errands@example.com>").as_bytes().partition(b"\r\n\r\n")[0].decode()
    assert "=?" not in head
    lines = head.split("\r\n")
    assert all(each.strip() for each in lines)
    if line is not None:
        assert line in lines
    else:
        assert max(map(len, lines)) <= 78 or "subject" in values
    found = wire(message)
    if "subject" in values:
        assert found["Subject"].strip() == values["subject"].strip()
    if "to" in values:
        assert [str(each) for each in found["To"].addresses] == values["to"]
