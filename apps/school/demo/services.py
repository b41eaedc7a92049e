"""The second chapter: payments, uploads, lists, messages; and how far each is while it is at work."""

from __future__ import annotations

import csv
import io
import secrets
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pypdfium2
from PIL import Image

from school.demo import making
from school.demo.certificate import Certificate
from school.demo.chapter import Chapter, Steps
from school.demo.client import DemoError, wait_for

AMOUNT = "49.90"
RATE = "400/s"  # for the demo, instead of 100 a minute
MESSAGES, TWICE, NO_NUMBER = 2_000, 8, 4


class Services(Chapter):
    """What else the school offers, with the student of the first chapter."""

    title = "Payments, files, lists, messages"

    def __init__(self, before: Certificate) -> None:
        super().__init__(before.school)
        self.before = before
        self.progress_url = ""

    def steps(self) -> Steps:
        """The steps with their titles."""
        return [
            ("Pay twice with one key", self.pay_twice),
            ("Upload a photo", self.photo),
            ("Have a letter read", self.letter),
            ("Report on a student", self.report),
            ("Import a list of students", self.import_list),
            ("Export the students", self.export),
            (f"Send {MESSAGES:,} messages", self.messages),
        ]

    def pay_twice(self) -> str:
        hook = f"payments-{self.before.mark}"
        webhook_id = self.school.hook(hook, ["payment.completed"])
        key = {"Idempotency-Key": secrets.token_hex(8)}
        body = {"course_id": self.before.course["id"], "amount": AMOUNT}
        first, again = (
            self.school.call(
                "POST", "/payments", expect=202, token=self.before.student, headers=key, json=body
            )
            for _ in range(2)
        )
        if (first["payment_id"], first["task_id"]) != (again["payment_id"], again["task_id"]):
            raise DemoError("one Idempotency-Key made two payments")
        receipt = self.school.result(first["task_id"], self.before.student, self.tell)["receipt"]
        told = wait_for(lambda: self.school.webhooks(hook), "the webhook of the payment")
        self.school.unhook(webhook_id)
        paid = self.school.call("GET", f"/payments/{first['payment_id']}", token=self.before.student)
        if paid["status"] != "charged" or paid["receipt"] != receipt or len(told) != 1:
            raise DemoError(f"the payment is {paid}, told {len(told)} times")
        return f"{AMOUNT} charged once, told once; {receipt}"

    def photo(self) -> str:
        content = making.photo()
        made = self._upload("evening.jpg", content, "image/jpeg")
        steps = self.school.result(made["task_id"], self.before.student)
        for number, step in enumerate(steps):
            self.tell("compress, store, notify", number, len(steps))
            self.school.result(step, self.before.student)
        shown = self.school.call("GET", f"/uploads/{made['upload_id']}", token=self.before.student)
        forms = []
        for form in shown["photos"]:
            with Image.open(io.BytesIO(self.school.call("GET", form["url"]))) as image:
                if image.size != (form["width"], form["height"]) or image.getexif():
                    raise DemoError(f"{form['name']} is {image.size}, with {dict(image.getexif())}")
                forms.append(f"{image.format} {image.width}×{image.height}, {_size(form['size'])}")
        if len(forms) != 2:
            raise DemoError(f"two forms of the photo were expected, there are {len(forms)}")
        return f"{_size(len(content))} lying on its side → {'; '.join(forms)}; nothing in it of its maker"

    def letter(self) -> str:
        made = self._upload("letter.png", making.letter(), "image/png", purpose="letter")
        read = self.school.result(made["task_id"], self.before.student, self.tell)
        lines = [line for line in read["text"].splitlines() if line.strip()]
        if "Miriam" not in read["text"]:
            raise DemoError(f"the letter was read as {read['text'][:200]!r}")
        return (
            f"“{lines[1].rstrip(',')} …”, {len(read['text'].split())} words, language {read['language']}, "
            f"confidence {read['confidence']:.0f} of 100"
        )

    def report(self) -> str:
        instructor = self.school.token("instructor")
        path = f"/api/students/{self.before.user_id}/report"
        made = self.school.call("POST", path, expect=202, token=instructor)
        pdf = self.school.call("GET", self.school.result(made["task_id"], instructor, self.tell)["url"])
        with pypdfium2.PdfDocument(pdf) as document:
            pages, text = len(document), document[0].get_textpage().get_text_bounded()
        if self.before.course["title"] not in text:
            raise DemoError(f"the report does not name {self.before.course['title']}")
        return f"PDF with {pages} page{'s' if pages > 1 else ''}, {_size(len(pdf))}; its link holds for a day"

    def import_list(self) -> str:
        files = {"file": ("students.csv", making.students(), "text/csv")}
        admin = self.school.token("admin")
        made = self.school.call("POST", "/api/students/import", expect=202, token=admin, files=files)
        done = self.school.result(made["task_id"], admin, self.tell)
        if done["refused"] != making.BAD or done["taken"] != making.GOOD:
            raise DemoError(f"{making.GOOD} rows were good and {making.BAD} were not; it found {done}")
        counts = [f"{done[name]} {name}" for name in ("created", "updated", "unchanged") if done[name]]
        why = Counter(
            f"{reason['field']}: {reason['message']}" for row in done["refusals"] for reason in row["reasons"]
        )
        first = done["refusals"][0]
        lines = [f"{', '.join(counts)}, {done['refused']} refused, the first in row {first['row']}:"]
        return "\n".join(lines + [f"{count:>3} × {reason}" for reason, count in why.most_common()])

    def export(self) -> str:
        instructor = self.school.token("instructor")
        body = {"active_only": True}
        made = self.school.call("POST", "/api/students/export", expect=202, token=instructor, json=body)
        done = self.school.result(made["task_id"], instructor, self.tell)
        content = self.school.call("GET", done["link"])
        rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
        if len(rows) != done["rows"] or self.before.email not in {row["Email"] for row in rows}:
            raise DemoError(f"{done['rows']} rows were exported, the file has {len(rows)}")
        return f"link opened: {len(rows):,} rows of {len(rows[0])} columns, {_size(len(content))} of CSV"

    def messages(self) -> str:
        instructor = self.school.token("instructor")
        with self._faster() as before:
            body = {"phone_numbers": numbers(), "message": "No lesson on Friday", "message_type": "text"}
            path = "/api/send-bulk-messages"
            made = self.school.call("POST", path, expect=202, token=instructor, json=body)
            self.progress_url = made["progress_url"]
            totals = self.school.result(made["task_id"], instructor, self.tell)
        path = f"/api/deliveries/{made['task_id']}"
        skipped = self.school.call("GET", path, token=instructor, params={"state": "skipped"})["deliveries"]
        sent = self.school.call("GET", path, token=instructor, params={"state": "sent", "limit": 1})
        if (totals["sent"], len(skipped)) != (MESSAGES - TWICE - NO_NUMBER, TWICE + NO_NUMBER):
            raise DemoError(f"it came to {totals}")
        first = sent["deliveries"][0]
        lines = [
            f"{totals['sent']:,} sent (the first to {first['recipient']}), {len(skipped)} skipped:",
            *(
                f"{count:>3} × {why}"
                for why, count in Counter(row["reason"] for row in skipped).most_common()
            ),
            f"The limit of {before} was {RATE} meanwhile, and holds again.",
        ]
        return "\n".join(lines)

    @contextmanager
    def _faster(self) -> Iterator[str]:
        """Raise the limit for messages, as an admin may, and put it back; gives what held before."""
        admin = self.school.token("admin")
        limits: list[dict[str, Any]] = self.school.call("GET", "/api/limits", token=admin)
        before = next(limit for limit in limits if limit["name"] == "messages")

        def change(to: str) -> None:
            body = {"to": to, "reason": "the demo"}
            self.school.call("POST", "/api/limits/messages/change", expect=202, token=admin, json=body)

        change(RATE)
        try:
            yield before["now"]
        finally:
            if before["changed"]:
                change(before["now"])
            else:
                self.school.call("POST", "/api/limits/messages/reset", expect=202, token=admin)

    def _upload(self, name: str, content: bytes, content_type: str, **params: str) -> dict[str, Any]:
        files = {"file": (name, content, content_type)}
        made: dict[str, Any] = self.school.call(
            "POST", "/uploads", expect=202, token=self.before.student, files=files, params=params
        )
        return made


def numbers() -> list[str]:
    """2,000 numbers of the ranges that Ofcom keeps for fiction; some come twice, some are none."""
    fiction = [f"+44{area}{number:03}" for area in ("2079460", "1134960") for number in range(1000)]
    good = fiction[: MESSAGES - TWICE - NO_NUMBER]
    twice = [f"{number[:3]} (0) {number[3:7]} {number[7:]}" for number in good[:TWICE]]
    return [*good, *twice, *["+44 12"] * NO_NUMBER]


def _size(size: int) -> str:
    return f"{size / 1024:,.0f} KiB"
