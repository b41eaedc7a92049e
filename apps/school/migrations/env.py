"""Alembic's entry. Run by `school.migrate`, which passes the connection and holds the lock."""

from alembic import context

from school.migrate import VERSION_TABLE
from school.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
)
with context.begin_transaction():
    context.run_migrations()
