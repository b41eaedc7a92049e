"""Counting the lines of large texts, and telling that several uploads are done."""

from __future__ import annotations

import codecs
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from errands import BatchStatus, Discard, Retry, Run
from errands.kits.push import Notice, Notifier
from errands.kits.storage import Storage
from school.app import app
from school.database import ReadingSession
from school.uploads import service

RETRY = Retry(3, first=10, most=120)
_LONGEST = 1_000_000
_EVERY = 100  # lines between two words on how far it is


@dataclass(slots=True)
class Counts:
    """What a text consists of."""

    lines: int = 0
    words: int = 0
    characters: int = 0
    longest_line: int = 0

    def add(self, line: str) -> None:
        """Count one line more."""
        self.lines += 1
        self.words += len(line.split())
        self.characters += len(line)
        self.longest_line = max(self.longest_line, len(line))


@app.task(name="process_large_file", queue="files", retry=RETRY, soft_time_limit=240, time_limit=300)
async def process_large_file(
    upload_id: int, *, run: Run, session: ReadingSession, storage: Storage
) -> dict[str, Any]:
    """Count lines, words and characters; how far it is, is told every 100 lines.

    After four minutes it ends with what it has, and says so.
    """
    upload = await service.get(session, upload_id)
    if upload is None:
        raise Discard(f"there is no upload {upload_id}")
    counts, partial = Counts(), False
    try:
        async for line, read in lines_of(storage.stream(upload.key)):
            counts.add(line)
            if counts.lines % _EVERY == 0:
                run.progress(read, upload.size, f"{counts.lines:,} lines")
    except SoftTimeLimitExceeded:
        partial = True
    else:
        run.progress(upload.size, upload.size, f"{counts.lines:,} lines")
    return {"upload_id": upload_id, "filename": upload.filename, **asdict(counts), "partial": partial}


@app.task(name="tell_uploads_done", queue="notifications", retry=RETRY)
async def tell_uploads_done(
    user_id: int, outcome: BatchStatus, *, run: Run, notifier: Notifier
) -> dict[str, int]:
    """Tell somebody that the files they uploaded together are processed."""
    failed = f"; {outcome.failed} could not be" if outcome.failed else ""
    text = f"{outcome.succeeded} of {outcome.total} files are processed{failed}."
    return await notifier.send(run, [user_id], Notice(title="Your uploads", message=text, kind="uploads"))


async def lines_of(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, int]]:
    """The lines of a text in UTF-8, without their ends, and how many bytes were read by then.

    A line may span chunks. What is no UTF-8 is shown as U+FFFD, as browsers do. Of a line without an end, a
    million characters are kept.
    """
    decoder, rest, read = codecs.getincrementaldecoder("utf-8")("replace"), "", 0
    async for chunk in chunks:
        read += len(chunk)
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        for line in lines:
            yield line.removesuffix("\r"), read
        rest = rest[:_LONGEST]
    rest += decoder.decode(b"", final=True)
    if rest:
        yield rest, read
