"""The storage kit's tables, beside the library's own in the same database."""

from __future__ import annotations

from sqlalchemy import BigInteger, Boolean, Column, ForeignKey, Index, Table, Text

from errands import metadata
from errands.store.types import UtcDateTime

# A row is there before the first byte is, and goes after the last: whatever is cut off in between leaves a
# row, and a sweep finds it.
files = Table(
    "errands_files",
    metadata,
    Column("key", Text, primary_key=True),
    Column("owner", Text),
    Column("size", BigInteger, nullable=False),  # bytes; while it is written, those reserved for it
    Column("stored_at", UtcDateTime),  # NULL: it was never whole
    Column("touched_at", UtcDateTime, nullable=False),  # last put, kept or released; renewed while written
    Column("deleting", Boolean, nullable=False),
)
Index("errands_files_owner", files.c.owner)

references = Table(
    "errands_file_references",
    metadata,
    Column("key", Text, ForeignKey(files.c.key), primary_key=True),
    Column("referrer", Text, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
)
Index("errands_file_references_referrer", references.c.referrer)
