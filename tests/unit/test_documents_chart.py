"""Charts: where on the paper things go, what is refused, and that they are drawn as vectors."""

from __future__ import annotations

from io import BytesIO
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfReader
from tests.pdfs import text_of

from errands.kits.documents import Chart, DocumentError, Report, TypstDocuments
from errands.kits.documents.chart import scale
from errands.kits.documents.text import Texts

NUMBERS = st.floats(-1e12, 1e12, allow_nan=False)


def data(*args: Any, **options: Any) -> dict[str, Any]:
    return Chart(*args, alt="Alt", **options).data(Texts("en"))


def places(found: dict[str, Any]) -> list[list[float | None]]:
    return [[point and point["at"] for point in row["points"]] for row in found["series"]]


@given(NUMBERS, NUMBERS)
def test_a_scale_holds_its_numbers_between_few_round_ones(one: float, other: float) -> None:
    low, high = sorted((one, other))
    first, last, ticks = scale(low, high)
    slack = 1e-6 * max(abs(first), abs(last), 1e-300)
    assert first - slack <= low <= high <= last + slack
    assert 2 <= len(ticks) <= 8
    steps = [after - before for before, after in pairwise(ticks)]
    assert max(steps) == pytest.approx(min(steps), rel=1e-3, abs=slack)


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 10, [0, 2, 4, 6, 8, 10]),
        (0, 97, [0, 20, 40, 60, 80, 100]),
        (-3, 3, [-3, -2, -1, 0, 1, 2, 3]),
        (0, 0, [0, 0.2, 0.4, 0.6, 0.8, 1]),
    ],
)
def test_round_numbers(low: float, high: float, ticks: list[float]) -> None:
    assert scale(low, high)[2] == ticks


def test_bars_begin_at_zero_and_lines_where_they_are() -> None:
    assert places(data("bar", ["a", "b"], [50, 100])) == [[0.5, 1.0]]
    below = data("bar", ["a", "b"], [-10, 10])
    assert (below["zero"], places(below)) == (0.5, [[0.0, 1.0]])
    near = data("line", ["a", "b", "c"], [96, None, 98])
    assert near["ticks"][0]["text"] == "96"
    assert places(near)[0][1] is None
    assert data("line", ["a", "b"], [1, 98])["ticks"][0]["text"] == "0"


def test_bars_lie_down_where_their_labels_need_room() -> None:
    assert data("bar", ["Mon", "Tue"], [1, 2])["kind"] == "bar"
    assert data("bar", [str(number) for number in range(13)], range(13))["kind"] == "lying"
    assert data("bar", ["A course with a long name", "b", "c", "d"], [1, 2, 3, 4])["kind"] == "lying"


def test_shares_are_of_the_whole_and_small_ones_go_together() -> None:
    parts = data("share", ["a", "b", "c"], [3, 1, 0])["parts"]
    assert [(part["label"], part["share"], part["percent"]) for part in parts] == [
        ("a", 0.75, "75%"), ("b", 0.25, "25%"),
    ]  # fmt: skip
    many = data("share", [f"p{number}" for number in range(20)], [*range(1, 20), 0.5])["parts"]
    assert [part["label"] for part in many] == ["p18", "p17", "p16", "p15", "p14", "p13", "p12", None]
    assert sum(part["share"] for part in many) == pytest.approx(1)
    assert data("share", ["a"], [0])["parts"] == []
    assert data("share", ["a", "b"], [1000, 1])["parts"][1]["percent"] == "<1%"


@pytest.mark.parametrize(
    ("make", "about"),
    [
        (lambda: Chart("pie", ["a"], [1], "Alt"), "pie"),  # type: ignore[arg-type]
        (lambda: Chart("bar", ["a"], [1], " "), "alt text"),
        (
            lambda: Chart("bar", ["a", "b"], [1], "Alt", title="Marks"),
            "chart 'Marks': .* 1 numbers for 2 labels",
        ),
        (lambda: Chart("bar", ["a"], {"x": [1], "y": [1, 2]}, "Alt"), "y has 2 numbers"),
        (lambda: Chart("bar", ["a"], [float("nan")], "Alt"), "nan"),
        (lambda: Chart("bar", ["a"], [10**400], "Alt"), "drawn"),
        (lambda: Chart("bar", ["a"], ["7"], "Alt"), "'7' is no number"),  # type: ignore[list-item]
        (lambda: Chart("share", ["a"], [-1], "Alt"), "-1 is no share"),
        (lambda: Chart("share", ["a"], {"x": [1], "y": [1]}, "Alt"), "2 series"),
        (lambda: Chart("bar", ["a"] * 61, [1] * 61, "Alt"), "61 labels"),
        (lambda: Chart("line", ["a"], {str(n): [1] for n in range(7)}, "Alt"), "7 series"),
    ],
)
def test_charts_that_cannot_be_drawn(make: Any, about: str) -> None:
    with pytest.raises(DocumentError, match=about):
        make()


async def test_they_are_vectors_with_labels_of_any_script() -> None:
    labels = ["محمد", "王小明", "Ελένη", "a label that is much longer than the others, with no end in sight"]
    charts = [
        Chart("bar", labels[:2], {"one": [1, None], "two": [-1, 2]}, "Alt", title="Standing", unit=" €"),
        Chart("bar", labels, [1, 2, -3, 4], "Alt", title="Lying"),
        Chart("line", labels, {"one": [1, None, 3, 2], "two": [None] * 4}, "Alt", title="Line"),
        Chart("share", labels, [1, 2, 3, 4], "Alt", title="Ring"),
        *(Chart(kind, [], [], "Alt") for kind in ("bar", "line", "share")),
        *(Chart(kind, ["a"], [0], "Alt") for kind in ("bar", "line", "share")),
        *(Chart(kind, ["a"], [None], "Alt") for kind in ("bar", "line", "share")),
    ]  # type: ignore[misc]
    documents = TypstDocuments()
    pdf = await documents.report(Report(title="Charts", sections=charts))
    await documents.aclose()
    text = text_of(pdf)
    for word in ("Standing", "Lying", "Line", "Ring", "王小明", "Ελένη", "one", "two", "2 €", "-3", "40%"):
        assert word in text
    pages = PdfReader(BytesIO(pdf)).pages
    assert all(not page.images for page in pages)
    assert sum(page.get_contents().get_data().count(b" l\n") for page in pages) > 50  # type: ignore[union-attr]
