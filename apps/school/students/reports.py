"""Reports: on one student, and on how all courses are getting on."""

from __future__ import annotations

from typing import Any

from celery.exceptions import SoftTimeLimitExceeded

from errands import Discard, Retry, Run
from errands.core import clock
from errands.kits.documents import Chart, Column, Documents, Facts, Report, Table
from errands.kits.storage import Files
from school.app import SCHOOL_NAME, app
from school.database import ReadingSession
from school.students import service
from school.students.lists import LIMITS, RETRY

_LINK_SECONDS = 24 * 3600


@app.task(name="generate_student_report", queue="reports", retry=RETRY, **LIMITS)
async def generate_student_report(
    student_id: int, asked_by: int | None = None, *, run: Run, session: ReadingSession, documents: Documents,
    files: Files,
) -> dict[str, Any]:  # fmt: skip
    """Who a student is, and how far in each course; the result's link holds for a day."""
    student = await service.get(session, student_id)
    if student is None:
        raise Discard(f"there is no student {student_id}")
    taken = await service.courses_of(session, student_id)
    run.progress(1, 3, "what is known of the student")
    sections: list[Any] = [
        Facts(
            {
                "Student": student.full_name, "Email": student.email, "Since": student.created_at.date(),
                "Courses": len(taken), "Completed": sum(each.completed_at is not None for each in taken),
            }
        ),
        Table(
            [
                Column("Course", width=4), Column("Enrolled", width=1.5), Column("Lessons", align="right"),
                Column("Progress", bar=100, format=".0f"), Column("Completed", width=1.5),
                Column("Certificate", width=2.5),
            ],
            [
                (
                    each.course, each.enrolled_at.date(), f"{each.lessons_done}/{each.lessons}",
                    each.progress,
                    each.completed_at.date() if each.completed_at else None, each.certificate,
                )
                for each in taken
            ],
            title="Courses", empty="Not enrolled in a course",
        ),
    ]  # fmt: skip
    if len(taken) > 1:
        labels, values = [each.course for each in taken], [each.progress for each in taken]
        alt = "Progress in each course, in percent"
        sections.append(Chart("bar", labels, values, alt=alt, title="Progress", unit="%"))
    report = Report(
        title=f"Report on {student.full_name}",
        issuer=SCHOOL_NAME,
        as_of=clock.now().date(),
        sections=sections,
    )
    run.progress(2, 3, "the pages are set")
    kept = await _keep(run, report, documents, files, asked_by, f"student-{student_id}.pdf")
    run.progress(3, 3, "done")
    return {"student_id": student_id, "courses": len(taken), **kept}


@app.task(
    name="generate_report", queue="reports", retry=Retry(3, first=60), soft_time_limit=240, time_limit=300
)
async def generate_report(
    asked_by: int | None = None, *, run: Run, session: ReadingSession, documents: Documents, files: Files
) -> dict[str, Any]:
    """How all courses are getting on. After four minutes it ends with those that it has, and says so."""
    ids = await service.course_ids(session)
    rows: list[service.CourseFigures] = []
    try:
        for number, course_id in enumerate(ids, start=1):
            figures = await service.figures_of(session, course_id)
            if figures is not None:
                rows.append(figures)
            run.progress(number, len(ids), figures.course if figures else "")
    except SoftTimeLimitExceeded:
        run.log(f"the time is over: {len(rows)} of {len(ids)} courses")
    partial = len(rows) < len(ids)
    report = Report(
        title="Courses", issuer=SCHOOL_NAME, as_of=clock.now().date(),
        notice=f"Not complete: {len(rows)} of {len(ids)} courses." if partial else "",
        sections=[
            Table(
                [
                    Column("Course", width=4), Column("Enrollments", total="sum"),
                    Column("Completed", total="sum"), Column("Average progress", bar=100, format=".0f"),
                ],
                rows,
            )
        ],
    )  # fmt: skip
    kept = await _keep(run, report, documents, files, asked_by, "courses.pdf")
    return {"courses": len(rows), "partial": partial, **kept}


async def _keep(
    run: Run, report: Report, documents: Documents, files: Files, asked_by: int | None, filename: str
) -> dict[str, Any]:
    """Set the report and keep it for a day or more, under one key for the run; a link to it."""
    key = files.storage.key_for("reports", run.id, ".pdf")
    owner = None if asked_by is None else str(asked_by)
    await files.put(await documents.report(report), content_type="application/pdf", key=key)
    link = await files.storage.link(key, filename=filename, expires_in=_LINK_SECONDS, owner=owner)
    return {"file": key, "url": link}
