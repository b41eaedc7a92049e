"""Reports: what stands on their pages, in which order, and what happens to hostile values."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, date, datetime
from io import BytesIO
from typing import Any

import pytest
from pypdf import PdfReader
from tests.pdfs import claims_of, names_of_tags, pages_of, replacements_in, tags_of, text_of

from errands.kits.documents import (
    Chart,
    Column,
    DocumentError,
    Facts,
    Heading,
    PageBreak,
    Report,
    Table,
    Text,
    TypstDocuments,
)
from errands.kits.documents.samples import SAMPLES

DAY = date(2026, 3, 5)


@pytest.fixture(scope="module")
def documents() -> Iterator[TypstDocuments]:
    typeset = TypstDocuments()
    yield typeset
    typeset.close()


def report(*sections: Any, **changes: Any) -> Report:
    return Report(**{"title": "Grades", "as_of": DAY, "sections": sections} | changes)


async def test_sections_stand_one_below_the_other(documents: TypstDocuments) -> None:
    pdf = await documents.report(
        report(
            Facts({"Born on": date(2004, 2, 29), "Programme": "Botany", "Advisor": None}, title="Person"),
            Heading("Remarks"),
            Text("First line.\n\nSecond line."),
            PageBreak(),
            Table(["Course", "Mark"], [("Latin", 1.7)], title="Courses"),
            subtitle="Ana María",
            issuer="Riverside School",
            notice="Not complete: the time was up.",
        )
    )
    first, second = pages_of(pdf)
    for words in (
        "Riverside School Grades Ana María · As of March 5, 2026 Not complete: the time was up. Person",
        "Born on 2004-02-29 Programme Botany Advisor –",
        "Remarks First line. Second line.",
    ):
        assert words in first
    assert second == "Grades Riverside School Courses Course Mark Latin 1.7 2 / 2"


async def test_it_is_tagged_titled_and_archivable(documents: TypstDocuments) -> None:
    pdf = await documents.report(
        report(
            Heading("Students"),
            Table(["Student", "Mark"], [("Ana", 1), ("Ben", 2)]),
            Chart("bar", ["Ana", "Ben"], [1, 2], alt="Ana has 1, Ben 2"),
            language="en-GB",
        )
    )
    assert claims_of(pdf) == {"PDF/A-2b", "PDF/UA-1"}
    reader = PdfReader(BytesIO(pdf))
    assert reader.root_object["/Lang"] == "en-GB"
    assert reader.metadata is not None
    assert reader.metadata.title == "Grades"
    assert reader.metadata.creation_date == datetime(2026, 3, 5, tzinfo=UTC)
    names = names_of_tags(pdf)
    assert [names.count(name) for name in ("/H1", "/H2", "/Table", "/TH", "/TD")] == [1, 1, 1, 2, 4]
    (figure,) = (tag for tag in tags_of(pdf) if tag["/S"] == "/Figure")
    assert figure["/Alt"] == "Ana has 1, Ben 2"


async def test_without_tags_it_is_smaller_and_can_still_be_kept(documents: TypstDocuments) -> None:
    rows = [(f"Student {number}", number) for number in range(300)]
    tagged = await documents.report(report(Table(["Student", "Mark"], rows)))
    plain = await documents.report(report(Table(["Student", "Mark"], rows), tagged=False))
    assert claims_of(plain) == {"PDF/A-2b"}
    assert tags_of(plain) == []
    assert pages_of(plain) == pages_of(tagged)
    assert len(plain) < len(tagged) / 4


async def test_thousands_of_rows_are_all_there_under_a_header_on_each_page(documents: TypstDocuments) -> None:
    count = 2000
    pdf = await documents.report(
        report(
            Table(
                [Column("Student"), Column("Points", total="sum")], ((f"N-{n:05}", n) for n in range(count))
            )
        )
    )
    pages = pages_of(pdf)
    assert len(pages) > 30
    assert all("Student Points N-" in page for page in pages)
    assert [page.split()[-3:] for page in pages] == [
        [str(n), "/", str(len(pages))] for n in range(1, len(pages) + 1)
    ]
    words = " ".join(pages).split()
    assert [word for word in words if word.startswith("N-")] == [f"N-{n:05}" for n in range(count)]
    assert f"Total {sum(range(count))}" in pages[-1]


async def test_rows_may_come_from_a_streamed_query(documents: TypstDocuments) -> None:
    async def rows() -> AsyncIterator[tuple[str, int]]:
        for number in range(3):
            await asyncio.sleep(0)
            yield f"Student {number}", number

    assert "Student 0 0 Student 1 1 Student 2 2" in text_of(
        await documents.report(report(Table(["S", "M"], rows())))
    )


async def test_the_same_report_makes_the_same_bytes_in_another_process(documents: TypstDocuments) -> None:
    sample = SAMPLES[1]
    assert isinstance(sample, Report)
    other = TypstDocuments()
    assert await documents.report(sample) == await other.report(sample)
    await other.aclose()


async def test_our_templates_cause_no_warning(
    documents: TypstDocuments, caplog: pytest.LogCaptureFixture
) -> None:
    """Typst leaves out what can't stand where it does, and only warns."""
    sections = (
        Text("x" * 100), Facts({"y" * 100: "z" * 100}), Heading("h" * 100), Table(["c" * 100], [["d" * 100]]),
        Chart("bar", ["e" * 100], {"f" * 100: [1], "g" * 100: [2]}, "alt", title="i" * 100),
        Chart("bar", ["j" * 100, "k"], [1, 2], "alt"), Chart("line", ["l" * 100, "m" * 100], [1, 2], "alt"),
        Chart("share", ["n" * 100, "o"], [1, 2], "alt"),
    )  # fmt: skip
    long = report(*sections, title="a" * 200, subtitle="b" * 300, issuer="p" * 300, notice="q" * 2000)
    with caplog.at_level(logging.WARNING):
        words = text_of(await documents.report(long)).replace(" ", "")
        for sample in SAMPLES:
            await documents._in_thread(documents._made, sample)
    assert caplog.messages == []
    for letter, times in {"x": 100, "y": 100, "z": 100, "h": 100, "d": 100, "q": 2000}.items():
        assert words.count(letter) >= times, letter


