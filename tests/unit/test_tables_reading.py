"""Files of all kinds, the hostile ones among them: what is read of each, and why others are refused."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
import xlsxwriter  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from errands import ConfigurationError
from errands.kits.tables import FileInfo, FileRefused, Limits, Reading, open_file
from errands.kits.tables.columns import Columns
from errands.kits.tables.json_rows import Array
from errands.kits.tables.raw import RawRow, Reason

COLUMNS = Columns(["number", "name", "mark"], required=["number"], aliases={"number": ["No.", "cadet id"]})
WIDE = Columns(["number", "name", "mark"], unknown="refuse")


class Reader:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "file"

    def __call__(
        self, content: bytes, limits: Limits | None = None, columns: Columns = COLUMNS, **how: Any
    ) -> tuple[FileInfo, list[RawRow]]:
        self.path.write_bytes(content)
        info, rows = open_file(self.path, columns, limits or Limits(), Reading(**how))
        return info, list(rows)

    def values(self, content: bytes, **how: Any) -> list[dict[str, Any]]:
        return [row.values for row in self(content, **how)[1]]

    def refuses(self, content: bytes, match: str, limits: Limits | None = None, **how: Any) -> None:
        with pytest.raises(FileRefused, match=match):
            self(content, limits, **how)


@pytest.fixture
def read(tmp_path: Path) -> Reader:
    return Reader(tmp_path)


def xlsx(*rows: list[Any], sheets: tuple[str, ...] = ("one",)) -> bytes:
    out = io.BytesIO()
    book = xlsxwriter.Workbook(out, {"in_memory": True})
    for name in sheets:
        sheet = book.add_worksheet(name)
        for number, row in enumerate(rows):
            sheet.write_row(number, 0, row)
    book.close()
    return out.getvalue()


# -- what it is


@pytest.mark.parametrize(
    ("encoding", "found"),
    [
        ("utf-8", "utf-8"), ("utf-8-sig", "utf-8-sig"), ("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"),
        ("utf-16-be", "utf-16-be"), ("utf-32", "utf-32"), ("cp1252", "cp1252"),
    ],
)  # fmt: skip
def test_encodings(read: Reader, encoding: str, found: str) -> None:
    info, rows = read("number,name\n1,Zoë Müller\n".encode(encoding))
    assert (info.encoding, rows[0].values["name"]) == (found, "Zoë Müller")


def test_a_letter_beyond_ascii_at_the_very_end_still_tells_the_encoding(read: Reader) -> None:
    info, rows = read(b"number,name\n" + b"1,plain\n" * 200_000 + "2,Zoë".encode("cp1252"))
    assert (info.encoding, rows[-1].values["name"]) == ("cp1252", "Zoë")


def test_bytes_that_are_no_text(read: Reader) -> None:
    read.refuses(b"number,name\n1,\x81\x8d\n", r"neither UTF-8 nor UTF-16 nor Windows-1252 \(near byte 14\)")
    read.refuses("number\nß".encode("cp1252"), r"the text is not utf-8 \(near byte 8\)", encoding="utf-8")
    read.refuses(b"number", "there is no encoding 'klingon'", encoding="klingon")
    read.refuses(b"\x89PNG\r\n\x1a\n\0\0", "none of the columns is known")


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters(read: Reader, delimiter: str) -> None:
    text = (
        f"number,name,mark\n1,Ann; Bob,2\n2,c|d{chr(9)}e,3\n"
        if delimiter == ","
        else "number,name,mark\n1,x,2\n"
    )
    info, rows = read(text.replace(",", delimiter).encode())
    assert (info.delimiter, rows[0].values["mark"]) == (delimiter, "2")


def test_a_delimiter_that_the_file_names(read: Reader) -> None:
    info, rows = read(b"sep=:\r\nnumber:name\r\n1:a,b;c\r\n")
    assert (info.delimiter, rows[0]) == (":", RawRow(2, {"number": "1", "name": "a,b;c"}))


def test_a_delimiter_that_is_none(read: Reader) -> None:
    read.refuses(b"number:name\n1:Ann\n", r"the first line has 'number:name'.*or the delimiter another\?")


def test_formats_by_their_first_bytes(read: Reader) -> None:
    assert read(b'  [{"number": 1}]')[0].format == "json"
    assert read(b'\xef\xbb\xbf{"number": 1}\n{"number": 2}')[0].format == "jsonl"
    assert read('[{"number": 1, "name": "ß"}]'.encode("utf-16"))[1][0].values["name"] == "ß"
    assert read(xlsx(["number"], [1]))[0].format == "xlsx"
    read.refuses(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 100, "save it as .xlsx without a password")
    read.refuses(b" \r\n\t", "the file is empty")


# -- headers


def test_names_of_columns_as_people_write_them(read: Reader) -> None:
    info, rows = read("  CADET-Id ;* Name ;Rank;Ｍark\n7;Ann;x;2\n".encode())
    assert rows == [RawRow(2, {"number": "7", "name": "Ann", "mark": "2"})]
    assert info.columns == {"  CADET-Id ": "number", "* Name ": "name", "Ｍark": "mark"}
    assert info.ignored == ["Rank"]


def test_headers_that_are_wrong(read: Reader) -> None:
    read.refuses(b"number,NAME,name\n", "the columns 'NAME', 'name' are all 'name'")
    read.refuses(b"name,mark\n", "the columns 'number' are missing; there are 'name', 'mark'")
    read.refuses(b"7,Ann\n8,Bob\n", "none of the columns is known.*Is the header missing")
    read.refuses(b"number,rank\n", "the columns 'rank' are not known", columns=WIDE)
    read.refuses(b'nu"m"ber"\n"x', "none of the columns|never closed")
    read.refuses(b",,\n,,\n", "the file is empty: it needs a line with the names of the columns")


def test_an_alias_of_two_fields_is_refused_when_it_is_declared() -> None:
    with pytest.raises(ConfigurationError, match="the column name 'NAME' stands for 'name' and for 'mark'"):
        Columns(["name", "mark"], aliases={"mark": ["NAME"]})
    with pytest.raises(ConfigurationError, match="no such field"):
        Columns(["name"], aliases={"rank": ["Rank"]})


# -- rows of cells


def test_line_ends_of_all_kinds_and_empty_lines(read: Reader) -> None:
    _, rows = read(b'number,name\r\n1,a\n\r\n2,b\r3,"c\r\nd"\n,\n4,e')
    assert [(row.number, row.values.get("name")) for row in rows] == [
        (2, "a"),
        (4, "b"),
        (5, "c\r\nd"),
        (7, "e"),
    ]


def test_rows_that_cannot_be_divided_do_not_take_others_along(read: Reader) -> None:
    _, rows = read(b'number,name\n1,"a"b"\n2,b,c\n3\n4,d\n')
    assert [row.reasons[0].message if row.reasons else row.values["name"] for row in rows] == [
        "the row can't be divided into cells: ',' expected after '\"'",
        "the row has 3 cells, and the header 2",
        "the row has 1 cells, and the header 2",
        "d",
    ]


def test_empty_cells(read: Reader) -> None:
    assert read.values(b"number,name\n1,\n") == [{"number": "1"}]
    assert read.values(b"number,name\n1,\n", empty="null") == [{"number": "1", "name": None}]


def test_quotes_that_are_never_closed(read: Reader) -> None:
    read.refuses(b'number,name\n1,"a\n2,b\n', "row 2 opens a quote that is never closed")
    read.refuses(b'number,name\n1,a\n2,"b' + b"\nx" * 3_000_000, "row 3 is too long|row 3 .*never closed")


def test_a_row_of_ten_megabytes(read: Reader) -> None:
    read.refuses(b"number,name\n1," + b"x" * 10_000_000, "row 2 is too long")
    _, rows = read(b'{"number": 1}\n{"name": "' + b"x" * 10_000_000 + b'"}\n{"number": 3}\n')
    assert [bool(row.reasons) for row in rows] == [False, True, False]
    read.refuses(b'[{"number": 1}, {"name": "' + b"x" * 10_000_000 + b'"}]', "row 2 has more than 1,048,576")


def test_a_cell_that_is_too_long_and_one_that_is_no_text(read: Reader) -> None:
    _, rows = read(b"number,name\n1," + b"x" * 40_000 + b"\n2,a\0b\n3,c\n")
    assert [reason.message for row in rows for reason in row.reasons] == [
        "the text has 40,000 characters; 32,767 is the limit",
        "the text holds a NUL character, which no text has",
    ]
    assert rows[0].reasons[0].value == "x" * 79 + "…"
    assert rows[2].values == {"number": "3", "name": "c"}


def test_ten_thousand_columns(read: Reader) -> None:
    header = ",".join(["number", *(f"c{n}" for n in range(9_999))]).encode()
    read.refuses(header + b"\n1\n", "the header has 10,000 columns; 200 is the limit")
    _, rows = read(b'{"number": 1}\n' + json.dumps({f"c{n}": n for n in range(10_000)}).encode())
    assert rows[1].reasons[0].message == "the row has 10,000 keys, over 200"


def test_the_limit_of_bytes(read: Reader) -> None:
    read.refuses(b"number\n1\n2\n", "the file has 11 bytes; 10 is the limit", Limits(bytes=10))


def test_apostrophes_that_guard_a_formula_are_taken_away(read: Reader) -> None:
    assert read.values(b"number,name\n1,'=1+1\n2,''=x\n3,'quoted'\n") == [
        {"number": "1", "name": "=1+1"},
        {"number": "2", "name": "'=x"},
        {"number": "3", "name": "'quoted'"},
    ]


# -- JSON


def test_json_that_is_no_list_of_rows(read: Reader) -> None:
    read.refuses(b'[{"number": 1}, {"number": 2', "row 2 is no JSON: ")
    read.refuses(b'[{"number": 1} {"number": 2}]', "after row 1 comes '{', where a comma or ] belongs")
    read.refuses(b'[{"number": 1}', "after row 1 comes the end of the file")
    read.refuses(b'[{"number": 1}] x', "something follows the end of the list, after row 1")
    read.refuses(b'[{"number": NaN}]', "row 1: NaN is no JSON")
    read.refuses(b'"text"', "the JSON is no list", format="json")
    assert read(b"[]")[1] == []


def test_json_rows_that_are_no_rows(read: Reader) -> None:
    _, rows = read(b'[1, "x", null, [2], {"number": 1, "No.": 2}, {"number": 3}]')
    assert [row.reasons[0].message for row in rows[:5]] == [
        *["a row is an object with the names of the columns as keys"] * 4,
        "the row has two keys for it",
    ]
    assert rows[5] == RawRow(6, {"number": 3})


def test_deep_json(read: Reader) -> None:
    read.refuses(b"[" * 100_000, "row 1: lists and objects lie too deep")
    read.refuses(b'[{"name": ' + b"[" * 100_000, "row 1: lists and objects lie too deep")
    deep = b'{"number": 1, "name": ' + b"[" * 500 + b"]" * 500 + b"}"
    assert read(b"[" + deep + b"]")[1][0].reasons == (
        Reason("name", None, "lists and objects lie more than 20 deep"),
    )
    _, rows = read(b'{"name": ' + b'{"a":' * 100_000 + b"\n" + b'{"number": 2}')
    assert [bool(row.reasons) for row in rows] == [True, False]


def test_lines_that_are_no_json(read: Reader) -> None:
    _, rows = read(b'{"number": 1}\r\n\r\n{oops}\n{"number": Infinity}\n{"number": 2}')
    assert [(row.number, [reason.message for reason in row.reasons]) for row in rows] == [
        (1, []),
        (3, ["this is no JSON: Expecting property name enclosed in double quotes at character 2"]),
        (4, ["this is no JSON: Infinity is no JSON"]),
        (5, []),
    ]


def test_an_inner_object_is_part_of_the_row(read: Reader) -> None:
    _, rows = read(
        b'[{"number": 1, "fields": {"name": "Ann"}}, {"number": 2, "fields": 3},'
        b' {"number": 4, "fields": {"x": 1}}]',
        columns=WIDE, flatten="fields",
    )  # fmt: skip
    assert rows[0].values == {"number": 1, "name": "Ann"}
    assert rows[1].reasons == (Reason(None, "3", "fields must be an object with names as keys"),)
    assert rows[2].reasons == (Reason("x", None, "there is no such field"),)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(
        st.recursive(
            st.none()
            | st.booleans()
            | st.integers()
            | st.text()
            | st.floats(allow_nan=False, allow_infinity=False),
            lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        )
    ),
    st.sampled_from([None, 1, 2]),
    st.integers(1, 7),
)
def test_a_list_is_read_as_it_was_written_wherever_it_is_cut(
    items: list[Any], indent: int | None, step: int
) -> None:
    class Pieces(io.StringIO):
        def read(self, size: int | None = -1) -> str:
            return super().read(step)

    text = Pieces(json.dumps(items, indent=indent))
    assert [value for _, value in Array(text, Limits())] == items


# -- XLSX


def test_cells_of_a_sheet_are_texts(read: Reader) -> None:
    assert read.values(xlsx(["number", "name", "mark"], [7, True, 2.5], ["007", "'=1", ""])) == [
        {"number": "7", "name": "true", "mark": "2.5"},
        {"number": "007", "name": "'=1"},
    ]


def test_formulas_of_a_sheet_are_what_they_came_to(read: Reader) -> None:
    out = io.BytesIO()
    book = xlsxwriter.Workbook(out)
    sheet = book.add_worksheet()
    sheet.write_row(0, 0, ["number", "name"])
    sheet.write_formula(1, 0, "=6*7", None, 42)
    sheet.write_formula(1, 1, '=WEBSERVICE("http://127.0.0.1/")', None, "cached")
    book.close()
    assert read.values(out.getvalue()) == [{"number": "42", "name": "cached"}]


def test_a_table_that_does_not_begin_in_the_first_cell(read: Reader) -> None:
    content = xlsx([], [], ["", "", "number", "name"], ["", "", 1, "Ann"])
    assert read(content)[1] == [RawRow(4, {"number": "1", "name": "Ann"})]


def test_a_sheet_by_its_name(read: Reader) -> None:
    content = xlsx(["number"], [1], sheets=("one", "two"))
    assert read.values(content, sheet="two") == [{"number": "1"}]
    read.refuses(content, "there is no sheet 'three'; there are one, two", sheet="three")


def test_limits_of_a_sheet(read: Reader) -> None:
    read.refuses(
        xlsx(["number"], *([n] for n in range(20))), "the sheet has 21 rows; 10 and a header", Limits(rows=10)
    )
    read.refuses(xlsx(["number", *map(str, range(300))]), "the sheet has 301 columns; 200 is the limit")


def archive(*files: tuple[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as made:
        for name, content in files:
            made.writestr(name, content)
    return out.getvalue()


def test_archives_that_are_no_sheets(read: Reader) -> None:
    read.refuses(archive(("a.csv", b"number\n1\n")), "this is an archive and no XLSX file")
    read.refuses(b"PK\x03\x04" + b"x" * 1000, "this is no XLSX file")
    read.refuses(
        archive(("[Content_Types].xml", b"<x"), ("xl/workbook.xml", b"<x")), "no XLSX file that can be read"
    )
    whole = xlsx(["number"], [1])
    read.refuses(whole[: len(whole) // 2], "this is no XLSX file")


def test_a_zip_bomb_is_not_unpacked(read: Reader) -> None:
    bomb = archive(("[Content_Types].xml", b"<x/>"), ("xl/worksheets/sheet1.xml", b"0" * 200_000_000))
    assert len(bomb) < 300_000
    read.refuses(bomb, "unpacks to far more than any table does")
    read.refuses(
        bomb, "200,000,004 bytes when it is unpacked; 1,000,000 is the limit", Limits(unpacked=1_000_000)
    )


@pytest.mark.parametrize(("row", "column", "limits"), [
    (1_048_575, 16_383, Limits()),
    (400_000, 150, Limits(memory=256 * 1024 * 1024)),
])  # fmt: skip
def test_two_cells_far_apart_cost_the_reader_and_not_the_worker(
    read: Reader, row: int, column: int, limits: Limits
) -> None:
    """A file of some kilobytes whose table, written out, has up to 17 thousand million cells."""
    out = io.BytesIO()
    book = xlsxwriter.Workbook(out)
    sheet = book.add_worksheet()
    sheet.write(0, 0, "number")
    sheet.write(row, column, "end")
    book.close()
    assert len(out.getvalue()) < 10_000
    read.refuses(out.getvalue(), "could not be read within its limits of memory and time", limits)


def test_a_reader_that_is_left_in_the_middle_is_ended(read: Reader, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(xlsx(["number"], *([n] for n in range(50_000))))
    _, rows = open_file(tmp_path / "file", COLUMNS, Limits())
    assert next(rows).values == {"number": "0"}
    rows.close()  # type: ignore[attr-defined]
