"""Lists of students, out as files and in from files."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, Field

from errands import Discard, Retry, Run
from errands.kits import tables
from errands.kits.storage import Files
from school.app import app
from school.database import reading_session
from school.fields import FullName, address, email_key
from school.people.tables import Role, User
from school.students import service

RETRY = Retry(3, first=60)  # as the messaging system has it
LIMITS: dict[str, Any] = {"soft_time_limit": 600, "time_limit": 900}


async def _may(user_id: Any) -> bool:
    """The roles as they are when the run is at work, which may be later than when it was asked for."""
    async with reading_session(app.database) as session:
        user = await session.get(User, int(user_id))
    return user is not None and user.is_active and user.role in (Role.INSTRUCTOR, Role.ADMIN)


class StudentRow(BaseModel):
    """A line of a list of students."""

    email: Annotated[str, Field(max_length=254), AfterValidator(address), AfterValidator(email_key)]
    full_name: FullName
    is_active: bool = True


STUDENTS_OUT = tables.Export(
    "students",
    service.listed,
    columns=[
        tables.Column("id", "Id"), tables.Column("full_name", "Full name"), tables.Column("email", "Email"),
        tables.Column("is_active", "Active"), tables.Column("created_at", "Since"),
        tables.Column("enrollments", "Enrollments"), tables.Column("completed", "Completed"),
    ],
    allowed=_may,
)  # fmt: skip
STUDENTS_IN = tables.Import(
    "students",
    StudentRow,
    key="email",
    target=service.StudentsTarget(),
    aliases={"full_name": ["name", "student"], "email": ["e-mail", "mail"], "is_active": ["active"]},
    allowed=_may,
)


class StudentFilters(BaseModel):
    """Which students are exported; None stands for all."""

    is_active: bool | None = None


@app.task(name="export_students_csv", queue="reports", retry=RETRY, **LIMITS)
async def export_students_csv(
    filters: StudentFilters, user_id: int, *, run: Run, exports: tables.Exports
) -> dict[str, Any]:
    """A list of students as CSV; the result's link holds for a day, also where nothing has changed since."""
    made = await exports.run(STUDENTS_OUT, filters.model_dump(exclude_none=True), by=user_id, run=run)
    return made.as_json()


@app.task(name="import_students", queue="reports", retry=RETRY, **LIMITS)
async def import_students(
    file_key: str, user_id: int, dry_run: bool = False, *, run: Run, imports: tables.Imports, files: Files
) -> dict[str, Any]:
    """Enter the students of a list; rows that cannot be used are told with all their reasons."""
    try:
        done = await imports.run(STUDENTS_IN, file_key, by=user_id, run=run, dry_run=dry_run)
    except (tables.FileRefused, tables.NotAllowed) as refusal:
        raise Discard(str(refusal)) from refusal
    await files.release(f"import:{run.id}")
    return done.as_json()
