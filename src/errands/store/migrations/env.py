"""Alembic's entry. Run by `errands.store.migrate`, which passes the connection and holds the lock."""

from alembic import context

from errands.store.migrate import VERSION_TABLE
from errands.store.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    version_table=VERSION_TABLE,
    transactional_ddl=True,
    # Other tables in the database are somebody else's.
    include_name=lambda name, kind, _parents: kind != "table" or bool(name and name.startswith("errands_")),
)
with context.begin_transaction():
    context.run_migrations()
