"""Imports and exports that tests cut off. Told all by environment."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field
from sqlalchemy import Column, Integer, MetaData, Table, Text, select
from sqlalchemy.ext.asyncio import AsyncSession

from errands import Errands, Retry, Run
from errands.kits import storage, tables
from errands.kits.storage import Storage

QUEUE = os.environ.get("SAMPLE_QUEUE", "tables")
EFFECTS = Path(os.environ.get("SAMPLE_EFFECTS", "/dev/null"))

app = Errands("tables", queues=[QUEUE])
app.conf.task_default_queue = QUEUE
app.use(storage.kit())
app.use(tables.kit(lambda: app.resources.instance(Storage)))  # type: ignore[type-abstract]

metadata = MetaData()
cadets = Table(
    "cadets",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("cadet_id", Text, unique=True, nullable=False),
    Column("name", Text, nullable=False),
)
# A row of each chunk that was written, by the transaction that wrote it.
chunks = Table("chunks", metadata, Column("id", Integer, primary_key=True), Column("first", Text))


def effect(*words: object) -> None:
    """Note outside of the system under test what happened. One short append is atomic."""
    with EFFECTS.open("a") as file:
        file.write(" ".join(str(word) for word in (*words, os.getpid())) + "\n")


async def wait_for(go: str) -> None:
    while not Path(go).exists():
        await asyncio.sleep(0.01)


class Waiting(tables.SqlTarget):
    """Waits with a chunk written and not committed, until the file is there."""

    at = go = ""

    async def apply(
        self, session: AsyncSession, creates: Sequence[Mapping[str, Any]], updates: Sequence[tables.Update]
    ) -> None:
        await super().apply(session, creates, updates)
        await session.execute(chunks.insert().values(first=creates[0]["cadet_id"]))
        if any(row["cadet_id"] == self.at for row in creates):
            effect("waits", self.at)
            await wait_for(self.go)


class CadetRow(BaseModel):
    cadet_id: str = Field(pattern=r"^C\d+$")
    name: str


@app.task(name="import_cadets", retry=Retry(1, first=0.05, most=0.1))
async def import_cadets(
    file: str, at: str, go: str, user_id: int, *, imports: tables.Imports, run: Run
) -> dict[str, Any]:
    target = Waiting(cadets, "cadet_id")
    target.at, target.go = at, go
    declared = tables.Import("cadets", CadetRow, key="cadet_id", target=target, chunk=100)
    return (await imports.run(declared, file, by=user_id, run=run)).as_json()


@app.task(name="export_cadets", retry=Retry(1, first=0.05, most=0.1))
async def export_cadets(at: str, go: str, *, exports: tables.Exports, run: Run) -> dict[str, Any]:
    def slow(value: str) -> str:
        # In a thread, row by row.
        if value == at and not Path(go).exists():
            effect("waits", at)
            asyncio.run(wait_for(go))
        return value

    declared = tables.Export(
        "cadets",
        lambda filters: select(cadets).order_by(cadets.c.id),
        columns=[tables.Column("cadet_id", convert=slow), tables.Column("name")],
    )
    return (await exports.run(declared, run=run)).as_json()
