"""The one place from which the school sends work.

Everything goes through the session's transaction: it is sent when that commits, and not at all when it does
not. What a task sends on has an id derived from the task's own run, so that a second delivery of the task
sends nothing twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from errands import Run
from errands.core import clock
from school.app import app
from school.uploads.kinds import Purpose
from school.uploads.tables import Upload

_OF_UPLOADS = {
    Purpose.FILE: "process_large_file",
    Purpose.PHOTO: "process_photo",
    Purpose.LETTER: "read_letter",
}


def new_id() -> str:
    """A run id, for who must know it before the run is sent."""
    return app.new_id()


def user_registered(session: AsyncSession, user_id: int, email: str, name: str, role: str) -> str:
    """The welcome mail, and the event. Returns the mail's run id."""
    _tell(session, "user.registered", {"user_id": user_id, "email": email, "role": role})
    return _send(session, "send_welcome_email", user_id, email, name, owner=user_id)


def password_reset_requested(session: AsyncSession, email: str) -> str:
    """The same work for any address: whether anybody has it turns out in the worker."""
    return _send(session, "request_password_reset", email)


def password_reset(session: AsyncSession, run: Run, email: str, name: str, token: str) -> str:
    """The mail with the link. The token is sealed before it is written anywhere."""
    return _send(session, "send_password_reset_email", email, name, token, run_id=run.child_id("mail"))


def enrolled(
    session: AsyncSession, *, user_id: int, email: str, course_id: int, course: str, run_id: str
) -> None:
    """The confirmation mail, as the run `run_id`, and the event."""
    _send(session, "send_enrollment_confirmation", user_id, email, course, owner=user_id, run_id=run_id)
    _tell(session, "course.enrolled", {"user_id": user_id, "course_id": course_id})


def lesson_completed(session: AsyncSession, *, user_id: int, enrollment_id: int, lesson_id: int) -> str:
    """The recount of the enrollment's progress."""
    return _send(session, "update_enrollment_progress", enrollment_id, lesson_id, owner=user_id)


def course_completed(session: AsyncSession, run: Run, enrollment_id: int) -> str:
    """What follows on the last lesson."""
    return _send(session, "trigger_course_completion", enrollment_id, run_id=run.child_id("completion"))


def completion(session: AsyncSession, run: Run, *, enrollment_id: int, user_id: int, course_id: int) -> None:
    """Certificate, congratulation, and a fresh completion rate.

    The event `course.completed` is not sent here: it carries the certificate, which does not exist yet.
    """
    _send(session, "generate_certificate", enrollment_id, run_id=run.child_id("certificate"))
    _send(session, "send_course_completion_email", user_id, course_id, run_id=run.child_id("mail"))
    _send(session, "calculate_course_completion_rate", course_id, run_id=run.child_id("rate"))


def certificate_issued(
    session: AsyncSession, run: Run, *, certificate_id: int, url: str, user_id: int, email: str,
    course_id: int, course: str,
) -> None:  # fmt: skip
    """The mail with the certificate, and the two events that carry it."""
    _send(session, "send_certificate_email", user_id, email, url, course, run_id=run.child_id("mail"))
    facts = {"certificate_id": certificate_id, "user_id": user_id, "course_id": course_id}
    for event in ("certificate.generated", "course.completed"):
        _tell(session, event, facts, run_id=run.child_id(event))


def payment_asked(session: AsyncSession, *, payment_id: int, user_id: int, run_id: str) -> None:
    """The charge, as the run `run_id`."""
    _send(session, "process_payment", payment_id, owner=user_id, run_id=run_id)


def payment_completed(
    session: AsyncSession, run: Run, *, payment_id: int, amount: Decimal, course_id: int
) -> None:
    """The event."""
    facts = {"payment_id": payment_id, "amount": str(amount), "course_id": course_id}
    _tell(session, "payment.completed", facts, run_id=run.child_id("payment.completed"))


