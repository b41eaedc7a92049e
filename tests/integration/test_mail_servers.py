"""Failures that are the server's or ours, told from those of one recipient: bulk mail goes on after them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from errands.kits import mail

MESSAGE = mail.Message(to="ann@example.com", subject="Hello", text="Hello")


@asynccontextmanager
async def function(status: int, **headers: str) -> AsyncIterator[mail.FirebaseMailer]:
    """A cloud function that answers every mail with this status."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        await reader.readexactly(int(head.split("content-length: ")[1].split("\r\n")[0]))
        more = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        writer.write(f"HTTP/1.1 {status} X\r\n{more}Content-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    mailer = mail.FirebaseMailer(
        f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/mail", sender="a@school.example"
    )
    try:
        yield mailer
    finally:
        await mailer.aclose()
        server.close()


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, mail.ServerRefused), (403, mail.ServerRefused), (429, mail.ServerUnavailable),
        (503, mail.ServerUnavailable), (500, mail.TemporaryMailError), (502, mail.TemporaryMailError),
        (400, mail.PermanentMailError), (413, mail.PermanentMailError),
    ],
)  # fmt: skip
async def test_what_a_function_answers(status: int, kind: type[Exception]) -> None:
    async with function(status) as mailer:
        with pytest.raises(mail.MailError) as caught:
            await mailer.send(MESSAGE)
    assert type(caught.value) is kind


async def test_what_a_function_asks_to_wait_is_heard() -> None:
    async with function(429, Retry_After="30") as mailer:
        with pytest.raises(mail.ServerUnavailable) as caught:
            await mailer.send(MESSAGE)
    assert caught.value.retry_after == 30


async def test_where_nobody_listens_it_is_nobodys_fault() -> None:
    for mailer in (
        mail.FirebaseMailer("http://127.0.0.1:1/mail", sender="a@school.example"),
        mail.SmtpMailer("127.0.0.1", 1, starttls=False, sender="a@school.example"),
    ):
        with pytest.raises(mail.ServerUnavailable):
            await mailer.send(MESSAGE)


@asynccontextmanager
async def smtp(*answers: str) -> AsyncIterator[mail.SmtpMailer]:
    """A server that says these lines, one after the other, whatever it is told."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for line in answers:
            writer.write(f"{line}\r\n".encode())
            await writer.drain()
            if not await reader.readline():
                break
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    mailer = mail.SmtpMailer("127.0.0.1", port, starttls=False, sender="a@school.example", timeout=2)
    try:
        yield mailer
    finally:
        await mailer.aclose()
        server.close()


@pytest.mark.parametrize(
    ("answers", "kind"),
    [
        (["554 no service for you"], mail.ServerRefused),
        (["421 too busy"], mail.ServerUnavailable),
        (["220 hello", "550 who are you", "550 who are you"], mail.ServerRefused),
        (["220 hello", "250 hello", "550 not from this sender"], mail.ServerRefused),
        (["220 hello", "250 hello", "451 not now"], mail.TemporaryMailError),
        (["220 hello", "250 hello", "250 ok", "550 no such user"], mail.PermanentMailError),
        (["220 hello", "250 hello", "250 ok", "450 later"], mail.TemporaryMailError),
        (["220 hello", "250 hello", "250 ok"], mail.TemporaryMailError),  # and then it is gone
    ],
)
async def test_what_an_smtp_server_answers(answers: list[str], kind: type[Exception]) -> None:
    async with smtp(*answers) as mailer:
        with pytest.raises(mail.MailError) as caught:
            await mailer.send(MESSAGE)
    assert type(caught.value) is kind
