"""Certificates: made once, checked by anybody, downloaded by their owner."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from errands import Database
from errands.core import clock
from errands.core.clock import FakeClock
from school.app import app
from school.certificates.numbers import new_number, parse
from school.certificates.tables import Certificate
from school.database import reading_session, writing_session
from school.enrollments.tables import Enrollment
from school.people.tables import Role
from school.testing import School, school_on


@pytest.fixture
async def school(database: Database, tmp_path: Path) -> AsyncIterator[School]:
    async with school_on(database, tmp_path) as school:
        yield school


@pytest.fixture
async def lite(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[School]:
    """For what is refused before any database is asked."""
    async with school_on(sqlite_database, tmp_path) as school:
        yield school


@pytest.fixture
async def ann(school: School) -> dict[str, str]:
    return await school.user("ann@example.org", name="Ann 王 علي नीता")


@pytest.fixture
async def graduated(school: School, ann: dict[str, str]) -> dict[str, Any]:
    return await school.graduate(ann, await school.course())


def generate(enrollment_id: int) -> Any:
    return app.tasks["generate_certificate"].delay(enrollment_id)


async def complete_quietly(school: School, headers: dict[str, str]) -> int:
    """An enrollment that is complete, and for which nothing has been started."""
    enrollment_id = await school.enroll(headers, await school.course())
    async with writing_session(school.database) as session:
        await session.execute(
            update(Enrollment)
            .where(Enrollment.id == enrollment_id)
            .values(progress=100, completed_at=clock.now())
        )
    return enrollment_id


async def rows(school: School) -> list[Certificate]:
    async with reading_session(school.database) as session:
        return list((await session.scalars(select(Certificate))).all())


def test_numbers_hold_128_random_bits_and_are_read_as_people_type_them() -> None:
    numbers = {new_number() for _ in range(1000)}
    assert len(numbers) == 1000
    for number in numbers:
        assert re.fullmatch(r"C-([0-9A-HJKMNP-TV-Z]{5}-){4}[0-9A-HJKMNP-TV-Z]{6}", number)
        assert len(number) <= 40
        typed = number.lower().replace("-", " ").replace("0", "o").replace("1", "l")
        assert parse(number) == parse(typed) == parse(number.replace("-", "")[1:]) == number
    for wrong in ("", "C-", "C-12345", new_number() + "A", "U" * 26, "٣" * 26, "x" * 10_000):
        assert parse(wrong) is None


def test_every_bit_of_a_number_is_random() -> None:
    letters = [new_number().replace("-", "")[1:] for _ in range(400)]
    for position in range(1, 26):
        assert len({text[position] for text in letters}) > 16
    assert len({text[0] for text in letters}) == 8  # 130 bits of letters hold 128 of chance


async def test_it_bears_the_day_of_completion_and_the_names_as_they_are(school: School) -> None:
    """Mistake 9: the day on which it was generated; long and non-Latin names break it."""
    name = "Ann 王 علي नीता " + "x" * 180
    with clock.use(FakeClock(datetime(2026, 3, 5, 23, 59, tzinfo=UTC))) as time:
        headers = await school.user("long@example.org", name=name)
        enrollment_id = await complete_quietly(school, headers)
        time.advance(timedelta(days=40))  # type: ignore[attr-defined]
        generate(enrollment_id)
    [words] = school.documents.certificates
    assert words.completed_on == date(2026, 3, 5)
    assert words.student == name
    assert words.course == "Algebra"
    assert words.title == "Certificate of Completion"
    assert words.verify_url == f"http://school.test/certificates/{words.number}"


async def test_an_incomplete_course_gives_none_and_is_not_tried_again(
    school: School, ann: dict[str, str]
) -> None:
    """Mistake 4: "course not complete" is retried three times, five minutes apart."""
    run = generate(await school.enroll(ann, await school.course()))
    live = app.live.get(run.id)
    assert live is not None
    assert (live.state, live.attempt) == ("discarded", 1)
    assert "not complete" in live.facts["error"]["message"]
    assert await rows(school) == []
    assert app.live.get(generate(999).id).state == "discarded"  # type: ignore[union-attr]


async def test_a_retry_finds_the_number_that_was_drawn(
    school: School, ann: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Mistake 5: each retry makes a new certificate number and file."""
    real, failures = school.storage.put, [OSError("disk full"), OSError("disk full")]

    async def put(*args: Any, **kwargs: Any) -> Any:
        if failures:
            raise failures.pop()
        return await real(*args, **kwargs)

    monkeypatch.setattr(school.storage, "put", put)
    enrollment_id = await complete_quietly(school, ann)
    with clock.use(FakeClock()):
        run = generate(enrollment_id)
    assert app.live.get(run.id).attempt == 3  # type: ignore[union-attr]
    [certificate] = await rows(school)
    assert {words.number for words in school.documents.certificates} == {certificate.number}
    assert list(school.storage.files) == [certificate.file_key]


