"""`python -m benchmarks.kits.documents`: certificates, reports and previews in a second of one core.

Seconds are of processor time, ours and the typesetter's, so that what else a machine does has little part in
it. A report of 2,000 rows is set beside ReportLab, if that can be imported; it is no dependency of ours, so
install it where you measure. Both have the same rows and a font of the same family; ReportLab shows boxes for
Chinese. Prints a table, and JSON as its last line.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Coroutine
from datetime import date
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from errands.kits.documents import Certificate, Chart, Column, Report, Table, TypstDocuments, fonts

DAY = date(2026, 3, 5)
HEADER = ("Student", "Number", "Mark", "Course", "Remark")


def main(
    certificates: Annotated[int, typer.Option(min=1)] = 200,
    rows: Annotated[int, typer.Option(min=1, help="Rows of the long report.")] = 2_000,
    different: Annotated[int, typer.Option(min=1, help="Different reports set by one process.")] = 300,
) -> None:
    """Measure, print, and say it as JSON."""
    found = asyncio.run(_ours(certificates, rows, different))
    if find_spec("reportlab") is None:
        print("ReportLab is not installed here: nothing to set beside")
    else:
        found |= _reportlab(rows)
    for name, value in found.items():
        print(f"{name:48}{value:>12,.2f}")
    print(json.dumps(found))


async def _ours(certificates: int, rows: int, different: int) -> dict[str, float]:
    documents = TypstDocuments()
    await documents.certificate(certificate(0))  # the first one starts the process and loads fonts
    found = {
        "certificates/s": await _rate(certificates, lambda n: documents.certificate(certificate(n))),
    }
    for tagged in (True, False):
        seconds, pdf = await _timed(documents.report(long_report(rows, 0 if tagged else 1, tagged)))
        kind = "tagged" if tagged else "untagged"
        found |= {
            f"{rows:,} rows, {kind}: seconds": seconds,
            f"{rows:,} rows, {kind}: pages/s": _pages(pdf) / seconds,
            f"{rows:,} rows, {kind}: kB": len(pdf) / 1000,
        }
    pdf = await documents.report(short_report(0))
    found["short reports with a chart/s"] = await _rate(100, lambda n: documents.report(short_report(n)))
    found["previews/s"] = await _rate(30, lambda _: documents.preview(pdf))
    await documents.aclose()
    return found | await _memory(different)


async def _memory(different: int) -> dict[str, float]:
    """Megabytes that a process holds while it sets reports of 200 rows, no two alike."""
    documents, held = TypstDocuments(), []
    for number in range(different):
        await documents.report(long_report(200, number, True))
        held += [child.memory_info().rss / 1e6 for child in psutil.Process().children(recursive=True)]
    await documents.aclose()
    third = len(held) // 3
    return {
        f"MB, the most in the first third of {different} reports": max(held[:third], default=0),
        f"MB, the most in the last third of {different} reports": max(held[-third:], default=0),
    }


def _busy() -> float:
    """Seconds of processor time of this process and of all that it has started."""
    found = sum(os.times()[:4])
    for child in psutil.Process().children(recursive=True):
        times = child.cpu_times()
        found += times.user + times.system
    return found


async def _timed(work: Coroutine[Any, Any, bytes]) -> tuple[float, bytes]:
    began = _busy()
    made = await work
    return _busy() - began, made


async def _rate(times: int, work: Callable[[int], Coroutine[Any, Any, bytes]]) -> float:
    began = _busy()
    for number in range(times):
        await work(number)
    return times / (_busy() - began)


def _pages(pdf: bytes) -> int:
    from pypdf import PdfReader

    return len(PdfReader(BytesIO(pdf)).pages)


def certificate(number: int) -> Certificate:
    """One of many."""
    return Certificate(
        course="An Introduction to Botany", student=f"Ana María {number}", completed_on=DAY,
        number=f"N-{number}", verify_url=f"https://school.example/certificates/N-{number}",
    )  # fmt: skip


def cells(rows: int, seed: int) -> list[tuple[str, int, int, str, str]]:
    """Rows of a table, others for each seed."""
    return [
        (
            f"Ann O’Neill {seed}-{row}",
            row,
            row % 100,
            f"Course {row % 37}",
            "王小明" if row % 5 == 0 else "fine",
        )
        for row in range(rows)
    ]


def long_report(rows: int, seed: int, tagged: bool) -> Report:
    """A table and nothing else."""
    columns = [Column(title, total="mean" if title == "Mark" else None) for title in HEADER]
    return Report(title=f"Grades {seed}", tagged=tagged, sections=[Table(columns, cells(rows, seed))])


def short_report(seed: int) -> Report:
    """What a student's report is like: a page with a table and a chart."""
    labels = [f"Course {number}" for number in range(6)]
    chart = Chart("bar", labels, [seed % 7 + number for number in range(6)], "Marks by course")
    return Report(title=f"Student {seed}", sections=[Table(HEADER, cells(12, seed)), chart])


def _reportlab(rows: int) -> dict[str, float]:
    from reportlab.lib import colors
    from reportlab.lib.pagesizes import A4
    from reportlab.pdfbase import pdfmetrics
    from reportlab.pdfbase.ttfonts import TTFont
    from reportlab.platypus import LongTable, SimpleDocTemplate, TableStyle

    noto = next(path for folder in fonts.folders() for path in Path(folder).rglob("NotoSans[[]*.ttf"))
    pdfmetrics.registerFont(TTFont("Noto", str(noto)))
    began = _busy()
    table = LongTable(
        [list(HEADER), *([str(value) for value in row] for row in cells(rows, 0))],
        repeatRows=1,
        colWidths=[140, 60, 50, 100, 110],
    )
    table.setStyle(
        TableStyle(
            [("FONT", (0, 0), (-1, -1), "Noto", 8.5), ("LINEBELOW", (0, 0), (-1, -1), 0.4, colors.grey)]
        )
    )
    made = BytesIO()
    SimpleDocTemplate(made, pagesize=A4, title="Grades").build([table])
    seconds = _busy() - began
    return {
        f"{rows:,} rows, ReportLab: seconds": seconds,
        f"{rows:,} rows, ReportLab: pages/s": _pages(made.getvalue()) / seconds,
        f"{rows:,} rows, ReportLab: kB": len(made.getvalue()) / 1000,
    }


if __name__ == "__main__":
    typer.run(main)
