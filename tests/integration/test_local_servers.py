"""The mail catcher and the webhook receiver, as the processes that a local run starts."""

from __future__ import annotations

import base64
import json
import smtplib
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from pathlib import Path

import httpx
import pytest
from standardwebhooks import Webhook

from errands.doors.local.phone import READ_BYTES, Phone
from errands.doors.local.ports import free_port
from errands.kits.messaging import Template, Text
from errands.kits.messaging.console import ConsoleMessenger

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def serve(module: str, home: Path, *options: str) -> Iterator[httpx.Client]:
    port = free_port()
    command = [sys.executable, "-m", module, "--home", str(home), "--http-port", str(port), *options]
    with subprocess.Popen(command) as process, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        deadline = time.monotonic() + 30
        while True:
            try:
                client.get("/")
                break
            except httpx.TransportError:
                assert process.poll() is None, "the server ended"
                assert time.monotonic() < deadline, "the server does not answer"
                time.sleep(0.05)
        yield client
        process.terminate()
        assert process.wait(10) in (0, -15)


@pytest.fixture(scope="module")
def smtp_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def mail_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mailbox")


@pytest.fixture(scope="module")
def mailbox(mail_home: Path, smtp_port: int) -> Iterator[httpx.Client]:
    yield from serve("errands.doors.local.mailbox", mail_home, "--smtp-port", str(smtp_port))


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    yield from serve("errands.doors.local.receiver", tmp_path_factory.mktemp("receiver"))


def send(port: int, to: str, subject: str) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "school@example.com", to, subject
    mail.set_content("text")
    mail.add_alternative("<script>alert(1)</script><b>html</b>", subtype="html")
    mail.add_attachment(b"<script>", maintype="text", subtype="html", filename='évil"\r.html')
    with smtplib.SMTP("127.0.0.1", port) as server:
        server.send_message(mail)


def test_a_sent_mail_is_listed_whole(mailbox: httpx.Client, smtp_port: int) -> None:
    send(smtp_port, "list@example.com", "Welcome <b>")
    (mail,) = mailbox.get("/api/messages", params={"to": "LIST@example.com"}).json()
    assert mail["from"] == "school@example.com"
    assert mail["to"] == ["list@example.com"]
    assert mail["subject"] == "Welcome <b>"
    assert mail["text"].strip() == "text"
    assert "<b>html</b>" in mail["html"]
    assert [(a["content_type"], a["size"]) for a in mail["attachments"]] == [("text/html", 8)]
    assert mailbox.get(f"/api/messages/{mail['id']}").json() == mail
    assert mail["id"] in [other["id"] for other in mailbox.get("/api/messages").json()]


def test_nothing_in_a_mail_runs_in_the_readers_browser(mailbox: httpx.Client, smtp_port: int) -> None:
    send(smtp_port, "page@example.com", "<script>alert(2)</script>")
    (mail,) = mailbox.get("/api/messages", params={"to": "page@example.com"}).json()
    for path in ("/", f"/messages/{mail['id']}"):
        page = mailbox.get(path)
        assert "&lt;script&gt;alert(2)" in page.text
        assert "<script>alert" not in page.text
        assert "script-src 'self'" in page.headers["content-security-policy"]
    assert "<iframe sandbox " in page.text
    html = mailbox.get(f"/messages/{mail['id']}/html")
    assert html.headers["content-security-policy"].startswith("sandbox;")
    file = mailbox.get(mail["attachments"][0]["url"])
    assert file.content == b"<script>"
    assert file.headers["content-disposition"].startswith("attachment;")
    assert file.headers["x-content-type-options"] == "nosniff"


def test_the_inbox_is_emptied(mailbox: httpx.Client, smtp_port: int) -> None:
    send(smtp_port, "gone@example.com", "gone")
    assert mailbox.delete("/api/messages").status_code == 204
    assert mailbox.get("/api/messages").json() == []
    assert "No mail yet" in mailbox.get("/").text