async def test_what_exists_is_not_made_again(school: School, graduated: dict[str, Any]) -> None:
    """Mistake 5: doing it twice makes two."""
    mails = len(school.mailer.outbox)
    again = generate(graduated["id"]).get()
    assert again["certificate_id"] == graduated["certificate"]["id"]
    assert len(school.documents.certificates) == 1
    assert len(school.mailer.outbox) == mails
    school.storage.files.clear()
    assert generate(graduated["id"]).get()["number"] == graduated["certificate"]["number"]
    assert len(school.storage.files) == 1
    assert len(school.mailer.outbox) == mails


async def test_many_at_once_draw_one_number_and_tell_once(school: School, ann: dict[str, str]) -> None:
    """Mistake 5, in a race."""
    enrollment_id = await complete_quietly(school, ann)
    results = await asyncio.gather(
        *(asyncio.to_thread(lambda: generate(enrollment_id).get()) for _ in range(6))
    )
    assert len({result["certificate_id"] for result in results}) == 1
    assert len(await rows(school)) == 1
    assert len(school.storage.files) == 1
    assert school.subjects().count("Your certificate: Algebra") == 1


async def test_the_mail_brings_the_file_and_a_link_that_works(
    school: School, graduated: dict[str, Any]
) -> None:
    """Mistake 15: a message carries a reference to the file, not its bytes."""
    [mail] = [m for m in school.mails_to("ann@example.org") if m.subject == "Your certificate: Algebra"]
    [attachment] = mail.attachments
    assert attachment.content_type == "application/pdf"
    assert attachment.data.startswith(b"%PDF")
    link = re.search(r"http://school\.test/\S+", mail.text)
    assert link
    answer = await school.http.get(link[0])
    assert answer.content == attachment.data
    sent = [e.to_json().decode() for e in app.live.events if e.task == "send_certificate_email"]  # type: ignore[attr-defined]
    assert sent
    assert all(len(text) < 2000 for text in sent)


async def test_the_file_of_another_user_is_not_attached(school: School, graduated: dict[str, Any]) -> None:
    await school.user("bob@example.org")
    bob = next(user_id for user_id, email in school.emails.items() if email == "bob@example.org")
    url = graduated["certificate"]["url"]
    app.tasks["send_certificate_email"].delay(bob, "bob@example.org", url, "Algebra")
    app.tasks["send_certificate_email"].delay(
        bob, "bob@example.org", "https://elsewhere.test/c.pdf", "Algebra"
    )
    assert [mail.attachments for mail in school.mails_to("bob@example.org")] == [(), ()]


async def test_anybody_can_check_a_certificate(school: School, graduated: dict[str, Any]) -> None:
    number = graduated["certificate"]["number"]
    for typed in (number, number.lower(), number.replace("-", "")):
        answer = await school.http.get(f"/certificates/{typed}")
        assert answer.status_code == 200
        body = answer.json()
        assert body.pop("completed_on") == graduated["completed_at"][:10]
        assert body == {"valid": True, "number": number, "name": "Ann 王 علي नीता", "course": "Algebra"}
    page = await school.http.get(f"/certificates/{number}", headers={"Accept": "text/html,*/*;q=0.8"})
    assert page.headers["content-type"].startswith("text/html")
    assert "<bdi>Ann 王 علي नीता</bdi>" in page.text
    assert "frame-ancestors 'none'" in page.headers["Content-Security-Policy"]
    assert "ann@example.org" not in page.text


@pytest.mark.parametrize(
    "number", ["C-00000-00000-00000-00000-000000", "nonsense", "%00", "<script>", "C" * 200]
)
async def test_a_number_that_nobody_has_is_told_as_such(lite: School, number: str) -> None:
    answer = await lite.http.get(f"/certificates/{number}")
    assert answer.status_code in (404, 422)
    assert "detail" in answer.json()
    page = await lite.http.get(f"/certificates/{number}", headers={"Accept": "text/html"})
    assert page.status_code == answer.status_code
    assert "<script" not in page.text
    assert (await lite.http.get(f"/certificates/{number}.pdf")).status_code in (404, 422)


