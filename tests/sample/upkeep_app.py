"""An app with one clean-up, which a test runs in workers and kills."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Column, Integer, MetaData, Table

from errands import Errands
from errands.kits import upkeep
from errands.kits.upkeep import Upkeep
from errands.store.types import UtcDateTime

app = Errands("upkeep")
metadata = MetaData()
logs = Table(
    "app_logs", metadata, Column("id", Integer, primary_key=True), Column("at", UtcDateTime, index=True)
)


async def archive(rows: list[dict[str, Any]]) -> None:
    """Writes down the ids, a line for each chunk, so that a test sees how far it is."""
    path = Path(os.environ["UPKEEP_ARCHIVE"])
    with path.open("a") as file:
        file.write(" ".join(str(row["id"]) for row in rows) + "\n")


app.use(
    upkeep.kit(
        [
            Upkeep(
                "cleanup_old_logs", table=logs, column=logs.c.at, older_than=timedelta(days=90), chunk=20,
                archive=archive,
            )
        ]
    )
)  # fmt: skip
