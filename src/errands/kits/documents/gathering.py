"""Reading the rows of a report, wherever they come from."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from dataclasses import replace

from errands.kits.documents.errors import DocumentError
from errands.kits.documents.report import Report, Section
from errands.kits.documents.table import Row, Table

_TURN = 1000


async def gathered(report: Report, most: int) -> Report:
    """`report` with the rows of its tables in lists.

    Raises:
        DocumentError: the tables have more than `most` cells in all.
    """
    left = most
    sections: list[Section] = []
    for section in report.sections:
        if isinstance(section, Table):
            rows: list[Row] = []
            async for row in _each(section.rows):
                left -= len(section.columns)
                if left < 0:
                    raise DocumentError(
                        f"the tables of report {report.title!r} have more than {most:,} cells: export "
                        "them as CSV or XLSX, ask for fewer, "
                        "or allow more with documents.kit(cells=..., memory=...)"
                    )
                rows.append(row)
            section = section.with_rows(rows)
        sections.append(section)
    return replace(report, sections=sections)


async def _each(rows: Iterable[Row] | AsyncIterable[Row]) -> AsyncIterator[Row]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
        return
    for count, row in enumerate(rows, start=1):
        yield row
        if count % _TURN == 0:
            # Others on this loop have their turn.
            await asyncio.sleep(0)
