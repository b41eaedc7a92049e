"""The push kit's tables, beside the library's own in the same database."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, Index, Table, Text, UniqueConstraint

from errands import metadata
from errands.store.types import Json, PlainText, UtcDateTime

# One row for each notification of each user.
notifications = Table(
    "errands_notifications",
    metadata,
    # Made of the run and the user: a second delivery of the run finds the row that is there.
    Column("id", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("number", BigInteger, nullable=False),  # 1, 2, … for each user, in the order of their commits
    Column("kind", Text, nullable=False),
    Column("title", PlainText, nullable=False),
    Column("message", PlainText, nullable=False),
    Column("data", Json),
    Column("created_at", UtcDateTime, nullable=False),
    Column("read_at", UtcDateTime),
    Column("push", Text),  # see `delivery.Push`; NULL: nothing was sent to a device
    Column("push_left", Json),  # {"devices", "before"}: what the next attempt tries; NULL: all devices
    Column("push_error", PlainText),
    UniqueConstraint("user_id", "number", name="errands_notifications_number"),
)
Index(
    "errands_notifications_unread",
    notifications.c.user_id,
    sqlite_where=notifications.c.read_at.is_(None),
    postgresql_where=notifications.c.read_at.is_(None),
)
# For deleting what was read long ago; it costs nothing while a notification is unread.
Index(
    "errands_notifications_read",
    notifications.c.created_at,
    sqlite_where=notifications.c.read_at.is_not(None),
    postgresql_where=notifications.c.read_at.is_not(None),
)

# One row for each user who was ever notified. Whoever adds a notification holds it until the commit, so that
# no number can appear after a higher one did.
boxes = Table(
    "errands_notification_boxes",
    metadata,
    Column("user_id", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),  # of the newest notification
    Column("muted", Json),  # a list of kinds that the user turned off; NULL: none
)

devices = Table(
    "errands_push_devices",
    metadata,
    Column("id", Text, primary_key=True),
    Column("user_id", Text, nullable=False),
    Column("kind", Text, nullable=False),  # "webpush", "fcm", …: which `Pusher` it is for
    Column("digest", Text, nullable=False),  # SHA-256 of the address, by which it is known again
    Column("address", Text, nullable=False),  # sealed: a token, or a subscription with its keys
    Column("created_at", UtcDateTime, nullable=False),
    Column("last_ok_at", UtcDateTime),
    UniqueConstraint("kind", "digest", name="errands_push_devices_digest"),
)
Index("errands_push_devices_user", devices.c.user_id)
