"""`python -m benchmarks.kits.mail`: personal mails to a local sink in a second, with a row for each
recipient, beside a loop of the standard library's smtplib with a connection a mail, which keeps no rows.

The sink is an aiosmtpd of its own process; both sides fill in the same template, and write it their own way.
Rows are in SQLite, and in PostgreSQL where ERRANDS_BENCH_POSTGRES_URL names an empty database. It prints a
table, and JSON as its last line.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import smtplib
import tempfile
import time
from email.message import EmailMessage
from email.utils import formatdate, make_msgid
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any

import typer
from aiosmtpd.smtp import SMTP

from errands import Database, Deliveries, Run
from errands.kits import mail

SENDER = "School <office@school.example>"
TEXT = "Subject: Your marks, {{ name }}\n\nDear {{ name }},\n\nyour mark is {{ mark }}.\n\nThe school\n"
HTML = "<html><body><h1>Your marks</h1><p>Dear {{ name }},</p><p>your mark is {{ mark }}.</p></body></html>"


def main(
    mails: Annotated[int, typer.Option(min=100, help="Mails of ours.")] = 10_000,
    plain: Annotated[int, typer.Option(min=100, help="Mails of smtplib.")] = 2_000,
) -> None:
    """Measure, print, and say it as JSON."""
    ours, theirs = multiprocessing.Pipe()
    sink = multiprocessing.get_context("spawn").Process(target=_sink, args=(theirs,), daemon=True)
    sink.start()
    port = ours.recv()
    found: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "marks.txt").write_text(TEXT)
        (Path(folder) / "marks.html").write_text(HTML)
        templates = mail.Templates(folder)
        urls = {"SQLite": f"sqlite:///{folder}/bench.db"}
        urls |= {"PostgreSQL": url} if (url := os.environ.get("ERRANDS_BENCH_POSTGRES_URL")) else {}
        for name, url in urls.items():
            found[f"ours, rows in {name}: mails/s"] = asyncio.run(_ours(url, port, templates, mails))
        found["smtplib, a connection a mail: mails/s"] = _smtplib(port, templates, plain)
    ours.send(None)
    for name, value in found.items():
        print(f"{name:48}{value:>10,.0f}")
    print(json.dumps({"mails": mails, **found, "received": ours.recv()}))


def _to(n: int) -> mail.To:
    return mail.To(f"student{n}@example.com", {"name": f"Student {n}", "mark": n % 6 + 1})


async def _ours(url: str, port: int, templates: mail.Templates, count: int) -> float:
    database = Database(url)
    database.upgrade()
    mailer = mail.SmtpMailer("127.0.0.1", port, starttls=False, sender=SENDER)
    bulk = mail.BulkMail(mailer, Deliveries(lambda: database), sender=SENDER, templates=templates)
    begun = time.perf_counter()
    totals = await bulk.send(Run(f"bench-{time.time_ns()}", "bench"), map(_to, range(count)), "marks")
    took = time.perf_counter() - begun
    assert totals["sent"] == count, totals
    await mailer.aclose()
    database.dispose()
    return count / took


def _smtplib(port: int, templates: mail.Templates, count: int) -> float:
    begun = time.perf_counter()
    for to in map(_to, range(count)):
        rendered = templates.render("marks", **to.values)
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = SENDER, to.address, rendered.subject
        message["Date"], message["Message-ID"] = formatdate(), make_msgid(domain="school.example")
        message.set_content(rendered.text)
        message.add_alternative(rendered.html, subtype="html")
        with smtplib.SMTP("127.0.0.1", port) as smtp:
            smtp.send_message(message)
    return count / (time.perf_counter() - begun)


class _Sink:
    received = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        self.received += 1
        return "250 kept"


def _sink(parent: Connection) -> None:
    async def serve() -> None:
        sink, loop = _Sink(), asyncio.get_running_loop()
        server = await loop.create_server(lambda: SMTP(sink, hostname="sink"), "127.0.0.1", 0)
        parent.send(server.sockets[0].getsockname()[1])
        await asyncio.to_thread(parent.recv)
        parent.send(sink.received)

    asyncio.run(serve())


if __name__ == "__main__":
    typer.run(main)
