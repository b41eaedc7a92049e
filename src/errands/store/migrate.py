"""Bring Errands' tables up to date with Alembic, apart from any Alembic of the application's own."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

VERSION_TABLE = "errands_alembic_version"
_LOCATION = str(Path(__file__).parent / "migrations")


def upgrade(engine: Engine) -> None:
    """Run the migrations that are missing, all in one transaction. Processes that ask at once take turns."""
    config = Config()
    config.set_main_option("script_location", _LOCATION.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    head = ScriptDirectory.from_config(config).get_current_head()
    with engine.connect() as connection:
        if current(connection) == head:
            return
    with engine.begin() as connection:  # on SQLite this is the lock already: BEGIN IMMEDIATE
        if connection.dialect.name == "postgresql":
            connection.execute(
                text("SELECT pg_advisory_xact_lock(hashtextextended('errands ' || current_schema(), 0))")
            )
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def current(connection: Connection) -> str | None:
    """The revision that the tables have; None where there are none."""
    return MigrationContext.configure(
        connection, opts={"version_table": VERSION_TABLE}
    ).get_current_revision()