def test_another_site_reaches_neither_page_nor_button(mailbox: httpx.Client) -> None:
    assert mailbox.get("/api/messages", headers={"Host": "evil.example"}).status_code == 400
    assert mailbox.post("/empty", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


@pytest.mark.parametrize("path", ["/messages/none", "/messages/none/html", "/messages/none/attachments/0"])
def test_an_unknown_mail_is_404(mailbox: httpx.Client, path: str) -> None:
    assert mailbox.get(path).status_code == 404
    assert mailbox.get("/api/messages/none").json() == {"detail": "No such mail."}


def signed(body: str, *, secret: str = SECRET, at: datetime | None = None) -> dict[str, str]:
    moment = at or datetime.now(UTC)
    return {
        "webhook-id": "msg_1",
        "webhook-timestamp": str(int(moment.timestamp())),
        "webhook-signature": Webhook(secret).sign("msg_1", moment, body),
    }


def test_a_signature_that_holds_is_shown_as_such(receiver: httpx.Client) -> None:
    assert receiver.put("/api/secrets", json={"good": SECRET}).status_code == 204
    body = '{"type": "course.completed",  "data": {"name": "東京"}}'
    answer = receiver.post("/hook/good", content=body.encode(), headers=signed(body))
    assert answer.status_code == 204
    (delivery,) = receiver.get("/api/deliveries", params={"name": "good"}).json()
    assert delivery["verified"] is True
    assert delivery["event"] == "course.completed"
    assert delivery["body"] == body
    assert delivery["webhook_id"] == "msg_1"
    assert "signature holds" in receiver.get("/").text


OTHER = "whsec_" + base64.b64encode(bytes(32)).decode()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        signed("{} "),
        signed("{}", secret=OTHER),
        signed("{}", at=datetime.now(UTC) - timedelta(hours=1)),
        signed("{}") | {"webhook-signature": "nonsense"},
        signed("{}") | {"webhook-signature": "v1,%%%"},
    ],
    ids=["unsigned", "other bytes", "other secret", "old", "malformed", "not base64"],
)
def test_a_signature_that_does_not_hold_is_refused_and_shown(
    receiver: httpx.Client, headers: dict[str, str]
) -> None:
    receiver.delete("/api/deliveries")
    receiver.post("/api/secrets", json={"bad": SECRET})
    assert receiver.post("/hook/bad", content=b"{}", headers=headers).status_code == 401
    (delivery,) = receiver.get("/api/deliveries").json()
    assert delivery["verified"] is False
    assert delivery["reason"]
    assert "signature does not hold" in receiver.get("/").text


def test_without_a_secret_it_says_that_it_cannot_tell(receiver: httpx.Client) -> None:
    assert receiver.post("/hook/stranger", content=b"\xff", headers=signed("{}")).status_code == 204
    (delivery,) = receiver.get("/api/deliveries", params={"name": "stranger"}).json()
    assert delivery["verified"] is None


def test_it_answers_the_status_it_was_told_to(receiver: httpx.Client) -> None:
    assert receiver.post("/hook/failing?status=503", content=b"{}").status_code == 503
    (delivery,) = receiver.get("/api/deliveries", params={"name": "failing"}).json()
    assert delivery["status_code"] == 503


@pytest.mark.parametrize("content", ["{", "[]", '{"a": 1}', '{"a": "whsec_"}'])
def test_malformed_secrets_are_refused(receiver: httpx.Client, content: str) -> None:
    answer = receiver.put("/api/secrets", content=content)
    assert answer.status_code == 422
    assert json.loads(answer.content)["detail"]


async def test_messages_to_phones_are_shown_as_they_are_written(
    mailbox: httpx.Client, mail_home: Path
) -> None:
    assert mailbox.get("/api/phone").json() == []
    assert "No message yet" in mailbox.get("/phone").text
    messenger = ConsoleMessenger(mail_home / "messages.jsonl")
    await messenger.send("+442079460000", Text("<b>Closed</b> on Friday"))
    await messenger.send("+442079460001", Template("reminder", {"day": "Friday"}))
    with (mail_home / "messages.jsonl").open("a") as file:
        file.write('{"id": "half a li')  # somebody is writing it
    listed = mailbox.get("/api/phone").json()
    assert [(each["to"], each["type"]) for each in listed] == [
        ("+442079460001", "template"),
        ("+442079460000", "text"),
    ]
    assert mailbox.get("/api/phone", params={"to": "+442079460000"}).json() == listed[1:]
    shown = mailbox.get("/phone").text
    assert "&lt;b&gt;Closed&lt;/b&gt; on Friday" in shown
    assert "template reminder" in shown
    assert "day: Friday" in shown


def test_of_many_messages_the_end_is_read(tmp_path: Path) -> None:
    phone = Phone(tmp_path / "messages.jsonl")
    line = json.dumps({"to": "+1", "text": "x" * 1000})
    count = 2 * READ_BYTES // len(line)
    phone.path.write_text("".join(f'{{"id": {n}, {line[1:]}\n' for n in range(count)))
    found = phone.newest()
    assert found[0]["id"] == count - 1
    assert 0 < len(found) < count
    assert [each["id"] for each in found] == list(range(count - 1, count - 1 - len(found), -1))
