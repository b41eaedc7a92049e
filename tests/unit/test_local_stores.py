"""What the mail catcher and the webhook receiver keep, over a restart too."""

from __future__ import annotations

import stat
from email.message import EmailMessage
from pathlib import Path

import pytest

from errands.doors.local.delivery_store import Delivery, DeliveryStore
from errands.doors.local.mail_store import MailStore

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def a_mail(subject: str = "Grüße aus 東京") -> bytes:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "School <s@example.com>", "ann@example.com", subject
    mail.set_content("Text: مرحبا")
    mail.add_alternative("<b>HTML</b>", subtype="html")
    mail.add_attachment(b"%PDF-1.7", maintype="application", subtype="pdf", filename="Zeugnis ä.pdf")
    return mail.as_bytes()


def test_a_mail_is_read_in_all_its_parts(tmp_path: Path) -> None:
    mail = MailStore(tmp_path).add(a_mail(), "s@example.com", ["ann@example.com", "blind@example.com"])
    fields = mail.as_json()
    assert fields["from"] == "School <s@example.com>"
    assert fields["to"] == ["ann@example.com", "blind@example.com"]
    assert fields["subject"] == "Grüße aus 東京"
    assert "مرحبا" in fields["text"]
    assert "<b>HTML</b>" in fields["html"]
    assert fields["attachments"] == [
        {"filename": "Zeugnis ä.pdf", "content_type": "application/pdf", "size": 8}
    ]


def test_mails_are_there_after_a_restart_newest_first(tmp_path: Path) -> None:
    store = MailStore(tmp_path)
    added = [store.add(a_mail(f"mail {number}"), "s@example.com", ["a@example.com"]) for number in range(3)]
    again = MailStore(tmp_path)
    assert list(again) == added[::-1]
    found = again.attachment(added[0].id, 0)
    assert found is not None
    assert found[1] == b"%PDF-1.7"


def test_only_so_many_mails_are_kept(tmp_path: Path) -> None:
    store = MailStore(tmp_path, most=2)
    for number in range(4):
        store.add(a_mail(f"mail {number}"), "s@example.com", ["a@example.com"])
    assert [mail.subject for mail in store] == ["mail 3", "mail 2"]
    assert len(list(tmp_path.glob("*.eml"))) == 2


def test_removed_mails_stay_removed(tmp_path: Path) -> None:
    store = MailStore(tmp_path)
    store.add(a_mail(), "s@example.com", ["a@example.com"])
    store.clear()
    assert len(store) == len(MailStore(tmp_path)) == 0


def test_no_path_leads_out_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "secret.eml").write_bytes(a_mail())
    store = MailStore(tmp_path / "mail")
    assert store.get("../secret") is None
    assert store.attachment("../secret", 0) is None


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe\x00 no mail at all",
        b"Content-Type: text/plain; charset=x-unknown\r\n\r\n\xff",
        b"Subject: =?utf-8?b?%%%?=\r\nContent-Type: multipart/mixed\r\n\r\nno boundary",
        b'To: "<\r\nFrom: @@@\r\nContent-Transfer-Encoding: base64\r\n\r\n****',
    ],
)
def test_a_malformed_mail_is_kept_and_shown(tmp_path: Path, content: bytes) -> None:
    MailStore(tmp_path).add(content, "s@example.com", ["a@example.com"])
    (mail,) = MailStore(tmp_path)
    assert mail.to == ["a@example.com"]


def a_delivery(name: str = "demo") -> Delivery:
    return Delivery(
        name=name,
        webhook_id="msg_1",
        event="course.completed",
        verified=True,
        reason="",
        status_code=204,
        body="{}",
        headers={},
        received_at="2026-01-01T00:00:00+00:00",
    )


def test_deliveries_and_secrets_are_there_after_a_restart(tmp_path: Path) -> None:
    store = DeliveryStore(tmp_path)
    store.set_secrets({"demo": SECRET})
    store.add(a_delivery("one"))
    store.add(a_delivery("two"))
    again = DeliveryStore(tmp_path)
    assert [delivery.name for delivery in again] == ["two", "one"]
    assert again.secret("demo") == SECRET
    assert stat.S_IMODE((tmp_path / "secrets.json").stat().st_mode) == 0o600


def test_a_line_cut_off_by_a_crash_is_left_out(tmp_path: Path) -> None:
    DeliveryStore(tmp_path).add(a_delivery())
    with (tmp_path / "deliveries.jsonl").open("a") as file:
        file.write('{"name": "half')
    store = DeliveryStore(tmp_path)
    store.add(a_delivery("after"))
    assert [delivery.name for delivery in DeliveryStore(tmp_path)] == ["after", "demo"]


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_a"])
def test_what_is_no_secret_is_refused_by_name(tmp_path: Path, secret: str) -> None:
    with pytest.raises(ValueError, match="demo: not a webhook secret"):
        DeliveryStore(tmp_path).set_secrets({"demo": secret})
