"""All tables of the school, for whoever needs them together (migrations)."""

from school.analytics import tables as _analytics
from school.certificates import tables as _certificates
from school.courses import tables as _courses
from school.database import Base
from school.enrollments import tables as _enrollments
from school.people import tables as _people

__all__ = ["metadata"]

_ = _analytics, _certificates, _courses, _enrollments, _people
metadata = Base.metadata
