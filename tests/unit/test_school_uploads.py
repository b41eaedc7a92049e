"""Files that people upload to the school: kept for their owner, processed behind the answer."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from errands import Database
from errands.kits.documents import Report
from errands.kits.push import NotificationStore
from errands.kits.storage import Files
from letters import error_rate, letter
from pictures import encoded
from school.app import app
from school.people.tables import Role
from school.testing import School, school_on
from school.uploads import kinds
from school.uploads.tasks import lines_of


@pytest.fixture
async def school(database: Database, tmp_path: Path) -> AsyncIterator[School]:
    async with school_on(database, tmp_path) as school:
        yield school


@pytest.fixture
async def lite(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[School]:
    async with school_on(sqlite_database, tmp_path) as school:
        yield school


def photo(width: int = 1600, height: int = 1200) -> bytes:
    image, target = Image.effect_noise((width, height), 40).convert("RGB"), io.BytesIO()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A camera"  # lies on its side; who made it
    image.save(target, "JPEG", exif=exif)
    return target.getvalue()


async def upload(
    school: School, headers: dict[str, str], name: str, content: bytes, purpose: str | None = None
) -> httpx.Response:
    params = {"purpose": purpose} if purpose else {}
    return await school.http.post("/uploads", files={"file": (name, content)}, params=params, headers=headers)


async def task(school: School, headers: dict[str, str], task_id: str) -> dict[str, Any]:
    answer = await school.http.get(f"/api/tasks/{task_id}", headers=headers)
    answer.raise_for_status()
    return dict(answer.json())


async def notices(user_id: int) -> list[str]:
    boxes = app.resources.instance(NotificationStore)
    return [notification.title for notification in await boxes.list(str(user_id))]


async def test_a_large_text_is_counted_and_tells_how_far_it_is(school: School) -> None:
    ann = await school.user("ann@example.org")
    content = "".join(f"Zeile {number} with words 王\r\n" for number in range(950)) + "and a last one"
    made = await upload(school, ann, "../../etc/Notes.TXT", content.encode())
    assert made.status_code == 202
    assert {"task_id", "upload_id", "status", "message"} <= made.json().keys()
    run = await task(school, ann, made.json()["task_id"])
    assert run["result"] == {
        "upload_id": made.json()["upload_id"], "filename": made.json()["filename"], "lines": 951,
        "words": 950 * 5 + 4, "characters": len(content) - 2 * 950, "longest_line": 22, "partial": False,
    }  # fmt: skip
    assert "/" not in run["result"]["filename"]
    assert (run["progress"]["percentage"], run["progress"]["note"]) == (100, "951 lines")
    shown = (await school.http.get(f"/uploads/{made.json()['upload_id']}", headers=ann)).json()
    assert (shown["size"], shown["purpose"], shown["photos"]) == (len(content.encode()), "file", [])
    assert await app.resources.instance(Files).usage(f"user:{next(iter(school.emails))}") == shown["size"]


async def test_a_photo_is_compressed_stored_and_told(school: School) -> None:
    ann = await school.user("ann@example.org")
    made = await upload(school, ann, "holiday.jpg", photo())
    run = await task(school, ann, made.json()["task_id"])
    steps = [await task(school, ann, step) for step in run["result"]]
    assert [step["task"] for step in steps] == ["compress_photo", "store_photo", "notify_photo"]
    assert [step["status"] for step in steps] == ["SUCCESS"] * 3
    shown = (await school.http.get(f"/uploads/{made.json()['upload_id']}", headers=ann)).json()
    assert [(each["name"], each["width"], each["height"]) for each in shown["photos"]] == [
        ("large", 810, 1080),
        ("small", 360, 480),
    ]
    keys = [each["url"].split("/files/")[1].split("?")[0] for each in shown["photos"]]
    for key in keys:
        small = Image.open(io.BytesIO(await school.storage.read(key)))
        assert not small.getexif()
    assert await notices(next(iter(school.emails))) == ["Your photo is ready"]


async def test_a_photo_that_is_none_is_refused_with_a_word_to_its_owner(school: School) -> None:
    ann = await school.user("ann@example.org")
    made = await upload(school, ann, "photo.png", b"<html>not a picture</html>")
    [run] = [run for run in app._inline_runs._runs.values() if run.facts["task"] == "compress_photo"]
    step = await task(school, ann, run.run_id)
    assert step["state"] == "discarded"
    assert "image" in step["error"]
    shown = (await school.http.get(f"/uploads/{made.json()['upload_id']}", headers=ann)).json()
    assert shown["photos"] == []


async def test_a_letter_is_read_and_its_owner_told(lite: School) -> None:
    ann, page = await lite.user("ann@example.org"), letter(0, "clean")
    made = await upload(lite, ann, "letter.png", encoded(page.image, "PNG"), "letter")
    run = await task(lite, ann, made.json()["task_id"])
    assert error_rate(run["result"]["text"], page.text) < 0.05
    assert run["result"]["confidence"] > 60
    assert await notices(next(iter(lite.emails))) == ["Your letter was read"]
    assert (await upload(lite, ann, "letter.txt", b"x", "letter")).status_code == 415


async def test_several_files_are_counted_together(school: School) -> None:
    ann = await school.user("ann@example.org")
    files = [("files", (f"{n}.txt", b"one\ntwo\n")) for n in range(3)]
    made = (await school.http.post("/uploads/many", files=files, headers=ann)).json()
    assert len({each["task_id"] for each in made["uploads"]}) == 3
    whole = await task(school, ann, made["task_id"])
    assert (whole["status"], whole["batch"]["succeeded"], whole["batch"]["total"]) == ("SUCCESS", 3, 3)
    for each in made["uploads"]:
        assert (await task(school, ann, each["task_id"]))["result"]["lines"] == 2
    assert await notices(next(iter(school.emails))) == ["Your uploads"]


async def test_a_report_on_a_text_comes_in_four_steps(school: School) -> None:
    ann = await school.user("ann@example.org")
    made = await upload(school, ann, "poem.txt", b"The sea, the SEA!\nthe ever free\n")
    asked = await school.http.post(f"/uploads/{made.json()['upload_id']}/report", headers=ann)
    assert (asked.status_code, asked.json()["status"]) == (202, "generating")
    run = await task(school, ann, asked.json()["task_id"])
    steps = [await task(school, ann, step) for step in run["result"]]
    names = ["preprocess_file", "analyse_file", "report_on_file", "notify_report"]
    assert [(step["task"], step["status"]) for step in steps] == [(name, "SUCCESS") for name in names]
    assert steps[1]["result"]["most_frequent"][:2] == [["the", 3], ["sea", 2]]
    link = httpx.URL(steps[3]["result"]["url"])
    assert (await school.http.get(link.raw_path.decode())).content.startswith(b"%PDF")
    [report] = school.documents.reports
    assert isinstance(report, Report)
    assert report.title == "Report on poem.txt"
    assert await notices(next(iter(school.emails))) == ["Your report is ready"]


async def test_uploads_are_their_owners(lite: School) -> None:
    ann, bob = await lite.user("ann@example.org"), await lite.user("bob@example.org")
    made = (await upload(lite, ann, "a.txt", b"x")).json()
    for method, path in (("GET", ""), ("POST", "/report")):
        answer = await lite.http.request(method, f"/uploads/{made['upload_id']}{path}", headers=bob)
        assert answer.status_code == 404
    assert (await upload(lite, {}, "a.txt", b"x")).status_code == 401
    admin = await lite.user("admin@example.org", Role.ADMIN)
    assert (await lite.http.get(f"/uploads/{made['upload_id']}", headers=admin)).status_code == 404


@pytest.mark.parametrize(
    ("name", "purpose", "status"),
    [
        ("a.html", None, 415),
        ("a.svg", None, 415),
        ("a", None, 415),
        ("a.txt", "photo", 415),
        ("a.jpg", "file", 415),
        ("a.txt", "poem", 422),
    ],
)
async def test_what_cannot_be_used_is_refused_at_once(
    lite: School, name: str, purpose: str | None, status: int
) -> None:
    ann = await lite.user("ann@example.org")
    answer = await upload(lite, ann, name, b"x", purpose)
    assert answer.status_code == status
    assert lite.storage.files == {}


async def test_one_bad_file_of_many_refuses_all(lite: School) -> None:
    ann = await lite.user("ann@example.org")
    files = [("files", ("a.txt", b"x")), ("files", ("b.exe", b"x"))]
    assert (await lite.http.post("/uploads/many", files=files, headers=ann)).status_code == 415
    assert lite.storage.files == {}


async def test_a_file_that_is_too_large_is_refused(lite: School, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "MOST_BYTES", 1000)
    ann = await lite.user("ann@example.org")
    refused = await upload(lite, ann, "a.txt", b"x" * 1001)
    assert (refused.status_code, "1,000" in refused.json()["detail"]) == (413, True)


async def test_lines_may_span_chunks_and_need_no_end() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in (b"a\r", b"\nb\n", "ü".encode()[:1], "ü".encode()[1:], b"", b"\xff"):
            yield chunk

    assert [line async for line, _ in lines_of(chunks())] == ["a", "b", "ü\N{REPLACEMENT CHARACTER}"]
