"""Reports on students, and lists of them."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, HTTPException, UploadFile

from errands.kits.storage import Files, FileTooLarge
from school import dispatch
from school.access import Admin, Instructor, Reading, Writing
from school.app import app
from school.fields import Id, Input
from school.students import service

router = APIRouter(tags=["students"])

MOST_BYTES = 20 * 1024 * 1024
_CONTENT_TYPES = {
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}


class StudentsExport(Input):
    active_only: bool = False


@router.post("/api/students/export", status_code=202)
async def export(body: StudentsExport, user: Instructor, session: Writing) -> dict[str, Any]:
    """A list of the students as CSV. The result holds a signed link, good for a day."""
    task_id = dispatch.export_wanted(session, user.id, active_only=body.active_only)
    return {"task_id": task_id, "status": "processing", "message": "The export is being made."}


@router.post("/api/students/import", status_code=202)
async def import_list(
    file: UploadFile, user: Admin, session: Writing, dry_run: bool = False
) -> dict[str, Any]:
    """Enter the students of a list: a .csv, .xlsx or .json with email, full_name and is_active.

    The result has counts, and every refused row with all its reasons; with `dry_run`, nothing is written.
    """
    suffix = next((each for each in _CONTENT_TYPES if (file.filename or "").lower().endswith(each)), None)
    if suffix is None:
        raise HTTPException(415, f"Send one of {' '.join(_CONTENT_TYPES)}.")
    files, run_id = app.resources.instance(Files), dispatch.new_id()
    try:
        kept = await files.put_stream(
            _chunks(file), content_type=_CONTENT_TYPES[suffix], suffix=suffix, limit=MOST_BYTES,
            referrer=f"import:{run_id}",
        )  # fmt: skip
    except FileTooLarge as exc:
        raise HTTPException(413, str(exc)) from exc
    dispatch.import_wanted(session, user.id, kept.key, run_id=run_id, dry_run=dry_run)
    return {"task_id": run_id, "status": "processing", "message": "The list is being read."}


@router.post("/api/students/{student_id}/report", status_code=202)
async def report(student_id: Id, user: Instructor, reading: Reading, session: Writing) -> dict[str, Any]:
    """A report on one student, as PDF."""
    if await service.get(reading, student_id) is None:
        raise HTTPException(404, "There is no such student.")
    task_id = dispatch.student_report_wanted(session, student_id, asked_by=user.id)
    return {"task_id": task_id, "status": "generating", "message": "The report is being made."}


@router.post("/api/reports", status_code=202)
async def courses_report(user: Instructor, session: Writing) -> dict[str, Any]:
    """How all courses are getting on, as PDF."""
    task_id = dispatch.report_wanted(session, asked_by=user.id)
    return {"task_id": task_id, "status": "generating", "message": "The report is being made."}


async def _chunks(file: UploadFile) -> Any:
    while chunk := await file.read(256 * 1024):
        yield chunk
