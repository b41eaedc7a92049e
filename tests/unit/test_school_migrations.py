"""The school's migrations make what its tables say."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import inspect

from errands import Database
from school.migrate import VERSION_TABLE, upgrade
from school.tables import metadata


def test_the_migrations_make_the_tables_as_they_are_declared(database: Database) -> None:
    upgrade(database)
    upgrade(database)
    with database.reading() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": VERSION_TABLE,
                "compare_type": True,
                "include_name": lambda name, kind, _: kind != "table" or not name.startswith("errands_"),
            },
        )
        assert compare_metadata(context, metadata) == []


def test_constraints_have_the_names_that_later_migrations_will_look_for(database: Database) -> None:
    upgrade(database)
    with database.reading() as connection:
        found = {c["name"] for c in inspect(connection).get_unique_constraints("certificates")}
    assert found == {"uq_certificates_enrollment_id", "uq_certificates_number"}
