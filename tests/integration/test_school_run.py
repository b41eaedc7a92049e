"""The school with everything real: `errands up`, its workers, mails over SMTP, webhooks over HTTP."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
from pypdf import PdfReader

from local_school import ROOT, LocalSchool, school
from school.app import app
from school.demo import making

__all__ = ["school"]  # a fixture

pytestmark = pytest.mark.timeout(240)


def test_from_registration_to_certificate(school: LocalSchool) -> None:
    email, name = "ann@example.org", "Ann 王 علي नीता"
    ann = school.register(email, name)
    course = school.course("Графы & Bäume", lessons=3)
    enrolled = school.api.post(f"/courses/{course['id']}/enroll", headers=ann).json()
    assert school.ended(ann, enrolled["task_id"])["state"] == "succeeded"
    path = f"/enrollments/{enrolled['enrollment_id']}"
    for lesson, progress in zip(course["lessons"], (33, 66, 100), strict=True):
        done = school.api.post(f"/lessons/{lesson['id']}/complete", headers=ann).json()
        assert school.ended(ann, done["task_id"])["result"]["progress_percentage"] == progress
        assert school.api.get(path, headers=ann).json()["progress_percentage"] == progress
    certificate = school.until(lambda: school.api.get(path, headers=ann).json()["certificate"])

    subjects = [
        f"Welcome to Errands School, {name}",
        "You are enrolled: Графы & Bäume",
        "You have completed Графы & Bäume",
        "Your certificate: Графы & Bäume",
    ]
    school.until(lambda: school.subjects(email) == sorted(subjects))
    link = urlsplit(certificate["url"])
    pdf = school.api.get(f"{link.path}?{link.query}").raise_for_status().content
    reader = PdfReader(io.BytesIO(pdf))
    assert certificate["number"] in reader.pages[0].extract_text()
    checked = school.api.get(f"/certificates/{certificate['number']}").json()
    assert (checked["valid"], checked["name"]) == (True, name)

    school.until(lambda: len(school.kinds(certificate["id"])) == 2)
    arrived = school.deliveries()
    assert all(row["verified"] for row in arrived)
    assert {row["event"] for row in arrived} >= {
        "user.registered",
        "course.enrolled",
        "certificate.generated",
        "course.completed",
    }


def test_two_last_lessons_at_once_in_real_workers_complete_once(school: LocalSchool) -> None:
    """Mistake 6, with real workers: one completion, one certificate, one mail of each kind, one event."""
    email = "bob@example.org"
    bob = school.register(email, "Bob")
    courses = [school.course(f"Race {number}", lessons=2) for number in range(5)]
    paths = []
    for course in courses:
        answer = school.api.post(f"/courses/{course['id']}/enroll", headers=bob).json()
        paths.append(f"/enrollments/{answer['enrollment_id']}")
    lessons = [lesson["id"] for course in courses for lesson in course["lessons"]]
    with ThreadPoolExecutor(len(lessons)) as pool:
        answers = list(pool.map(lambda n: school.api.post(f"/lessons/{n}/complete", headers=bob), lessons))
    assert {answer.status_code for answer in answers} == {202}
    certificates = [
        school.until(lambda path=path: school.api.get(path, headers=bob).json()["certificate"])
        for path in paths
    ]
    for answer in answers:
        assert school.ended(bob, answer.json()["task_id"])["state"] == "succeeded"
    expected = ["Welcome to Errands School, Bob"]
    for number in range(5):
        about = f"Race {number}"
        expected += [
            f"You are enrolled: {about}",
            f"You have completed {about}",
            f"Your certificate: {about}",
        ]
    school.until(lambda: len(school.subjects(email)) >= len(expected))
    school.until(lambda: all(len(school.kinds(certificate["id"])) >= 2 for certificate in certificates))
    # What was sent twice would be in the queues before this.
    school.graduate(school.register("last@example.org", "Last"), "Last of all")
    assert school.subjects(email) == sorted(expected)
    for certificate in certificates:
        assert school.kinds(certificate["id"]) == ["certificate.generated", "course.completed"]


def test_one_does_not_see_the_runs_of_another_and_admins_see_all(school: LocalSchool) -> None:
    """Mistakes 16 and 17: unknown ids wait for ever; whoever guesses an id reads anyone's result."""
    cid = school.register("cid@example.org", "Cid")
    course = school.course("Seen by whom", lessons=1)
    task_id = school.api.post(f"/courses/{course['id']}/enroll", headers=cid).json()["task_id"]
    other, admin = school.headers("student"), school.headers("admin")
    assert school.api.get(f"/api/tasks/{task_id}", headers=cid).status_code == 200
    assert school.api.get(f"/api/tasks/{task_id}", headers=admin).status_code == 200
    assert school.api.get(f"/api/tasks/{task_id}", headers=other).status_code == 404
    assert school.api.get("/api/tasks/no-such-run", headers=admin).status_code == 404
    assert school.api.get("/api/celery/health", headers=cid).status_code == 403
    health = school.api.get("/api/celery/health", headers=admin).json()
    assert health["overall"] == "healthy", health


