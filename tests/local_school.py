"""The school as a newcomer has it after `make up`: its processes, and the people who use it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

ROOT = Path(__file__).parents[1]
SECONDS = 90
OURS = ("ERRANDS_", "SMTP_", "EMAIL_", "CELERY_", "DATABASE_URL", "REDIS_URL", "TASKS_", "WEBHOOK_", "PORT")


class LocalSchool:
    """What a newcomer has after `make up`."""

    def __init__(self, home: Path, access: dict[str, Any]) -> None:
        self.home = home
        self.access = access
        self.api = httpx.Client(base_url=access["url"], timeout=30)
        self.hook = f"{access['webhooks_url']}/hook/school"

    def headers(self, who: str) -> dict[str, str]:
        """The headers of the seeded admin, instructor or student."""
        return self.sign_in(self.access[f"{who}_email"], self.access[f"{who}_password"])

    def sign_in(self, email: str, password: str) -> dict[str, str]:
        answer = self.api.post("/login", json={"email": email, "password": password}).raise_for_status()
        return {"Authorization": f"Bearer {answer.json()['access_token']}"}

    def register(self, email: str, name: str) -> dict[str, str]:
        body = {"email": email, "password": "correct horse", "full_name": name}
        assert self.api.post("/register", json=body).status_code == 201
        return self.sign_in(email, "correct horse")

    def course(self, title: str, lessons: int) -> dict[str, Any]:
        body = {"title": title, "lessons": [f"Lesson {number}" for number in range(lessons)]}
        answer = self.api.post("/courses", json=body, headers=self.headers("instructor"))
        return dict(answer.raise_for_status().json())

    def subjects(self, email: str) -> list[str]:
        found = httpx.get(f"{self.access['mail_url']}/api/messages", params={"to": email}).json()
        return sorted(mail["subject"] for mail in found)

    def deliveries(self) -> list[dict[str, Any]]:
        return list(httpx.get(f"{self.access['webhooks_url']}/api/deliveries").json())

    def until(self, condition: Callable[[], Any]) -> Any:
        deadline = time.monotonic() + SECONDS
        while not (found := condition()):
            assert time.monotonic() < deadline, f"it did not happen in {SECONDS} s"
            time.sleep(0.1)
        return found

    def ended(self, headers: dict[str, str], task_id: str) -> dict[str, Any]:
        """The run, once it is over."""

        def over() -> dict[str, Any] | None:
            answer = self.api.get(f"/api/tasks/{task_id}", headers=headers)
            run = answer.json() if answer.status_code == 200 else {}
            return run if run.get("ready") else None

        return dict(self.until(over))

    def watched(self, answer: httpx.Response) -> list[dict[str, Any]]:
        """What the progress page of a run is told, until it is over."""
        page = httpx.URL(answer.raise_for_status().json()["progress_url"])
        with self.api.stream("GET", page.copy_with(path=f"{page.path}/events")) as stream:
            lines = [line for line in stream.iter_lines() if line.startswith("data: ")]
        return [json.loads(line.removeprefix("data: ")) for line in lines]

    def graduate(self, headers: dict[str, str], title: str) -> dict[str, Any]:
        """Take a course of one lesson to its end; returns the certificate once everything was told."""
        course = self.course(title, lessons=1)
        enrolled = self.api.post(f"/courses/{course['id']}/enroll", headers=headers).json()
        self.api.post(f"/lessons/{course['lessons'][0]['id']}/complete", headers=headers).raise_for_status()
        path = f"/enrollments/{enrolled['enrollment_id']}"
        certificate = self.until(lambda: self.api.get(path, headers=headers).json()["certificate"])
        self.until(lambda: len(self.kinds(certificate["id"])) == 2)
        return dict(certificate)

    def kinds(self, certificate_id: int) -> list[str]:
        """The events that arrived about this certificate."""
        told = [(row["event"], json.loads(row["body"])["data"]) for row in self.deliveries()]
        return sorted(event for event, data in told if data.get("certificate_id") == certificate_id)


def as_make_up_starts_it() -> list[str]:
    """The arguments of `errands up`, as the Makefile has them."""
    printed = subprocess.run(["make", "-n", "up"], cwd=ROOT, capture_output=True, text=True, check=True)
    command = next(line for line in printed.stdout.splitlines() if " up --app " in line)
    words = shlex.split(command)
    return words[words.index("up") :]


@pytest.fixture(scope="module")
def school(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalSchool]:
    home = tmp_path_factory.mktemp("school") / "home"
    environment = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environment["PYTHONPATH"] = f"{ROOT / 'src'}:{ROOT / 'apps'}"
    command = [
        sys.executable, "-m", "errands", *as_make_up_starts_it(), "--home", str(home), "--port", "0",
    ]  # fmt: skip
    printed = home.with_suffix(".out")
    with printed.open("wb") as output:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            start_new_session=True,
        )  # fmt: skip
        try:
            deadline = time.monotonic() + SECONDS
            while not (home / "access.json").exists():
                assert process.poll() is None, printed.read_text()
                assert time.monotonic() < deadline, printed.read_text()
                time.sleep(0.1)
            local = LocalSchool(home, json.loads((home / "access.json").read_text()))
            body = {"url": local.hook, "events": ["*"]}
            made = local.api.post("/webhooks", json=body, headers=local.headers("admin")).json()
            secrets = {"school": made["secret"]}
            httpx.put(f"{local.access['webhooks_url']}/api/secrets", json=secrets).raise_for_status()
            yield local
            local.api.close()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(30)
