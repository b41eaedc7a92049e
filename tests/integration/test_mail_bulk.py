"""Bulk mail against a real SMTP server that answers by recipient, on each kind of database."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from errands import ConfigurationError, Deliveries, Errands, Keyring, Run, Settings, Snooze
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits import mail
from errands.kits.mail.fastapi import unsubscribe_router
from errands.store.engine import Database
from smtp_peer import DROP, SILENT, Peer, serving

WHOLE = mail.Rendered("Closed on Friday", "We are closed on Friday.", None)


@dataclass
class Rig:
    app: Errands
    peer: Peer
    files: dict[str, bytes] = field(default_factory=dict)

    @property
    def bulk(self) -> mail.BulkMail:
        return self.app.resources.instance(mail.BulkMail)

    async def send(self, to: list[Any], content: Any = WHOLE, attempt: int = 1, **options: Any) -> Any:
        return await self.bulk.send(Run("r", "send", attempt=attempt), to, content, **options)

    async def rows(self) -> dict[str, tuple[str, str | None]]:
        rows = await self.app.resources.instance(Deliveries).rows("r")
        return {str(row.address): (row.state.value, row.reason) for row in rows}


@pytest.fixture
async def rig(database: Database, tmp_path: Path) -> AsyncIterator[Rig]:
    folder = tmp_path / "mails"
    folder.mkdir()
    (folder / "news.txt").write_text("Subject: News for {{ name }}\n\nDear {{ name }}, {{ text }}", "utf-8")
    (folder / "news.html").write_text(
        "<p>Dear {{ name }}, <a href='{{ unsubscribe_url }}'>stop</a></p>", "utf-8"
    )
    url = database.url.render_as_string(hide_password=False).replace("+psycopg", "")
    settings = Settings(
        home=tmp_path, database_url=url, secret_keys=Keyring.new_key(), public_url="https://school.example",
        mail_from="School <office@school.example>",
    )  # fmt: skip
    app = Errands("test", settings=settings)
    async with serving() as peer:
        mailer = mail.SmtpMailer(
            "127.0.0.1", peer.port, starttls=False, sender=settings.mail_from, timeout=2, data_timeout=0.3
        )
        rig = Rig(app, peer)

        async def read(key: str) -> bytes:
            return rig.files[key]

        app.use(mail.kit(lambda: mailer, templates=folder, unsubscribe=True, read=read))
        yield rig
        await mailer.aclose()
    app.database.dispose()


async def test_each_gets_one_mail_of_their_own(rig: Rig) -> None:
    to = [
        mail.To("Ann Lee <ann@example.com>", {"name": "Ann"}, person="1"),
        mail.To("bob@Example.COM", {"name": "Bob"}),
        mail.To("bob@example.com", {"name": "Bob again"}),
        mail.To("Bob@example.com", {"name": "another Bob"}),  # a mailbox's name may have case
        "not an address",
        "ann@example.com\r\nBcc: victim@example.com",
    ]
    totals = await rig.send(to, "news", values={"text": "hello", "name": "you"}, topic="news")
    assert (totals["sent"], totals["skipped"]) == (3, 3)
    (ann,) = rig.peer.to("ann@example.com")
    assert (ann["To"], ann["Subject"], ann["From"]) == (
        "Ann Lee <ann@example.com>", "News for Ann", "School <office@school.example>",
    )  # fmt: skip
    text: Any = ann.get_body(("plain",))
    assert text.get_content().strip() == "Dear Ann, hello"
    assert sorted(rig.peer.asked) == ["Bob@example.com", "ann@example.com", "bob@example.com"]
    rows = await rig.app.resources.instance(Deliveries).rows("r")
    assert [(row.state.value, row.reason and row.reason[:20]) for row in rows[2:]] == [
        ("skipped", "in the list already"), ("sent", None), ("skipped", "'not an address' is "),
        ("skipped", "address must be one "),
    ]  # fmt: skip
    assert rows[0].provider_id == ann["Message-ID"]


async def test_a_server_answers_for_each_recipient_and_only_those_are_tried_again_who_may_be(
    rig: Rig,
) -> None:
    """Fault 24."""
    peer = rig.peer
    peer.at_rcpt = {
        "busy@example.com": ["450 grey-listed", "451 still"], "gone@example.com": "550 no such user",
        "drops@example.com": [DROP],
    }  # fmt: skip
    peer.at_data = {
        "full@example.com": ["452 no room"], "spam@example.com": "554 looks like spam",
        "silent@example.com": SILENT, "cut@example.com": DROP,
    }  # fmt: skip
    names = ["a", "busy", "gone", "b", "drops", "full", "spam", "c", "silent", "cut", "d"]
    to = [f"{name}@example.com" for name in names]
    with clock.use(FakeClock()) as now:
        assert isinstance(now, FakeClock)
        with pytest.raises(Snooze, match="3 recipients are tried again later") as snooze:
            await rig.send(to)
        assert 50 < snooze.value.seconds <= 66
        states = {name: (await rig.rows())[f"{name}@example.com"] for name in names}
        assert {name: state for name, (state, _) in states.items()} == {
            "a": "sent", "b": "sent", "c": "sent", "d": "sent", "busy": "deferred", "drops": "deferred",
            "full": "deferred", "gone": "bounced", "spam": "bounced", "silent": "unknown", "cut": "unknown",
        }  # fmt: skip
        assert "550 no such user" in str(states["gone"][1])
        assert "did not answer" in str(states["silent"][1])
        peer.asked.clear()
        now.advance(70)
        with pytest.raises(Snooze):
            await rig.send(to, attempt=2)
        assert sorted(peer.asked) == ["busy@example.com", "drops@example.com", "full@example.com"]
        now.advance(400)
        totals = await rig.send(to, attempt=3)
    assert (totals["sent"], totals["bounced"], totals["unknown"], totals.open) == (7, 2, 2, 0)
    assert len(peer.mails) == len({address for address, _ in peer.mails}) == 7


async def test_a_mail_that_is_tried_again_keeps_its_id(rig: Rig) -> None:
    rig.peer.at_data["ann@example.com"] = ["451 later"]
    with clock.use(FakeClock()) as now:
        assert isinstance(now, FakeClock)
        with pytest.raises(Snooze):
            await rig.send(["ann@example.com", "bob@example.com"])
        now.advance(70)
        await rig.send(["ann@example.com", "bob@example.com"])
    (ann,) = rig.peer.to("ann@example.com")
    assert ann["Message-ID"] == mail.stable_message_id("r:0", "school.example")


async def test_a_server_that_is_away_costs_nobody_their_turn(rig: Rig) -> None:
    nobody = mail.SmtpMailer("127.0.0.1", 1, starttls=False, timeout=1)
    bulk = mail.BulkMail(nobody, rig.app.resources.instance(Deliveries), sender="a@school.example")
    with pytest.raises(mail.ServerUnavailable, match="no mail connection to"):
        await bulk.send(Run("r", "send"), ["a@example.com", "b@example.com"], WHOLE)
    rows = await rig.app.resources.instance(Deliveries).rows("r")
    assert [(row.state.value, row.tries) for row in rows] == [("queued", 0), ("queued", 0)]
    assert (await rig.send(["a@example.com", "b@example.com"]))["sent"] == 2


async def test_a_server_that_lets_us_not_in_bounces_nobody(rig: Rig) -> None:
    wrong = mail.SmtpMailer("127.0.0.1", rig.peer.port, starttls=True)
    bulk = mail.BulkMail(wrong, rig.app.resources.instance(Deliveries), sender="a@school.example")
    with pytest.raises(mail.ServerRefused, match="SMTP_USE_TLS"):
        await bulk.send(Run("r", "send"), ["a@example.com"], WHOLE)
    assert (await rig.rows())["a@example.com"][0] == "queued"


async def test_what_can_be_sent_to_nobody_is_refused_before_anything_is_written(rig: Rig) -> None:
    with pytest.raises(mail.TemplateError, match="no mail template 'olds'; there are: news"):
        await rig.send(["a@example.com"], "olds")
    with pytest.raises(mail.InvalidMessage, match="Subject must be one line"):
        await rig.send(["a@example.com"], mail.Rendered("x\r\nBcc: victim@example.com", "t", None))
    with pytest.raises(mail.InvalidMessage, match="Reply"):
        await rig.send(["a@example.com"], headers={"Reply-To": "x@example.com"})
    assert await rig.rows() == {}


async def test_a_value_that_is_missing_or_breaks_a_header_fails_for_that_one_alone(rig: Rig) -> None:
    to = [
        mail.To("a@example.com", {"name": "Ann"}), mail.To("b@example.com"),
        mail.To("c@example.com", {"name": "x\nBcc: victim@example.com"}),
    ]  # fmt: skip
    totals = await rig.send(to, "news", values={"text": "hello"})
    assert (totals["sent"], totals["failed"]) == (1, 2)
    rows = await rig.rows()
    assert "'name' is undefined" in str(rows["b@example.com"][1])
    assert "one line" in str(rows["c@example.com"][1])


# -- attachments


async def test_stored_files_go_with_mails(rig: Rig) -> None:
    rig.files = {"terms/2026.pdf": b"%PDF terms", "certificates/1.pdf": b"%PDF ann"}
    to = [
        mail.To("ann@example.com", attachments=[mail.Stored("certificates/1.pdf", "Certificate.pdf")]),
        mail.To("bob@example.com", attachments=[mail.Stored("certificates/2.pdf")]),
        "eve@example.com",
    ]
    with pytest.raises(Snooze):
        await rig.send(to, attachments=[mail.Stored("terms/2026.pdf")])
    rig.files["certificates/2.pdf"] = b"%PDF bob"
    with clock.use(FakeClock(clock.now())) as now:
        assert isinstance(now, FakeClock)
        now.advance(70)
        await rig.send(to, attachments=[mail.Stored("terms/2026.pdf")])

    def files(address: str) -> list[tuple[str | None, str, bytes]]:
        (mail,) = rig.peer.to(address)
        parts: Any = mail.iter_attachments()
        return [(part.get_filename(), part.get_content_type(), part.get_content()) for part in parts]

    terms = ("2026.pdf", "application/pdf", b"%PDF terms")
    assert files("ann@example.com") == [terms, ("Certificate.pdf", "application/pdf", b"%PDF ann")]
    assert files("bob@example.com") == [terms, ("2.pdf", "application/pdf", b"%PDF bob")]
    assert files("eve@example.com") == [terms]


async def test_a_file_that_is_too_large_is_refused() -> None:
    async def read(key: str) -> bytes:
        return b"x" * 11

    with pytest.raises(mail.InvalidMessage, match="has 11 bytes, and a mail takes 10"):
        await mail.Attachments(read, most=10).load(mail.Stored("a.bin"))


# -- unsubscribing


@pytest.fixture
def client(rig: Rig) -> Iterator[TestClient]:
    api = FastAPI()
    instance = rig.app.resources.instance
    api.include_router(unsubscribe_router(instance(mail.Unsubscribe), instance(Deliveries)))
    with TestClient(api) as client:
        yield client


async def test_one_click_stops_mail_about_a_topic(rig: Rig, client: TestClient) -> None:
    await rig.send(["Ann <ann@example.com>"], "news", values={"name": "A", "text": "t"}, topic="news")
    (ann,) = rig.peer.to("ann@example.com")
    assert ann["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"
    link = re.fullmatch(r"<https://school\.example(/unsubscribe/\S+)>", str(ann["List-Unsubscribe"]))
    assert link is not None
    assert "ann" not in link[1]
    html: Any = ann.get_body(("html",))
    assert link[1] in html.get_content()

    deliveries = rig.app.resources.instance(Deliveries)
    page = client.get(link[1])  # what a scanner does
    assert (page.status_code, "ann@example.com" in page.text, "news" in page.text) == (200, True, True)
    assert not await deliveries.opted_out("mail", "ann@example.com", "news")
    done = client.post(link[1], data={"List-Unsubscribe": "One-Click"})
    assert (done.status_code, "gets no more mail" in done.text) == (200, True)
    assert done.headers["cache-control"] == "no-store"
    assert client.post(link[1]).status_code == 200  # twice is no error

    run = Run("later", "send")
    totals = await rig.bulk.send(run, ["ann@EXAMPLE.com", "bob@example.com"], WHOLE, topic="news")
    assert (totals["sent"], totals["skipped"]) == (1, 1)
    assert (await rig.bulk.send(Run("other", "send"), ["ann@example.com"], WHOLE))["sent"] == 1


@pytest.mark.parametrize("token", ["x", "k1.AAAA", "k1.", "k9." + "A" * 60, "%00", "k1." + "A" * 3000])
async def test_links_that_we_did_not_make_are_no_links(client: TestClient, token: str) -> None:
    for call in (client.get, client.post):
        assert call(f"/unsubscribe/{token}").status_code == 404


def test_a_changed_link_does_not_open() -> None:
    links = mail.Unsubscribe(Keyring.parse(Keyring.new_key()), "https://school.example/")
    token = links.link("ann@example.com", "news").rpartition("/")[2]
    assert links.read(token) == ("ann@example.com", "news")
    middle = len(token) // 2
    changed = token[:middle] + ("A" if token[middle] != "A" else "B") + token[middle + 1 :]
    for wrong in (changed, token[:-4]):
        with pytest.raises(mail.InvalidLink):
            links.read(wrong)


def test_links_need_a_key_and_an_address(tmp_path: Path) -> None:
    app = Errands("test", settings=Settings(home=tmp_path, inline=True))
    with pytest.raises(ConfigurationError, match="ERRANDS_SECRET_KEYS"):
        app.use(mail.kit(mail.FakeMailer, unsubscribe=True))
    with pytest.raises(ConfigurationError, match="give an address"):
        mail.Unsubscribe(Keyring.parse(Keyring.new_key()), "school.example")