@pytest.mark.parametrize(
    "text",
    [
        '#read("/etc/passwd") #panic("x") $x$ *b* _i_ `c` \\u{41} <l> @r // c "q" #{1 + 1} ] [',
        "{{ x }} %s {0} </script> '; DROP TABLE",
    ],
)
async def test_values_are_data_and_never_source(documents: TypstDocuments, text: str) -> None:
    pdf = await documents.report(
        report(
            Facts({text: text}), Heading(text), Text(text), Table([text], [[text]], title=text),
            title=text, subtitle=text, issuer=text, notice=text,
        )
    )  # fmt: skip
    assert "".join(text_of(pdf).split()).count("".join(text.split())) >= 9


async def test_control_characters_are_dropped(documents: TypstDocuments) -> None:
    hostile = "A\u202enn\x07 \u2066Lee\n\t\ud800\x00"
    pdf = await documents.report(report(Table(["Name"], [[hostile]]), subtitle=hostile))
    assert text_of(pdf).count("Ann Lee") == 2


async def test_a_hundred_thousand_characters_are_set_on_as_many_pages_as_they_need(
    documents: TypstDocuments,
) -> None:
    for section in (Text("W" * 100_000), Table(["Words", "n"], [["W" * 100_000, 1]])):
        pdf = await documents.report(report(section))
        assert text_of(pdf).count("W") >= 100_000
        assert len(pages_of(pdf)) > 5


