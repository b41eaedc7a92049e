"""All tables of the school, for whoever needs them together (migrations)."""

from school.analytics import tables as _analytics
from school.certificates import tables as _certificates
from school.courses import tables as _courses
from school.database import Base
from school.enrollments import tables as _enrollments
from school.orders import tables as _orders
from school.payments import tables as _payments
from school.people import tables as _people
from school.profiles import tables as _profiles
from school.statistics import tables as _statistics
from school.uploads import tables as _uploads

__all__ = ["metadata"]

_ = (
    _analytics, _certificates, _courses, _enrollments, _orders, _payments, _people, _profiles, _statistics,
    _uploads,
)  # fmt: skip
metadata = Base.metadata