async def test_a_number_that_is_drawn_and_not_issued_is_not_valid_yet(
    school: School, ann: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(school.storage, "put", full)
    enrollment_id = await complete_quietly(school, ann)
    with clock.use(FakeClock()):
        generate(enrollment_id)
    [certificate] = await rows(school)
    assert (await school.http.get(f"/certificates/{certificate.number}")).status_code == 404
    shown = (await school.http.get(f"/enrollments/{enrollment_id}", headers=ann)).json()
    assert shown["certificate"] is None


async def test_numbers_cannot_be_tried_out(school: School, graduated: dict[str, Any]) -> None:
    with clock.use(FakeClock()) as time:
        codes = [(await school.http.get(f"/certificates/{new_number()}")).status_code for _ in range(31)]
        assert codes == [404] * 30 + [429]
        refused = await school.http.get(f"/certificates/{graduated['certificate']['number']}")
        assert refused.status_code == 429
        assert refused.headers["Retry-After"] == "60"
        time.advance(60)  # type: ignore[attr-defined]
        answer = await school.http.get(f"/certificates/{graduated['certificate']['number']}")
        assert answer.status_code == 200


async def test_the_file_is_for_its_owner_or_for_a_good_link(
    school: School, ann: dict[str, str], graduated: dict[str, Any]
) -> None:
    path = f"/certificates/{graduated['certificate']['number']}.pdf"
    bob = await school.user("bob@example.org")
    mine = await school.http.get(path, headers=ann)
    assert mine.headers["content-type"] == "application/pdf"
    assert mine.headers["Content-Disposition"].startswith("attachment")
    assert mine.headers["Cache-Control"] == "private, no-store"
    assert (await school.http.get(path)).status_code == 401
    assert (await school.http.get(path, headers=bob)).status_code == 404
    link = graduated["certificate"]["url"]
    assert (await school.http.get(link)).content == mine.content
    assert (await school.http.get(link[:-2])).status_code == 403
    with clock.use(FakeClock(clock.now() + timedelta(days=31))):
        assert (await school.http.get(link)).status_code == 403
    # A link opens the one file that it was made for.
    other = await school.graduate(bob, await school.course(title="Biology"))
    query = link.partition("?")[2]
    assert (
        await school.http.get(f"/certificates/{other['certificate']['number']}.pdf?{query}")
    ).status_code == 403


async def test_a_withdrawn_certificate_says_so(school: School, graduated: dict[str, Any]) -> None:
    admin = await school.user("admin@example.org", Role.ADMIN)
    number = graduated["certificate"]["number"]
    assert (await school.http.delete(f"/certificates/{new_number()}", headers=admin)).status_code == 404
    assert (await school.http.delete(f"/certificates/{number}", headers=admin)).status_code == 204
    answer = await school.http.get(f"/certificates/{number}")
    assert answer.json() == {"valid": False, "number": number, "detail": "This certificate was withdrawn."}
    page = await school.http.get(f"/certificates/{number}", headers={"Accept": "text/html"})
    assert "withdrawn" in page.text
    assert (await school.http.get(graduated["certificate"]["url"])).status_code == 410


async def test_the_record_outlives_the_result(school: School, graduated: dict[str, Any]) -> None:
    """Mistake 20: results go after an hour while the user is promised a link."""
    app.live.clear()  # type: ignore[attr-defined]
    with clock.use(FakeClock(clock.now() + timedelta(days=3))):
        assert (await school.http.get(graduated["certificate"]["url"])).status_code == 200


async def test_the_day_is_counted_into_one_row(school: School, graduated: dict[str, Any]) -> None:
    from school.analytics.tables import DailyAnalytics

    today = clock.now().date()
    for _ in range(2):
        counts = app.tasks["generate_daily_analytics"].delay(today.isoformat()).get()
    assert counts == {
        "day": today.isoformat(),
        "registrations": 2,
        "enrollments": 1,
        "lessons_completed": 2,
        "courses_completed": 1,
        "certificates_issued": 1,
    }
    with clock.use(FakeClock(clock.now() + timedelta(days=1))):
        assert app.tasks["generate_daily_analytics"].delay().get() == counts
    async with reading_session(school.database) as session:
        assert await session.scalar(select(func.count()).select_from(DailyAnalytics)) == 1
    assert json.dumps(counts)
