"""The first chapter: one new student's way from registration to a certificate."""

from __future__ import annotations

import secrets
from collections import Counter
from typing import Any

from school.demo.chapter import Chapter, Steps
from school.demo.client import DemoError, School, wait_for

EVENTS = ["user.registered", "course.enrolled", "course.completed", "certificate.generated"]
LESSONS = ["Reading the sky", "Clouds and fronts", "Measuring wind", "A forecast of one's own"]


class Certificate(Chapter):
    """The main job of the school."""

    title = "From registration to certificate"

    def __init__(self, school: School) -> None:
        super().__init__(school)
        self.mark = secrets.token_hex(4)
        self.name = "José Müller-राज 王"
        self.email = f"jose.{self.mark}@example.com"
        self.password = secrets.token_urlsafe(12)
        self.hook = f"demo-{self.mark}"
        self.webhook_id = ""
        self.user_id: Any = None
        self.student = ""
        self.course: dict[str, Any] = {}
        self.enrollment: Any = None
        self.certificate: dict[str, Any] = {}

    def steps(self) -> Steps:
        """The steps with their titles."""
        return [
            ("Register a webhook", self.register_webhook),
            ("Register a student", self.register),
            ("Welcome mail", self.welcome_mail),
            ("Make a course", self.make_course),
            ("Enrol", self.enrol),
            ("Confirmation mail", self.confirmation_mail),
            ("Finish the lessons", self.finish_lessons),
            ("Completion", self.completion),
            ("Certificate", self.certificate_file),
            ("Certificate mail", self.certificate_mail),
            ("Verify page", self.verify_page),
            ("Webhooks delivered and verified", self.webhooks),
        ]

    def register_webhook(self) -> str:
        self.webhook_id = self.school.hook(self.hook, EVENTS)
        return f"{len(EVENTS)} events; the secret was shown once"

    def register(self) -> str:
        body = {"email": self.email, "password": self.password, "full_name": self.name}
        answer = self.school.call("POST", "/register", expect=201, json=body)
        self.user_id = answer["user_id"]
        self.student = self.school.sign_in(self.email, self.password)
        return str(answer["status"])

    def welcome_mail(self) -> str:
        return self._mail("welcome")

    def make_course(self) -> str:
        instructor = self.school.token("instructor")
        body = {"title": f"Weather for Sailors {self.mark}", "lessons": LESSONS}
        self.course = self.school.call("POST", "/courses", expect=201, token=instructor, json=body)
        return f"{self.course['title']}, {len(LESSONS)} lessons"

    def enrol(self) -> str:
        path = f"/courses/{self.course['id']}/enroll"
        first = self.school.call("POST", path, expect=202, token=self.student)
        again = self.school.call("POST", path, expect=202, token=self.student)
        if first["enrollment_id"] != again["enrollment_id"]:
            raise DemoError("enrolling twice made two enrollments")
        self.enrollment = first["enrollment_id"]
        return "asked twice, enrolled once"

    def confirmation_mail(self) -> str:
        return self._mail("enrol")

    def finish_lessons(self) -> str:
        seen = [0]
        for number, lesson in enumerate(self.course["lessons"], start=1):
            self.school.call("POST", f"/lessons/{lesson['id']}/complete", expect=202, token=self.student)
            expected = 100 * number // len(self.course["lessons"])
            seen.append(
                wait_for(
                    lambda expected=expected: self._progress_at_least(expected),  # type: ignore[misc]
                    f"progress of {expected} %",
                )
            )
            self.tell(f"{seen[-1]} %", seen[-1], 100)
        return " → ".join(f"{value} %" for value in seen)

    def completion(self) -> str:
        found = wait_for(lambda: self._enrollment()["completed_at"], "the completion")
        return f"completed at {found[:19]}"

    def certificate_file(self) -> str:
        self.certificate = wait_for(lambda: self._enrollment()["certificate"], "the certificate")
        path = f"/certificates/{self.certificate['number']}.pdf"
        pdf = self.school.call("GET", path, expect=200, token=self.student)
        if not pdf.startswith(b"%PDF-"):
            raise DemoError(f"{path} is no PDF")
        return f"{self.certificate['number']}, {len(pdf) / 1024:.0f} KiB of PDF"

    def certificate_mail(self) -> str:
        told = self._mail("certificate")
        attached = [
            item["filename"]
            for mail in self.school.mails(self.email)
            for item in mail["attachments"]
            if item["content_type"] == "application/pdf"
        ]
        if len(attached) != 1:
            raise DemoError(f"one attached certificate was expected, there are {len(attached)}")
        return f"{told}, with {attached[0]}"

    def verify_page(self) -> str:
        path = f"/certificates/{self.certificate['number']}"
        found = self.school.call("GET", path, expect=200)
        text = found.decode() if isinstance(found, bytes) else str(found)
        if self.name not in text:
            raise DemoError(f"{path} does not name {self.name}")
        return "open to anyone, names the student and the course"

    def webhooks(self) -> str:
        def all_arrived() -> list[dict[str, Any]] | None:
            arrived = self.school.webhooks(self.hook)
            return arrived if {item["event"] for item in arrived} >= set(EVENTS) else None

        arrived = wait_for(all_arrived, "the delivery of all webhooks")
        unverified = [item["event"] for item in arrived if item["verified"] is not True]
        if unverified:
            raise DemoError(f"the signatures of {unverified} did not hold")
        mine = Counter(item["event"] for item in arrived if self._is_mine(item))
        if any(count != 1 for count in mine.values()):
            raise DemoError(f"each event was expected once: {dict(mine)}")
        self.school.unhook(self.webhook_id)
        return f"{sum(mine.values())} events, each once, all signatures hold"

    def _mail(self, word: str) -> str:
        def find() -> str | None:
            subjects = [mail["subject"] for mail in self.school.mails(self.email)]
            return next((subject for subject in subjects if word in subject.casefold()), None)

        return f"“{wait_for(find, f'a mail about {word!r}')}”"

    def _enrollment(self) -> dict[str, Any]:
        found: dict[str, Any] = self.school.call(
            "GET", f"/enrollments/{self.enrollment}", expect=200, token=self.student
        )
        return found

    def _progress_at_least(self, percentage: int) -> int | None:
        found = int(self._enrollment()["progress_percentage"])
        return found if found >= percentage else None

    def _is_mine(self, delivery: dict[str, Any]) -> bool:
        # Others may register and enrol while the demo runs; their events reach this webhook too.
        return self.mark in str(delivery) or str(self.course["id"]) in str(delivery.get("body", ""))
