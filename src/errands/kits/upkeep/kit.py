"""What `app.use` takes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import structlog

from errands import ConfigurationError, Database
from errands.kits.upkeep import tasks
from errands.kits.upkeep.declaration import Upkeep
from errands.kits.upkeep.rows import OldRows

if TYPE_CHECKING:
    from errands import Errands

_log = structlog.get_logger(__name__)


class UpkeepKit:
    """See `kit`."""

    def __init__(self, upkeeps: Sequence[Upkeep], database: Callable[[], Database] | None) -> None:
        for name, count in Counter(upkeep.name for upkeep in upkeeps).items():
            if count > 1:
                raise ConfigurationError(f"upkeep {name!r} is declared {count} times: give each its own name")
        self._rows = {upkeep.name: OldRows(upkeep) for upkeep in upkeeps if upkeep.table is not None}
        self._upkeeps = tuple(upkeeps)
        self._database = database

    def install(self, app: Errands) -> None:
        """Declare a task for each clean-up, and a schedule where it says when.

        Raises:
            ConfigurationError: a schedule of that name is there already; a function asks for something that
                cannot be given.
        """
        database = self._database or (lambda: app.database)
        for upkeep in self._upkeeps:
            rows = self._rows.get(upkeep.name)
            if rows is not None and not rows.indexed:
                _log.warning(
                    "no index begins with the column of an upkeep: each chunk will read the whole table",
                    upkeep=upkeep.name, column=str(rows.column),
                )  # fmt: skip
            task = tasks.declare(app, upkeep, database, rows)
            if upkeep.cron is not None or upkeep.every is not None:
                app.schedule(
                    upkeep.name, task, cron=upkeep.cron, every=upkeep.every, tz=upkeep.tz, overlap="skip"
                )


def kit(upkeeps: Sequence[Upkeep], *, database: Callable[[], Database] | None = None) -> UpkeepKit:
    """Clean-ups for an app: `app.use(upkeep.kit([Upkeep(…), …]))`.

    Args:
        upkeeps: what goes, how old it must be, how often.
        database: where the tables are; by default the app's own database.

    Raises:
        ConfigurationError: one contradicts itself; the text names it.
    """
    return UpkeepKit(upkeeps, database)