async def test_a_word_that_is_wider_than_its_column_stays_in_it(documents: TypstDocuments) -> None:
    pdf = await documents.report(report(Table([f"C{n}" for n in range(12)], [["W" * 60] * 12])))
    content: list[str] = []
    PdfReader(BytesIO(pdf)).pages[0].extract_text(
        visitor_text=lambda text, *_: content.append(text.replace("\u200b", "").strip())
    )
    lines = [text for text in content if set(text) == {"W"}]
    assert sum(map(len, lines)) == 12 * 60
    # A twelfth of the page has room for a few of them; more in one line would lie over the next column.
    assert max(map(len, lines)) < 10


@pytest.mark.parametrize(
    ("name", "language"),
    [
        ("محمد بن عبد الله الخوارزمي", "ar"),
        ("רחל כהן", "he"),
        ("王小明", "zh-Hant"),
        ("さくら", "ja"),
        ("김민준", "ko"),
        ("अनन्या राय", "hi"),
        ("Nguyễn Thị Minh Khai", "vi"),
    ],
)
async def test_names_of_any_script_in_text_tables_and_charts(
    documents: TypstDocuments, name: str, language: str
) -> None:
    pdf = await documents.report(
        report(
            Table([name], [[name]]),
            Chart("bar", [name], [1], alt=name),
            Text(name),
            title=name,
            language=language,
        )
    )
    assert PdfReader(BytesIO(pdf)).metadata.title == name  # type: ignore[union-attr]
    assert set(name) <= set(text_of(pdf)) | set(replacements_in(pdf))


async def test_no_rows_say_so_in_the_reports_language(documents: TypstDocuments) -> None:
    assert "Student No entries" in text_of(await documents.report(report(Table(["Student"], []))))
    pdf = await documents.report(report(Table([Column("Kurs", total="sum"), "Note"], []), language="de"))
    assert "Stand: 5. März 2026 Kurs Note Keine Einträge" in text_of(pdf)
    pdf = await documents.report(report(Table(["Student"], [], empty="Nobody")))
    assert "Student Nobody" in text_of(pdf)


async def test_headings_leave_no_level_out(documents: TypstDocuments) -> None:
    pdf = await documents.report(
        report(Heading("First", 2), Table(["a"], [], title="T"), Heading("Second", 2))
    )
    assert [name for name in names_of_tags(pdf) if name.startswith("/H")] == ["/H1", "/H2", "/H2", "/H3"]


async def test_a_letter_that_no_font_has_is_told_with_its_place(documents: TypstDocuments) -> None:
    table = Table(["No.", "Name"], [(1, "Ann"), (2, "Ben \U00013000")], title="All")
    with pytest.raises(DocumentError, match=r"U\+13000 .* \(in the table All, row 2, column Name\)"):
        await documents.report(report(table))


async def test_a_symbol_that_no_font_has_is_left_out(
    documents: TypstDocuments, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        pdf = await documents.report(report(Table(["Name"], [["Well done 🚀"]])))
    assert "Well done" in text_of(pdf)
    assert "U+1F680 ROCKET" in caplog.text


async def test_too_much_is_refused_before_it_is_set(documents: TypstDocuments) -> None:
    small = TypstDocuments(cells=10)
    with pytest.raises(DocumentError, match="more than 10 cells"):
        await small.report(report(Table(["a", "b"], ([n, n] for n in iter(int, 1)))))
    await small.aclose()
    with pytest.raises(DocumentError, match=r"3,000,000 characters .at text."):
        await documents.report(report(Text("x" * 3_000_001)))


@pytest.mark.parametrize(
    ("changes", "about"),
    [
        ({"title": " "}, "title"),
        ({"title": "a" * 201}, "200"),
        ({"notice": "a" * 2001}, "notice"),
        ({"language": "English, please"}, "language"),
    ],
)
def test_values_from_which_no_report_can_be_made(changes: dict[str, str], about: str) -> None:
    with pytest.raises(DocumentError, match=about):
        report(**changes)
