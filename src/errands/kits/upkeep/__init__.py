"""Clean-ups, declared: what goes, how old it must be, how often somebody looks.

    app.use(upkeep.kit([
        Upkeep("cleanup_old_audit_logs", table=audit, column=audit.c.at, older_than=timedelta(days=90),
               cron="0 3 * * *"),
    ]))

Each is a task of that name and a schedule that can be edited while it runs.
"""

from errands.kits.upkeep.declaration import Upkeep
from errands.kits.upkeep.kit import UpkeepKit, kit

__all__ = ["Upkeep", "UpkeepKit", "kit"]
