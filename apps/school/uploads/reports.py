"""A report on an uploaded text: preprocess, analyse, report, notify, each a run of its own."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from errands import Discard, Run
from errands.core import clock
from errands.kits.documents import Chart, Column, Documents, Facts, Report, Table
from errands.kits.push import Notice, Notifier
from errands.kits.storage import Files, Storage
from school.app import SCHOOL_NAME, app
from school.database import ReadingSession
from school.uploads import service
from school.uploads.steps import send_steps
from school.uploads.tasks import RETRY, Counts, lines_of

_MOST_WORDS = 200_000  # different ones that are counted
_SHOWN = 25
_LINK_SECONDS = 24 * 3600
_STEPS = ("preprocess_file", "analyse_file", "report_on_file", "notify_report")


@app.task(name="start_file_report", queue="reports", retry=RETRY)
def start_file_report(upload_id: int, *, run: Run) -> list[str]:
    """Send the four steps; returns the ids of their runs."""
    return send_steps(run, _STEPS, upload_id)


@app.task(name="preprocess_file", queue="files", retry=RETRY)
async def preprocess_file(
    upload_id: int, *, session: ReadingSession, storage: Storage, files: Files
) -> dict[str, Any]:
    """Keep a copy as plain words in lower case, a line each; done twice, it is the same file."""
    upload = await service.get(session, upload_id)
    if upload is None:
        raise Discard(f"there is no upload {upload_id}")

    async def words() -> AsyncIterator[bytes]:
        async for line, _ in lines_of(storage.stream(upload.key)):
            yield (" ".join(_words(line)) + "\n").encode()

    key = files.storage.key_for("words", f"upload {upload_id}", ".txt")
    await files.put_stream(words(), content_type="text/plain; charset=utf-8", key=key)
    return {"upload_id": upload_id, "key": key}


@app.task(name="analyse_file", queue="files", retry=RETRY)
async def analyse_file(prepared: dict[str, Any], *, run: Run, storage: Storage) -> dict[str, Any]:
    """Count the words."""
    counts, words = Counts(), Counter[str]()
    async for line, _ in lines_of(storage.stream(prepared["key"])):
        counts.add(line)
        for word in line.split():
            if word in words or len(words) < _MOST_WORDS:
                words[word] += 1
        if counts.lines % 1000 == 0:
            run.progress(counts.lines, note=f"{len(words):,} different words")
    return {
        "upload_id": prepared["upload_id"], "lines": counts.lines, "words": counts.words,
        "different_words": len(words), "most_frequent": words.most_common(_SHOWN),
    }  # fmt: skip


@app.task(name="report_on_file", queue="reports", retry=RETRY)
async def report_on_file(
    found: dict[str, Any], *, session: AsyncSession, documents: Documents, files: Files
) -> dict[str, Any]:
    """Make the report and keep it with the upload; the result has a link that holds for a day."""
    upload = await service.get(session, found["upload_id"])
    if upload is None:
        raise Discard(f"there is no upload {found['upload_id']}")
    most = [(str(word), int(count)) for word, count in found["most_frequent"]]
    sections: list[Any] = [
        Facts({"Lines": found["lines"], "Words": found["words"], "Different words": found["different_words"]})
    ]
    if most:
        labels, values = [word for word, _ in most[:10]], [count for _, count in most[:10]]
        chart = Chart("bar", labels, values, alt="The ten most frequent words", title="Most frequent words")
        columns = [Column("Word", width=3), Column("Count", align="right")]
        sections += [chart, Table(columns, most)]
    report = Report(
        title=f"Report on {upload.filename}", issuer=SCHOOL_NAME, as_of=upload.created_at, sections=sections
    )
    key = files.storage.key_for("reports", f"upload {upload.id}", ".pdf")
    user_id, filename, upload_id = upload.user_id, upload.filename, upload.id
    await session.commit()  # no transaction stays open while the pages are set
    pdf = await documents.report(report)
    await files.put(pdf, content_type="application/pdf", key=key, owner=f"user:{user_id}")
    await files.keep(key, referrer=f"upload:{upload_id}", session=session)
    link = await files.storage.link(
        key, filename=f"report-{filename}.pdf", expires_in=_LINK_SECONDS, owner=str(user_id)
    )
    return {"upload_id": upload_id, "user_id": user_id, "url": link, "made_at": clock.now().isoformat()}


@app.task(name="notify_report", queue="notifications", retry=RETRY)
async def notify_report(made: dict[str, Any], *, run: Run, notifier: Notifier) -> dict[str, Any]:
    """Tell whoever uploaded the file that its report is there; the result is that of the report."""
    notice = Notice(
        title="Your report is ready", message="A report on a file that you uploaded.", kind="reports",
        data={"url": made["url"], "upload_id": made["upload_id"]},
    )  # fmt: skip
    await notifier.send(run, [made["user_id"]], notice)
    return made


def _words(line: str) -> list[str]:
    return "".join(letter if letter.isalnum() else " " for letter in line.casefold()).split()
