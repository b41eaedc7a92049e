"""The kit's tables, beside the library's own in the same database."""

from __future__ import annotations

from sqlalchemy import Column, ForeignKey, Index, Integer, Table, Text

from errands import metadata
from errands.store.types import Json, PlainText, UtcDateTime

# One row for each import that writes. `position` moves in the transaction that writes the rows up to there:
# that is what makes each chunk be applied once.
imports = Table(
    "errands_imports",
    metadata,
    Column("id", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("asked_by", PlainText),
    Column("source", PlainText),  # the key of the stored file
    Column("sha256", Text, nullable=False),
    Column("state", Text, nullable=False),  # applying, done, stopped
    Column("position", Integer, nullable=False),  # the number of the last row that was written
    Column("counts", Json, nullable=False),
    Column("result", Json),  # NULL until it is over
    Column("created_at", UtcDateTime, nullable=False),
    Column("updated_at", UtcDateTime, nullable=False),
)
Index("errands_imports_created", imports.c.created_at)

# Rows that only the database refused, while they were written; the others can be found out again.
refusals = Table(
    "errands_import_refusals",
    metadata,
    Column("import_id", Text, ForeignKey(imports.c.id, ondelete="CASCADE"), primary_key=True),
    Column("row", Integer, primary_key=True),
    Column("reasons", Json, nullable=False),
)

# Files that were made, by what was in the database then: the same again is the same file.
exports = Table(
    "errands_exports",
    metadata,
    Column("fingerprint", Text, primary_key=True),
    Column("name", Text, nullable=False),
    Column("run_id", Text, nullable=False),
    Column("file", Text, nullable=False),
    Column("format", Text, nullable=False),
    Column("rows", Integer, nullable=False),
    Column("size", Integer, nullable=False),
    Column("created_at", UtcDateTime, nullable=False),
)
Index("errands_exports_created", exports.c.created_at)
