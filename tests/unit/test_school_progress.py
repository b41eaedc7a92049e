"""Watching work: the link in each answer, the page behind it, its events; and what none of them shows."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from PIL import Image

from errands import Database
from errands.core import clock
from errands.core.clock import FakeClock
from errands.kits.storage import link_signer
from errands.ops.errors import RecordUnavailable
from school.app import app
from school.pages import page
from school.people.tables import Role
from school.progress import endpoints, links
from school.progress.shown import shown, title_of
from school.testing import School, school_on

HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
TEXT = b"a secret word\n" * 250


@pytest.fixture
async def school(sqlite_database: Database, tmp_path: Path) -> AsyncIterator[School]:
    async with school_on(sqlite_database, tmp_path) as school:
        yield school


async def upload(
    school: School, headers: dict[str, str], name: str = "diary.txt", content: bytes = TEXT
) -> dict[str, Any]:
    answer = await school.http.post("/uploads", files={"file": (name, content)}, headers=headers)
    assert answer.status_code == 202
    return dict(answer.json())


def local(url: str, more: str = "") -> str:
    """The path of a `progress_url`, with something put behind it, and its query."""
    parts = urlsplit(url)
    assert f"{parts.scheme}://{parts.netloc}" == "http://school.test"
    return f"{parts.path}{more}?{parts.query}"


async def events(school: School, url: str) -> list[dict[str, Any]]:
    """What the stream of a run tells, to its end."""
    answer = await school.http.get(local(url, "/events"))
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    told = re.findall(r"^event: (\w+)\ndata: (.*)$", answer.text, re.M)
    assert {name for name, _ in told} == {"state"}
    return [json.loads(data) for _, data in told]


def photo() -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (640, 480), (20, 90, 160)).save(target, "JPEG")
    return target.getvalue()


# -- the links


async def test_every_answer_that_starts_work_says_where_it_can_be_watched(school: School) -> None:
    ann, teacher = await school.user("ann@example.org"), await school.user("t@school.test", Role.INSTRUCTOR)
    course = await school.course()
    body = {"course_id": course["id"], "amount": "5"}
    text = {"phone_numbers": ["+442079460000"], "message": "Hello"}
    answers = [
        await school.http.post(f"/courses/{course['id']}/enroll", headers=ann),
        await school.complete(ann, course["lessons"][0]),
        await school.http.post("/payments", json=body, headers={**ann, "Idempotency-Key": "k"}),
        await school.http.post("/statistics/refresh", headers=ann),
        await school.http.post("/api/reports", headers=teacher),
        await school.http.post("/api/students/export", json={}, headers=teacher),
        await school.http.post("/api/send-bulk-messages", json=text, headers=teacher),
    ]
    for answer in answers:
        assert answer.status_code == 202
        link = httpx.URL(answer.json()["progress_url"])
        assert link.path == f"/progress/{answer.json()['task_id']}"
        assert set(link.params) == {"expires", "signature"}
        shown_page = await school.http.get(local(str(link)), headers=HTML)
        assert shown_page.status_code == 200, answer.json()


async def test_each_of_several_files_has_a_link_of_its_own(school: School) -> None:
    ann = await school.user("ann@example.org")
    files = [("files", (f"{n}.txt", b"one\n")) for n in range(2)]
    made = (await school.http.post("/uploads/many", files=files, headers=ann)).json()
    for each in (made, *made["uploads"]):
        assert httpx.URL(each["progress_url"]).path == f"/progress/{each['task_id']}"
        assert (await events(school, each["progress_url"]))[-1]["state"] == "succeeded"


async def test_other_answers_have_no_link(school: School) -> None:
    """That of a forgotten password would tell whose box is flooded: then there is no run behind its id."""
    ann = await school.user("ann@example.org")
    asked = await school.http.post("/password-reset", json={"email": "ann@example.org"})
    assert (asked.status_code, asked.json().keys()) == (202, {"status", "task_id"})
    made = await upload(school, ann)
    seen = await school.http.get(f"/uploads/{made['upload_id']}", headers=ann)
    assert "progress_url" not in seen.json()


async def test_a_link_opens_one_run_for_a_day(school: School) -> None:
    ann = await school.user("ann@example.org")
    with clock.use(FakeClock()) as time:
        mine, other = await upload(school, ann), await upload(school, ann)
        path, query = local(mine["progress_url"]).split("?")
        changed = query[:-2] + ("AA" if not query.endswith("AA") else "BB")
        later = re.sub(r"expires=(\d+)", lambda found: f"expires={int(found[1]) + 1}", query)
        for wrong in (
            "",
            "expires=&signature=",
            f"{query}é",
            changed,
            later,
            query.replace("signature", "s"),
        ):
            for more in ("", "/events"):
                assert (await school.http.get(f"{path}{more}?{wrong}")).status_code == 403, wrong
        assert (await school.http.get(f"/progress/{other['task_id']}?{query}")).status_code == 403
        assert (await school.http.get(f"{path}?{query}")).status_code == 200
        time.advance(timedelta(days=1, seconds=-1))  # type: ignore[attr-defined]
        assert (await school.http.get(f"{path}?{query}")).status_code == 200
        time.advance(timedelta(seconds=1))  # type: ignore[attr-defined]
        for more in ("", "/events"):
            gone = await school.http.get(f"{path}{more}?{query}")
            assert gone.status_code == 410
    assert "diary" not in gone.text


async def test_a_link_to_a_file_opens_no_page_and_the_other_way_round(school: School) -> None:
    ann = await school.user("ann@example.org")
    made = await upload(school, ann)
    [key] = school.storage.files
    query = urlsplit(link_signer(app.settings).sign(key, filename="x", expires_in=60)).query
    assert (await school.http.get(f"/progress/{made['task_id']}?{query}")).status_code == 403
    assert (await school.http.get(f"/files/{key}?{links.query(made['task_id'])}")).status_code == 403


async def test_a_run_that_nobody_knows_any_more(school: School) -> None:
    answer = await school.http.get(local(links.page("no-such-run")), headers=HTML)
    assert (answer.status_code, "Nothing is known" in answer.text) == (404, True)
    assert (await school.http.get(local(links.page("no-such-run"), "/events"))).status_code == 404


async def test_while_a_server_is_away_the_page_says_so(
    school: School, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(task_id: str) -> dict[str, Any]:
        raise RecordUnavailable("postgresql://inside:5432 does not answer")

    monkeypatch.setattr(endpoints, "look", away)
    answer = await school.http.get(local(links.page("any")), headers=HTML)
    assert (answer.status_code, "at the moment" in answer.text, "inside" in answer.text) == (503, True, False)


# -- the page


async def test_the_page_shows_task_state_and_progress_and_nothing_else(school: School) -> None:
    ann = await school.user("ann@example.org")
    made = await upload(school, ann)
    answer = await school.http.get(local(made["progress_url"]), headers=HTML)
    assert "<h1>Process large file</h1>" in answer.text
    assert 'role="status" data-state="succeeded">Done<' in answer.text
    assert 'value="100"' in answer.text
    assert '<bdi id="note">250 lines</bdi>' in answer.text
    for kept_back in ("diary", "ann@example.org", "3500", "data-events=", "http-equiv"):
        assert kept_back not in answer.text, kept_back
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["referrer-policy"] == "no-referrer"


async def test_the_page_runs_its_own_script_alone(school: School) -> None:
    ann = await school.user("ann@example.org")
    answer = await school.http.get(local((await upload(school, ann))["progress_url"]), headers=HTML)
    policy = answer.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    for tag, kind in (("style", "style-src"), ('script type="module"', "script-src")):
        [text] = re.findall(rf"<{tag}>(.*?)</{tag.split()[0]}>", answer.text, re.S)
        digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind} 'sha256-{digest}'" in policy
    plain = page("password_reset", token="", done=False, problem=None)
    assert "script-src" not in plain.headers["content-security-policy"]
    assert b"<script" not in plain.body


def run(state: str, result: Any = None, progress: Any = None, task: str = "t") -> dict[str, Any]:
    return {"task": task, "state": state, "result": result, "progress": progress}


def test_the_page_of_a_run_at_work_follows_it_and_without_a_script_looks_again() -> None:
    note = {"percentage": 40, "note": "<b>40 lines</b>"}
    html = bytes(
        page(
            "progress", run=shown(run("running", progress=note)), problem=None,
            here="http://s/progress/1?a=1&b=2", events="/progress/1/events?a=1&b=2",
        ).body
    ).decode()  # fmt: skip
    assert 'data-events="/progress/1/events?a=1&amp;b=2"' in html
    assert 'content="3; url=http://s/progress/1?a=1&amp;b=2"></noscript>' in html
    assert "&lt;b&gt;40 lines&lt;/b&gt;" in html
    unknown = bytes(page("progress", run=shown(run("queued")), problem=None, here="", events="").body)
    assert b'aria-label="How far it is"></progress>' in unknown  # a bar without an end


async def test_a_result_with_a_link_of_ours_can_be_downloaded(school: School) -> None:
    teacher = await school.user("t@school.test", Role.INSTRUCTOR)
    made = (await school.http.post("/api/students/export", json={}, headers=teacher)).json()
    answer = await school.http.get(local(made["progress_url"]), headers=HTML)
    [link] = re.findall(r'<a id="download" href="([^"]+)">Download the result<', answer.text)
    got = await school.http.get(httpx.URL(link.replace("&amp;", "&")))
    assert (got.status_code, got.headers["content-type"]) == (200, "text/csv; charset=utf-8")


@pytest.mark.parametrize("url", ["https://elsewhere.test/files/x", "javascript:alert(1)", 7, None])
async def test_no_other_address_of_a_result_is_shown(school: School, url: Any) -> None:
    assert shown(run("succeeded", {"url": url}))["download"] is None
    assert shown(run("running", {"url": "http://school.test/files/x"}))["download"] is None
    assert shown(run("succeeded", {"url": "http://school.test/files/x"}))["download"] is not None


def test_tasks_are_named_in_words() -> None:
    assert title_of("school.process_large_file") == "Process large file"
    assert title_of(None) == "Task"


# -- what one who is signed in sees


async def test_a_run_of_ones_own_as_json_and_as_a_page(school: School) -> None:
    ann, bob = await school.user("ann@example.org"), await school.user("bob@example.org")
    path = f"/tasks/{(await upload(school, ann))['task_id']}"
    whole = await school.http.get(path, headers=ann)
    assert whole.json() == (await school.http.get(f"/api{path}", headers=ann)).json()
    assert whole.json()["result"]["lines"] == 250
    seen = await school.http.get(path, headers={**ann, **HTML})
    assert (seen.status_code, "<h1>Process large file</h1>" in seen.text) == (200, True)
    assert (await school.http.get(path, headers={**bob, **HTML})).status_code == 404
    assert (await school.http.get(path, headers=HTML)).status_code == 401
    admin = await school.user("admin@example.org", Role.ADMIN)
    assert (await school.http.get(path, headers=admin)).json()["owner"] == str(next(iter(school.emails)))


# -- events


async def test_events_end_with_the_final_state(school: School) -> None:
    ann = await school.user("ann@example.org")
    last = (await events(school, (await upload(school, ann))["progress_url"]))[-1]
    assert last == {
        "title": "Process large file", "state": "succeeded", "words": "Done", "ready": True,
        "percentage": 100, "note": "250 lines", "download": None, "steps": [],
    }  # fmt: skip


async def test_a_chain_is_shown_as_one(school: School) -> None:
    ann = await school.user("ann@example.org")
    made = await upload(school, ann, "a.jpg", photo())
    told = await events(school, made["progress_url"])
    assert [step["title"] for step in told[-1]["steps"]] == ["Compress photo", "Store photo", "Notify photo"]
    assert [each["ready"] for each in told] == [False] * (len(told) - 1) + [True]
    assert (told[-1]["state"], told[-1]["percentage"]) == ("succeeded", 100)
    seen = await school.http.get(local(made["progress_url"]), headers=HTML)
    assert "<li>Store photo: Done</li>" in seen.text


def test_a_chain_that_breaks_has_failed() -> None:
    now = shown(run("succeeded", ["a", "b", "c"]), [run("succeeded"), run("discarded", task="store_photo")])
    assert (now["state"], now["words"], now["ready"]) == ("discarded", "It did not work", True)
    assert (now["percentage"], now["steps"][-1]["title"]) == (33, "Store photo")


def test_a_chain_is_at_work_between_its_steps() -> None:
    first = run("succeeded", ["a", "b"])
    for steps, percentage in (([], 0), ([run("succeeded")], 50), ([run("succeeded"), run("queued")], 50)):
        now = shown(first, steps)
        assert (now["ready"], now["percentage"]) == (False, percentage)
    assert shown(first, [run("succeeded"), run("retrying")])["words"] == "Goes on in a moment"
    assert shown(first, [run("succeeded"), run("succeeded")])["ready"]
    assert not shown(first, [run("succeeded"), run("running", "x")])["ready"]
    assert shown(run("succeeded", []))["ready"]
    assert shown(run("succeeded", [1, 2]))["ready"]
