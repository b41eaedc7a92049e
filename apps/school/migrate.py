"""Bring the tables up to date, the school's and Errands' own: `python -m school.migrate`."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text

from errands import Database

VERSION_TABLE = "school_alembic_version"
_LOCATION = str(Path(__file__).parent / "migrations")


def upgrade(database: Database) -> None:
    """Run the migrations that are missing, in one transaction. Processes that ask at once take turns."""
    database.upgrade()
    config = Config()
    config.set_main_option("script_location", _LOCATION.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    head = ScriptDirectory.from_config(config).get_current_head()
    with database.reading() as connection:
        context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
        if context.get_current_revision() == head:
            return
    with database.writing() as connection:
        if database.dialect == "postgresql":
            connection.execute(
                text("SELECT pg_advisory_xact_lock(hashtextextended('school ' || current_schema(), 0))")
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


if __name__ == "__main__":
    from school.app import app

    upgrade(app.database)
