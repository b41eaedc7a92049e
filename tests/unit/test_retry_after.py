"""HTTP's Retry-After."""

from datetime import UTC, datetime

import pytest

from errands.core import clock
from errands.core.retry_after import seconds

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        (None, None), ("", None), ("soon", None), ("-5", None), ("1.5", None), ("٣", None),
        ("0", 0), ("120", 120), (" 7 ", 7), ("86401", 86400), ("9" * 500, 86400),
        ("Thu, 01 Jan 2026 12:02:00 GMT", 120), ("Thu, 01 Jan 2026 11:00:00 GMT", 0),
        ("Thu, 01 Jan 2026 12:02:00 -0000", 120), ("Fri, 01 Jan 2027 12:00:00 GMT", 86400),
        ("Thursday, 01-Jan-26 12:02:00 GMT", 120), ("Thu, 99 Jan 2026 12:00:00 GMT", None),
    ],
)  # fmt: skip
def test_retry_after_in_seconds_or_as_a_date_and_never_over_a_day(header, wait):
    with clock.use(clock.FakeClock(NOON)):
        assert seconds(header) == wait