def test_a_reset_link_arrives_and_its_token_is_nowhere_else(school: LocalSchool) -> None:
    """Mistake 8: anyone with Redis, Flower or the logs has the token."""
    school.register("dan@example.org", "Dan")
    school.api.post("/password-reset", json={"email": "dan@example.org"}).raise_for_status()
    school.until(lambda: "A new password for Errands School" in school.subjects("dan@example.org"))
    found = httpx.get(f"{school.access['mail_url']}/api/messages", params={"to": "dan@example.org"}).json()
    text = next(mail["text"] for mail in found if mail["subject"].startswith("A new password"))
    token = text.partition("token=")[2].split()[0]
    home = Path(school.access["database_url"].removeprefix("sqlite:///")).parent
    for path in home.rglob("*"):
        if path.is_file() and path.parent.name != "mail":
            assert token.encode() not in path.read_bytes(), path
    body = {"token": token, "password": "a new password"}
    assert school.api.post("/password-reset/confirm", json=body).status_code == 204
    assert school.api.post("/password-reset/confirm", json=body).status_code == 400
    school.sign_in("dan@example.org", "a new password")


def test_each_queue_is_read_by_a_worker_of_its_kind(school: LocalSchool) -> None:
    assert "No worker reads" not in school.home.with_suffix(".out").read_text()
    workers = school.api.get("/api/workers", headers=school.headers("admin")).json()
    pools = {worker["name"].partition("@")[0]: worker["queues"] for worker in workers}
    assert {name: sorted(queues) for name, queues in pools.items()} == app.queues_by_kind()


def test_work_is_watched_to_its_end_by_a_link_alone(school: LocalSchool) -> None:
    eva = school.register("eva@example.org", "Eva")
    text = {"file": ("long.txt", b"a line of a text\n" * 100_000)}
    told = school.watched(school.api.post("/uploads", files=text, headers=eva))
    assert [each["ready"] for each in told] == [False] * (len(told) - 1) + [True]
    assert (told[-1]["state"], told[-1]["percentage"], told[-1]["note"]) == (
        "succeeded",
        100,
        "100,000 lines",
    )
    assert sorted(each["percentage"] or 0 for each in told) == [each["percentage"] or 0 for each in told]

    photo = {"file": ("evening.jpg", making.photo())}
    told = school.watched(school.api.post("/uploads", files=photo, headers=eva))
    assert [each["percentage"] for each in told if each["ready"]] == [100]
    assert [step["words"] for step in told[-1]["steps"]] == ["Done"] * 3

    broken = {"file": ("evening.jpg", b"<html>no photo</html>")}
    last = school.watched(school.api.post("/uploads", files=broken, headers=eva))[-1]
    assert (last["ready"], last["state"]) == (True, "discarded")
    assert [step["title"] for step in last["steps"]] == ["Compress photo"]


def test_the_demo_does_all_its_steps_and_leaves_the_limit_as_it_was(school: LocalSchool) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT / 'apps'}",
        "ERRANDS_HOME": str(school.home),
    }
    command = [sys.executable, "-m", "school.demo", "--json", "--picture", str(school.home / "demo.svg")]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    answer = json.loads(ended.stdout)
    assert answer["ok"]
    assert {step["state"] for step in answer["steps"]} == {"done"}
    told = {step["title"]: step["told"] for step in answer["steps"]}
    assert "37 refused" in told["Import a list of students"]
    assert "1,988 sent" in told["Send 2,000 messages"]
    limits = school.api.get("/api/limits", headers=school.headers("admin")).json()
    assert [(each["now"], each["changed"]) for each in limits if each["name"] == "messages"] == [
        ("100/m", False)
    ]
    drawn = re.sub(r"&#160;", " ", (school.home / "demo.svg").read_text())
    for title in told:
        assert title in drawn
    assert len(httpx.get(f"{school.access['mail_url']}/api/phone").json()) == 1988
