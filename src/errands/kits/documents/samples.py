"""One of each document, with all that it can show: what templates are tried with before they are used."""

from __future__ import annotations

import base64
from datetime import date

from errands.kits.documents.certificate import Certificate
from errands.kits.documents.chart import Chart
from errands.kits.documents.picture import Picture
from errands.kits.documents.report import Facts, Heading, PageBreak, Report, Text
from errands.kits.documents.table import Column, Table
from errands.kits.documents.transcript import Mark, Term, Transcript

_DOT = Picture(
    base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
    ),
    alt="A dot",
)
_DAY = date(2026, 3, 5)
_URL = "https://school.example/check/7F3K-QQ2M"

SAMPLES: tuple[Certificate | Report | Transcript, ...] = (
    Certificate(
        course="An Introduction to Botany", student="Ana María محمد 王小明", completed_on=_DAY,
        number="7F3K-QQ2M", verify_url=_URL, issuer="Riverside School", signed_by="The Principal",
        signature=_DOT, logo=_DOT,
    ),
    Report(
        title="Marks", subtitle="Spring term", issuer="Riverside School", logo=_DOT, as_of=_DAY,
        notice="Not complete.",
        sections=[
            Heading("Students"),
            Facts({"Name": "Ana María", "Address": "a-very-long-address@school.example"}, "Person", _DOT),
            Table(
                [Column("Student"), Column("Mark", total="mean"), Column("Done", bar=100)],
                [("محمد", 87.5, 40), ("王小明", 92, 100)], title="All",
            ),
            Table(["Student"], []),
            Chart("bar", ["Ana", "Ben"], [1, 2], "Two bars", title="Bars"),
            Chart("bar", ["Ana"] * 20, {"one": [-1] * 20, "two": [1] * 20}, "Many bars"),
            Chart("line", ["Mon", "Tue", "Wed"], {"one": [1, None, 3], "two": [2, 2, 2]}, "Two lines"),
            Chart("share", ["Present", "Absent"], [9, 1], "A ring"),
            PageBreak(), Heading("More", 2), Text("First.\n\nSecond."), _DOT,
        ],
    ),
    Transcript(
        student="Ana María", issued_on=_DAY, number="7F3K-QQ2M", verify_url=_URL, issuer="Riverside School",
        particulars={"Born on": date(2004, 2, 29)}, summary={"Average": 1.7}, legend="1 is the best mark.",
        terms=[Term("Spring", [Mark("Botany", "A", 5, "BOT-1"), Mark("Latin", 2.3)], "Average 1.7")],
        signed_by="The Principal", signature=_DOT, logo=_DOT,
    ),
)  # fmt: skip
"""A certificate, a report and a transcript."""