def ordered(session: AsyncSession, *, order_id: int, user_id: int, run_id: str) -> None:
    """The order's charge and enrollments, as the run `run_id`."""
    _send(session, "process_order", order_id, owner=user_id, run_id=run_id)


def profile_wanted(session: AsyncSession, user_id: int, display_name: str, about: str) -> str:
    """The profile."""
    return _send(session, "create_user_profile", user_id, display_name, about, owner=user_id)


def stats_wanted(session: AsyncSession, user_id: int) -> str:
    """The counts of a user."""
    return _send(session, "update_user_stats", user_id, owner=user_id)


def uploaded(session: AsyncSession, upload: Upload) -> None:
    """What is made of an uploaded file, as the run that its row names."""
    task = _OF_UPLOADS[Purpose(upload.purpose)]
    _send(session, task, upload.id, owner=upload.user_id, run_id=upload.run_id)


def uploaded_together(session: AsyncSession, uploads: Sequence[Upload]) -> str:
    """The same for several, counted together; returns the batch's id."""
    owner = str(uploads[0].user_id)
    told = app.tasks["tell_uploads_done"].s(user_id=uploads[0].user_id)
    with app.batch_on_commit(session, "Uploads", on_complete=told, owner=owner) as batch:
        for upload in uploads:
            uploaded(session, upload)
    return str(batch.id)


def file_report_wanted(session: AsyncSession, upload_id: int, *, owner: int) -> str:
    """The report on a text that was uploaded."""
    return _send(session, "start_file_report", upload_id, owner=owner)


def export_wanted(session: AsyncSession, user_id: int, *, active_only: bool) -> str:
    """The list of students."""
    filters = {"is_active": True} if active_only else {}
    return _send(session, "export_students_csv", filters, user_id, owner=user_id)


def import_wanted(session: AsyncSession, user_id: int, key: str, *, run_id: str, dry_run: bool) -> None:
    """A list of students that was stored under `key` is read, as the run `run_id`."""
    _send(session, "import_students", key, user_id, dry_run, owner=user_id, run_id=run_id)


def student_report_wanted(session: AsyncSession, student_id: int, *, asked_by: int) -> str:
    """The report on one student."""
    return _send(session, "generate_student_report", student_id, asked_by, owner=asked_by)


def report_wanted(session: AsyncSession, *, asked_by: int) -> str:
    """The report on all courses."""
    return _send(session, "generate_report", asked_by, owner=asked_by)


def messages_wanted(session: AsyncSession, numbers: list[str], message: str, kind: str, *, owner: int) -> str:
    """One text to many phones."""
    return _send(session, "send_bulk_messages", numbers, message, kind, owner=owner)


def template_wanted(
    session: AsyncSession, number: str, template: str, values: dict[str, str] | list[str], *, owner: int
) -> str:
    """One message by a template."""
    return _send(session, "send_template_message", number, template, values, owner=owner)


def notifications_wanted(
    session: AsyncSession, user_ids: list[int], title: str, message: str, *, owner: int
) -> str:
    """A notification each to some users."""
    return _send(session, "send_bulk_notifications", user_ids, title, message, owner=owner)


def broadcast_wanted(session: AsyncSession, title: str, message: str, role: str | None, *, owner: int) -> str:
    """A notification to all users, or to all of a role."""
    return _send(session, "send_broadcast_push_notification", title, message, role, owner=owner)


def _send(
    session: AsyncSession, task: str, *args: Any, owner: int | None = None, run_id: str | None = None
) -> str:
    return app.tasks[task].apply_on_commit(  # type: ignore[no-any-return]
        session, args, task_id=run_id, owner=None if owner is None else str(owner)
    )


def _tell(session: AsyncSession, event: str, payload: dict[str, Any], run_id: str | None = None) -> None:
    _send(session, "dispatch_webhooks_batch", event, payload, clock.now().isoformat(), run_id=run_id)
